package ipvs

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// node is what the node has without us.
type node struct {
	addresses map[netip.Addr]string // and the link that each is on
	// sources of its own clients' connections to virtual addresses.
	source4, source6 netip.Addr
}

// source for a virtual address.
func (n node) source(a netip.Addr) netip.Addr {
	if a.Is4() {
		return n.source4
	}
	return n.source6
}

// readNode lists the node's addresses.
func readNode() (node, error) {
	n := node{addresses: map[netip.Addr]string{}}
	links, err := netlink.LinkList()
	if err != nil {
		return n, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return n, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
		}
		for _, a := range addresses {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && l.Attrs().Name != LinkName {
				n.addresses[ip.Unmap()] = l.Attrs().Name
			}
		}
	}
	return n, nil
}

// maxTries bounds the questions to the routing table: with all backends on the
// node itself none has an answer.
const maxTries = 16

// pickSources chooses for each family: the given one, or the one that the node
// takes to reach the first backend elsewhere, or the least of its own.
func (n *node) pickSources(given4, given6 netip.Addr, backends []netip.Addr) error {
	routes, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer routes.Close()
	pick := func(v6 bool, given netip.Addr) netip.Addr {
		if given.IsValid() {
			return given
		}
		tries := 0
		for _, b := range backends {
			if b.Is6() != v6 {
				continue
			}
			if s := sourceTowards(routes, b); s.IsValid() {
				return s
			}
			if tries++; tries == maxTries {
				break
			}
		}
		for _, a := range slices.SortedFunc(maps.Keys(n.addresses), netip.Addr.Compare) {
			if a.Is6() == v6 && a.IsGlobalUnicast() {
				return a
			}
		}
		return netip.Addr{}
	}
	n.source4, n.source6 = pick(false, given4), pick(true, given6)
	return nil
}

// sourceTowards asks the routing table; invalid when the address is not
// reachable, or the node's own.
func sourceTowards(routes *netlink.Handle, a netip.Addr) netip.Addr {
	found, err := routes.RouteGet(a.AsSlice())
	if err != nil || len(found) == 0 || found[0].Type == unix.RTN_LOCAL {
		return netip.Addr{}
	}
	s, _ := netip.AddrFromSlice(found[0].Src)
	return s.Unmap()
}

// backendAddresses lists those of all services, each once, sorted.
func (w *wanted) backendAddresses() []netip.Addr {
	all := map[netip.Addr]bool{}
	for _, s := range w.services {
		for d := range s.destinations {
			all[d.Addr()] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), netip.Addr.Compare)
}

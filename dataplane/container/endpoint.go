package container

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrNamespaceGone is told of a container whose network namespace is no more.
var ErrNamespaceGone = errors.New("the network namespace is gone")

// setEndpoints attaches containers. A veth pair goes with either end, so one
// whose end here is there, is whole.
func (s *Sink) setEndpoints(t Table, k *plan) error {
	links, err := readLinks()
	if err != nil {
		return err
	}
	hairpins, err := readHairpins()
	if err != nil {
		return err
	}
	var faults []error
	for _, e := range t.Endpoints {
		for i := range e.Interfaces {
			err := s.setInterface(links, hairpins, k, &e, i)
			if err != nil && !errors.Is(err, ErrNamespaceGone) {
				faults = append(faults, fmt.Errorf("%s: network %s: %w", e.ID, e.Interfaces[i].Network, err))
			}
		}
	}
	return errors.Join(faults...)
}

func (s *Sink) setInterface(links map[string]netlink.Link, hairpins map[int]bool, k *plan, e *Endpoint, at int) error {
	i := e.Interfaces[at]
	b := k.byName[i.Network]
	if b == nil {
		return nil // the network has been taken away; sweep lets the pair stand, with no bridge
	}
	bridge := links[BridgeName(i.Network)]
	if bridge == nil {
		return errors.New("it has no bridge")
	}
	name := VethName(e.ID, i.Network)
	held := links[name]
	if held != nil && held.Type() != "veth" {
		return fmt.Errorf("the name %s belongs to a link of kind %s", name, held.Type())
	}
	if held == nil {
		var err error
		if held, err = s.connect(name, e, at, b); err != nil {
			return err
		}
	}
	return s.setPort(held, bridge, b.mtu, hairpins[held.Attrs().Index])
}

// setPort makes a veth's end a port of the bridge that sends a packet back to
// where it came from: a container that asks for what it serves itself, by the
// node's address, gets its own packet.
func (s *Sink) setPort(l, bridge netlink.Link, mtu int, hairpin bool) error {
	if l.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := netlink.LinkSetMaster(l, bridge); err != nil {
			return fmt.Errorf("make it a port of the bridge: %w", err)
		}
		s.wrote()
	}
	if !hairpin {
		if err := netlink.LinkSetHairpin(l, true); err != nil {
			return fmt.Errorf("set hairpin mode: %w", err)
		}
		s.wrote()
	}
	// A port needs no address of its own.
	if err := s.sysctl("1", "net", "ipv6", "conf", l.Attrs().Name, "disable_ipv6"); err != nil {
		return err
	}
	return s.raise(l, mtu)
}

// readHairpins lists the ports of bridges, by index, that have hairpin mode: in
// one dump, where the library would make one per port.
func readHairpins() (map[int]bool, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfInfomsg(unix.AF_BRIDGE))
	all, err := request.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return nil, fmt.Errorf("list ports of bridges: %w", err)
	}
	hairpins := map[int]bool{}
	for _, message := range all {
		l, err := netlink.LinkDeserialize(&unix.NlMsghdr{Type: unix.RTM_NEWLINK}, message)
		if err != nil {
			return nil, fmt.Errorf("read a port of a bridge: %w", err)
		}
		if p := l.Attrs().Protinfo; p != nil && p.Hairpin {
			hairpins[l.Attrs().Index] = true
		}
	}
	return hairpins, nil
}

// connect makes a veth pair whose other end is in the container.
func (s *Sink) connect(name string, e *Endpoint, at int, b *bridge) (netlink.Link, error) {
	i := e.Interfaces[at]
	space, err := netns.GetFromPath(e.Namespace)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("open %s: %w", e.Namespace, ErrNamespaceGone)
	}
	if err != nil {
		return nil, fmt.Errorf("open the network namespace %s: %w", e.Namespace, err)
	}
	defer space.Close()
	inside, err := netlink.NewHandleAt(space)
	if err != nil {
		return nil, fmt.Errorf("enter the network namespace %s: %w", e.Namespace, ErrNamespaceGone)
	}
	defer inside.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, b.mtu
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: i.Name, PeerNamespace: netlink.NsFd(space), PeerMTU: uint32(b.mtu)}
	if len(i.Addresses) > 0 {
		veth.PeerHardwareAddr = MAC(i.Network, i.Addresses[0])
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("make a veth pair to %s in the container: %w", i.Name, err)
	}
	s.wrote()
	if err := configure(space, inside, i, b.network); err != nil {
		// A pair that is half done would be taken for a whole one.
		return nil, errors.Join(err, netlink.LinkDel(veth))
	}
	return netlink.LinkByName(name)
}

// configure gives a container's end its addresses and routes.
func configure(space netns.NsHandle, inside *netlink.Handle, i Interface, n Network) error {
	for _, a := range i.Addresses {
		if a.Is6() {
			if err := allowIPv6(space, i.Name); err != nil {
				return err
			}
			break
		}
	}
	if lo, err := inside.LinkByName("lo"); err == nil && lo.Attrs().Flags&net.FlagUp == 0 {
		if err := inside.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
	}
	l, err := inside.LinkByName(i.Name)
	if err != nil {
		return fmt.Errorf("find %s in the container: %w", i.Name, err)
	}
	if err := inside.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", i.Name, err)
	}
	for _, a := range i.Addresses {
		gateway, ok := gatewayOf(n, a)
		if !ok {
			return fmt.Errorf("address %s is not in the node's subnet of the network", a)
		}
		if err := inside.AddrAdd(l, addressFor(netip.PrefixFrom(a, gateway.Bits()))); err != nil {
			return fmt.Errorf("add address %s: %w", a, err)
		}
		for _, to := range routesOf(i, n, a) {
			r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(to), Gw: gateway.Addr().AsSlice()}
			if err := inside.RouteReplace(r); err != nil {
				return fmt.Errorf("add route to %s: %w", to, err)
			}
		}
	}
	return nil
}

// gatewayOf is the bridge's address in the subnet of a container's.
func gatewayOf(n Network, a netip.Addr) (netip.Prefix, bool) {
	for _, g := range n.Gateways {
		if g.Contains(a) {
			return g, true
		}
	}
	return netip.Prefix{}, false
}

// routesOf lists where the gateway leads for an address: everywhere, or to the
// rest of the network.
func routesOf(i Interface, n Network, a netip.Addr) []netip.Prefix {
	if i.Default {
		if a.Is4() {
			return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
		}
		return []netip.Prefix{netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	var all []netip.Prefix
	for _, r := range n.Ranges {
		if g, ok := gatewayOf(n, a); ok && r.Addr().Is4() == a.Is4() && r.Bits() < g.Bits() {
			all = append(all, r)
		}
	}
	return all
}

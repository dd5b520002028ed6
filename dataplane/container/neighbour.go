package container

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// neighbour is an entry of a tunnel: of the forwarding table (a MAC, and the
// node that has it) or of the neighbour table (a next hop, and its MAC).
type neighbour struct {
	family int
	mac    string
	at     netip.Addr
}

// setEnds writes where the other nodes' ends of a tunnel are, and removes all
// other entries: a packet for an address that is none of these goes nowhere.
func (s *Sink) setEnds(l netlink.Link, t *tunnel) error {
	index := l.Attrs().Index
	wanted := map[neighbour]netlink.Neigh{}
	for _, e := range t.ends {
		mac := tunnelMAC(e.node, t.vni, t.local.Is6())
		n := netlink.Neigh{LinkIndex: index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT, IP: e.at.AsSlice(), HardwareAddr: mac}
		wanted[neighbour{unix.AF_BRIDGE, mac.String(), e.at}] = n
		for hop := range e.hops {
			family := familyOf(hop)
			wanted[neighbour{family, mac.String(), hop}] = netlink.Neigh{LinkIndex: index, Family: family, State: netlink.NUD_PERMANENT, IP: hop.AsSlice(), HardwareAddr: mac}
		}
	}
	held, err := readNeighbours(index)
	if err != nil {
		return err
	}
	// Others go first: a MAC has one place in the forwarding table, and what is
	// removed after its successor was written would take that along.
	for key, n := range held {
		if _, keep := wanted[key]; keep {
			continue
		}
		if err := netlink.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove the entry of %s at %s: %w", key.mac, key.at, err)
		}
		s.removed()
	}
	for key, n := range wanted {
		if _, there := held[key]; there {
			continue
		}
		if err := netlink.NeighSet(&n); err != nil {
			return fmt.Errorf("write the entry of %s at %s: %w", key.mac, key.at, err)
		}
		s.wrote()
	}
	return nil
}

func readNeighbours(index int) (map[neighbour]netlink.Neigh, error) {
	held := map[neighbour]netlink.Neigh{}
	for _, family := range []int{unix.AF_BRIDGE, netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := netlink.NeighList(index, family)
		if err != nil {
			return nil, fmt.Errorf("list neighbours: %w", err)
		}
		for _, n := range all {
			// What the kernel tries to find out by itself is gone soon.
			if n.State&netlink.NUD_PERMANENT != 0 && n.HardwareAddr != nil {
				n.Family = family
				held[neighbour{family, n.HardwareAddr.String(), addrOf(n.IP)}] = n
			}
		}
	}
	return held, nil
}

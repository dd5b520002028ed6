package container

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/weirproject/weir/netspace"
)

// inSpace runs f on a thread that is in the network namespace.
func inSpace(space netns.NsHandle, f func() error) error { return netspace.Enter(int(space), f) }

// allowIPv6 undoes what container engines do where they know of no IPv6.
func allowIPv6(space netns.NsHandle, name string) error {
	return inSpace(space, func() error {
		for _, conf := range []string{"lo", name} {
			file := "/proc/sys/net/ipv6/conf/" + conf + "/disable_ipv6"
			if err := os.WriteFile(file, []byte("0"), 0o644); err != nil {
				return fmt.Errorf("enable IPv6 on %s: %w", conf, err)
			}
		}
		return nil
	})
}

// Check compares a container with what it was given, inside too. It changes
// nothing; what differs is the error.
func (s *Sink) Check(e Endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	space, err := netns.GetFromPath(e.Namespace)
	if err != nil {
		return fmt.Errorf("open the network namespace %s: %w", e.Namespace, err)
	}
	defer space.Close()
	inside, err := netlink.NewHandleAt(space)
	if err != nil {
		return fmt.Errorf("enter the network namespace %s: %w", e.Namespace, err)
	}
	defer inside.Close()
	var faults []error
	for _, i := range e.Interfaces {
		host, err := netlink.LinkByName(VethName(e.ID, i.Network))
		if err != nil {
			faults = append(faults, fmt.Errorf("network %s: the node's end of the veth pair is missing", i.Network))
			continue
		}
		if bridge, err := netlink.LinkByName(BridgeName(i.Network)); err != nil || host.Attrs().MasterIndex != bridge.Attrs().Index {
			faults = append(faults, fmt.Errorf("network %s: the veth pair is at no bridge of it", i.Network))
		}
		faults = append(faults, checkInside(inside, i))
	}
	return errors.Join(faults...)
}

func checkInside(inside *netlink.Handle, i Interface) error {
	l, err := inside.LinkByName(i.Name)
	if err != nil {
		return fmt.Errorf("%s is missing in the container", i.Name)
	}
	held, err := inside.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", i.Name, err)
	}
	for _, a := range i.Addresses {
		if !slices.ContainsFunc(held, func(h netlink.Addr) bool { return addrOf(h.IP) == a }) {
			return fmt.Errorf("%s has no address %s any more", i.Name, a)
		}
		if !i.Default {
			continue
		}
		routes, err := inside.RouteList(l, familyOf(a))
		if err != nil {
			return fmt.Errorf("list routes of %s: %w", i.Name, err)
		}
		if !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Gw != nil && (r.Dst == nil || prefixOf(r.Dst).Bits() == 0) }) {
			return fmt.Errorf("%s has no default route of %s's family any more", i.Name, a)
		}
	}
	return nil
}

// MTU is that of a network's bridge, and so of its containers; 0 while there is
// none.
func (s *Sink) MTU(network string) int {
	l, err := netlink.LinkByName(BridgeName(network))
	if err != nil {
		return 0
	}
	return l.Attrs().MTU
}

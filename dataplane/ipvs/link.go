package ipvs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

// LinkName is the dummy device that the virtual addresses' routes are on. It
// marks them as ours.
const LinkName = dataplane.BalancerLink

// link is our device in the kernel, with the virtual addresses. They are local
// routes and not addresses, because of the source: to an address of its own a
// node speaks from that very address, and a backend would answer to itself. A
// local route can name another one.
type link struct {
	device netlink.Link
	routes map[netip.Prefix]netip.Addr // the source of each; invalid: none
}

// openLink finds the device, and makes it when it is missing.
func openLink() (l *link, made bool, err error) {
	device, err := netlink.LinkByName(LinkName)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		made = true
		err = netlink.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: LinkName}})
		if err == nil {
			device, err = netlink.LinkByName(LinkName)
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("make link %s (kernel module dummy): %w", LinkName, err)
	}
	if device.Type() != "dummy" {
		return nil, false, fmt.Errorf("make link %s: there is one of type %s that is not ours", LinkName, device.Type())
	}
	if err := netlink.LinkSetUp(device); err != nil {
		return nil, false, fmt.Errorf("set link %s up: %w", LinkName, err)
	}
	l = &link{device: device}
	return l, made, l.read()
}

// read lists the virtual addresses that the node has.
func (l *link) read() error {
	l.routes = map[netip.Prefix]netip.Addr{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_LOCAL, Protocol: routeProtocol},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return fmt.Errorf("list virtual addresses: %w", err)
		}
		for _, r := range routes {
			if r.Dst == nil || r.Type != unix.RTN_LOCAL {
				continue
			}
			if a, ok := netip.AddrFromSlice(r.Dst.IP); ok {
				source, _ := netip.AddrFromSlice(r.Src)
				bits, _ := r.Dst.Mask.Size()
				l.routes[netip.PrefixFrom(unmap(a, family), bits)] = unmap(source, family)
			}
		}
	}
	return nil
}

func unmap(a netip.Addr, family int) netip.Addr {
	if family == unix.AF_INET {
		return a.Unmap()
	}
	return a
}

// routeProtocol marks the routes, since the kernel shows a local IPv6 route on
// another device than the one it was given.
const routeProtocol = dataplane.BalancerProtocol

func (l *link) route(p netip.Prefix, source netip.Addr) *netlink.Route {
	r := &netlink.Route{
		LinkIndex: l.device.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Protocol: routeProtocol,
		Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
	}
	if source.IsValid() {
		r.Src = source.AsSlice()
	}
	return r
}

// add makes the network virtual, with the source that the node's own clients
// have.
func (l *link) add(p netip.Prefix, source netip.Addr) error {
	if err := netlink.RouteReplace(l.route(p, source)); err != nil {
		return fmt.Errorf("add %s to %s: %w", p, LinkName, err)
	}
	return nil
}

func (l *link) remove(p netip.Prefix) error {
	err := netlink.RouteDel(l.route(p, netip.Addr{}))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove %s from %s: %w", p, LinkName, err)
	}
	return nil
}

package container

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

// readLinks lists the links by name.
func readLinks() (map[string]netlink.Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	byName := make(map[string]netlink.Link, len(all))
	for _, l := range all {
		byName[l.Attrs().Name] = l
	}
	return byName, nil
}

func (s *Sink) setBridges(links map[string]netlink.Link, k *plan) error {
	var faults []error
	for name, b := range k.bridges {
		if err := s.setBridge(links[name], name, b); err != nil {
			faults = append(faults, fmt.Errorf("network %s: bridge %s: %w", b.network.Name, name, err))
		}
	}
	return errors.Join(faults...)
}

func (s *Sink) setBridge(held netlink.Link, name string, b *bridge) error {
	if held != nil && held.Type() != "bridge" {
		return fmt.Errorf("the name belongs to a link of kind %s", held.Type())
	}
	if held == nil {
		attrs := netlink.NewLinkAttrs()
		// Its own address must not change with its ports.
		attrs.Name, attrs.MTU, attrs.HardwareAddr = name, b.mtu, macOf(name)
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("make it: %w", err)
		}
		var err error
		if held, err = netlink.LinkByName(name); err != nil {
			return err
		}
		s.wrote()
	}
	// Nobody may take part in address discovery here: DAD would hold the gateway
	// back for a second, and an announcing container would be a router.
	for _, set := range [][3]string{
		{"ipv6", "disable_ipv6", "0"}, {"ipv6", "accept_dad", "0"}, {"ipv6", "accept_ra", "0"}, {"ipv4", "send_redirects", "0"},
	} {
		if err := s.sysctl(set[2], "net", set[0], "conf", name, set[1]); err != nil {
			return err
		}
	}
	if err := s.raise(held, b.mtu); err != nil {
		return err
	}
	return s.setAddresses(held, b.network.Gateways)
}

// raise gives a link its MTU and sets it up.
func (s *Sink) raise(l netlink.Link, mtu int) error {
	if l.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(l, mtu); err != nil {
			return fmt.Errorf("set the MTU to %d: %w", mtu, err)
		}
		s.wrote()
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("set it up: %w", err)
		}
		s.wrote()
	}
	return nil
}

// setAddresses gives a link of ours these addresses alone, link-local ones aside.
func (s *Sink) setAddresses(l netlink.Link, wanted []netip.Prefix) error {
	all, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	held := map[netip.Prefix]netlink.Addr{}
	for _, a := range all {
		if p := prefixOf(a.IPNet); !p.Addr().IsLinkLocalUnicast() {
			held[p] = a
		}
	}
	for _, p := range wanted {
		if _, there := held[p]; there {
			delete(held, p)
			continue
		}
		if err := netlink.AddrAdd(l, addressFor(p)); err != nil {
			return fmt.Errorf("add address %s: %w", p, err)
		}
		s.wrote()
	}
	for p, a := range held {
		if err := netlink.AddrDel(l, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s: %w", p, err)
		}
		s.removed()
	}
	return nil
}

// addressFor is an address that is in use at once, without duplicate detection.
func addressFor(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func (s *Sink) setTunnels(links map[string]netlink.Link, k *plan) error {
	var faults []error
	for name, t := range k.tunnels {
		l, err := s.setTunnel(links[name], k.table.Node, t)
		if err == nil {
			err = s.setEnds(l, t)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
			continue
		}
		k.tunnelRoutes(t, l.Attrs().Index)
	}
	return errors.Join(faults...)
}

// setTunnel makes a VXLAN device that neither learns nor floods nor answers for
// others: where a packet goes is in the entries that setEnds writes, or nowhere.
func (s *Sink) setTunnel(held netlink.Link, node string, t *tunnel) (netlink.Link, error) {
	mac := tunnelMAC(node, t.vni, t.local.Is6())
	if v, ok := held.(*netlink.Vxlan); ok && !(v.VxlanId == int(t.vni) && v.Port == dataplane.VXLANPort && !v.Learning && !v.Proxy && addrOf(v.SrcAddr) == t.local && bytes.Equal(v.HardwareAddr, mac)) {
		if err := netlink.LinkDel(held); err != nil {
			return nil, fmt.Errorf("remove the one that differs: %w", err)
		}
		held = nil
	}
	if held != nil && held.Type() != "vxlan" {
		return nil, fmt.Errorf("the name belongs to a link of kind %s", held.Type())
	}
	if held == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = t.name, t.mtu, mac
		if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: int(t.vni), Port: dataplane.VXLANPort, SrcAddr: t.local.AsSlice()}); err != nil {
			return nil, fmt.Errorf("make it: %w", err)
		}
		var err error
		if held, err = netlink.LinkByName(t.name); err != nil {
			return nil, err
		}
		s.wrote()
	}
	// The peer's own address comes out of the tunnel, while the way back to it
	// from here goes beside: strict filtering of sources (1) would drop it.
	for _, set := range [][3]string{{"ipv4", "rp_filter", "2"}, {"ipv6", "disable_ipv6", "0"}, {"ipv6", "accept_dad", "0"}, {"ipv6", "accept_ra", "0"}, {"ipv6", "addr_gen_mode", "1"}} {
		if err := s.sysctl(set[2], "net", set[0], "conf", t.name, set[1]); err != nil {
			return nil, err
		}
	}
	return held, s.raise(held, t.mtu)
}

// sweep removes links of ours that nothing wants.
func (s *Sink) sweep(k *plan) error {
	links, err := readLinks()
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, e := range k.table.Endpoints {
		for _, i := range e.Interfaces {
			wanted[VethName(e.ID, i.Network)] = true
		}
	}
	var faults []error
	for name, l := range links {
		if !ours(name, l.Type()) || wanted[name] || k.bridges[name] != nil || k.tunnels[name] != nil {
			continue
		}
		if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			faults = append(faults, fmt.Errorf("link %s: %w", name, err))
			continue
		}
		s.removed()
	}
	return errors.Join(faults...)
}

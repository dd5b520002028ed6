package answers

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
)

// loopback is the index of lo in every network namespace.
const loopback = 1

// linkName is that of the link at an interface. It has the index, since names of
// interfaces may have dots, which bpffs refuses.
func linkName(index int) string { return fmt.Sprintf("%d-ingress", index) }

// setLinks makes the wanted interfaces run the program, by a pinned link, and no
// other one. An interface that goes away meanwhile is no fault.
func (a *Answerer) setLinks(t Table, c *dataplane.Changes) error {
	interfaces, err := findInterfaces(t)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	var faults error
	for _, index := range interfaces {
		wanted[linkName(index)] = true
		if err := a.setLink(index, c); err != nil && exists(index) {
			faults = fmt.Errorf("attach to interface %d: %w", index, err)
		}
	}
	a.at = len(wanted)
	removed, err := a.links.Keep(func(name string) bool { return wanted[name] })
	c.Removed += removed
	if err != nil {
		return err
	}
	return faults
}

func exists(index int) bool {
	_, err := netlink.LinkByIndex(index)
	return err == nil
}

func (a *Answerer) setLink(index int, c *dataplane.Changes) error {
	program := a.programs.Programs[bpf.DnsAnswerProgWeirDnsAnswer]
	return a.links.Set(linkName(index), pin.Hook{
		Program: program,
		At: func(i *link.Info) bool {
			at := i.TCX()
			return at != nil && at.Ifindex == uint32(index) && uint32(at.AttachType) == uint32(ebpf.AttachTCXIngress)
		},
		Attach: func() (link.Link, error) {
			return link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: ebpf.AttachTCXIngress})
		},
	}, func(repair bool, kind, name string) { a.count(c, repair, kind, name) })
}

// Interfaces tells how many interfaces a table's program would run on, in the
// network namespace of the calling thread.
func Interfaces(t Table) (int, error) {
	all, err := findInterfaces(t)
	return len(all), err
}

// findInterfaces gives the indices of the veths whose other end is in another
// network namespace: the host's side of containers. They are looked up in the
// network namespace of the calling thread.
func findInterfaces(t Table) (all []int, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	if t.Loopback {
		all = append(all, loopback)
	}
	for _, l := range links {
		attrs := l.Attrs()
		if l.Type() != "veth" || attrs.NetNsID < 0 {
			continue
		}
		up, err := isUplink(l, t.Uplinks)
		if err != nil {
			return nil, err
		}
		if !up {
			all = append(all, attrs.Index)
		}
	}
	return all, nil
}

// isUplink tells whether the interface has one of the addresses: a node that is
// a container itself has a veth for its way out.
func isUplink(l netlink.Link, addresses []netip.Addr) (bool, error) {
	if len(addresses) == 0 {
		return false, nil
	}
	own, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		if !exists(l.Attrs().Index) {
			return true, nil // it has gone
		}
		return false, fmt.Errorf("list the addresses of interface %s: %w", l.Attrs().Name, err)
	}
	return slices.ContainsFunc(own, func(a netlink.Addr) bool {
		is, ok := netip.AddrFromSlice(a.IP)
		return ok && slices.Contains(addresses, is.Unmap())
	}), nil
}

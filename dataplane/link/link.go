// Package link knows the node's links: it puts the addresses on lo at which the
// node's own DNS proxy listens, announces virtual addresses on a segment and
// answers for them, and finds next hops. Every address it adds bears one of the
// marks in package dataplane, so that Set and Cleanup touch no other.
package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

// SetLoopback makes lo bear the addresses, and none other of ours. Addresses
// of the loopback range and addresses that the node has without us are left
// alone. It counts an address as repaired when known tells that an earlier
// call had added it.
func SetLoopback(wanted []netip.Addr, known []netip.Addr) (dataplane.Changes, error) {
	var changes dataplane.Changes
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return changes, fmt.Errorf("find lo: %w", err)
	}
	ours, err := marked(lo)
	if err != nil {
		return changes, err
	}
	for _, a := range ours {
		if !slices.Contains(wanted, a) {
			if err := netlink.AddrDel(lo, address(a)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return changes, fmt.Errorf("remove %s from lo: %w", a, err)
			}
			changes.Removed++
		}
	}
	for _, a := range wanted {
		if a.IsLoopback() || slices.Contains(ours, a) {
			continue
		}
		add := func() error { return netlink.AddrAdd(lo, address(a)) }
		if a.Is6() {
			add = func() error { return add6(lo, a) }
		}
		if err := add(); errors.Is(err, unix.EEXIST) {
			continue
		} else if err != nil {
			return changes, fmt.Errorf("add %s to lo: %w", a, err)
		}
		if slices.Contains(known, a) {
			changes.Repaired++
		} else {
			changes.Written++
		}
	}
	return changes, nil
}

// Cleanup removes every address of ours from lo and tells how many.
func Cleanup() (int, error) {
	changes, err := SetLoopback(nil, nil)
	return changes.Removed, err
}

// marked lists the addresses on lo that bear our mark.
func marked(lo netlink.Link) ([]netip.Addr, error) {
	all, err := netlink.AddrList(lo, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of lo: %w", err)
	}
	var ours []netip.Addr
	for _, a := range all {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && a.Label == dataplane.AddressLabel {
			ours = append(ours, ip.Unmap())
		}
	}
	ours6, err := marked6(lo)
	return append(ours, ours6...), err
}

func address(a netip.Addr) *netlink.Addr {
	on := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is4() {
		on.Label, on.Scope = dataplane.AddressLabel, unix.RT_SCOPE_HOST
	}
	return on
}

package link

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// BridgedNetworks are the networks of the bridges that lead to containers and
// virtual machines of this node alone: those with an address of the node whose
// ports, if any, are all ends of veth pairs or of tun devices. A bridge with any
// other port reaches other machines.
func BridgedNetworks() ([]netip.Prefix, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	bridges := map[int]netlink.Link{}
	for _, l := range all {
		if l.Type() == "bridge" {
			bridges[l.Attrs().Index] = l
		}
	}
	for _, l := range all {
		if l.Type() != "veth" && l.Type() != "tun" && l.Type() != "tuntap" {
			delete(bridges, l.Attrs().MasterIndex)
		}
	}
	var networks []netip.Prefix
	for _, b := range bridges {
		addresses, err := netlink.AddrList(b, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", b.Attrs().Name, err)
		}
		for _, a := range addresses {
			ip, ok := netip.AddrFromSlice(a.IP)
			if bits, _ := a.Mask.Size(); ok && ip.Unmap().IsGlobalUnicast() {
				networks = append(networks, netip.PrefixFrom(ip.Unmap(), bits).Masked())
			}
		}
	}
	slices.SortFunc(networks, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return slices.Compact(networks), nil
}

package zones

import (
	"net/netip"

	"github.com/weirproject/weir/api"
)

// EdgeSources are the clients that the policy lets through an edge node to one
// of a service's virtual addresses, for what balances packets before a filter
// sees them (dataplane.EdgeService.Allow). The list is as short as can be;
// all tells that there is no limit, an empty list without it that nobody may.
//
// An edge node relays what it balances, so that a client may reach the virtual
// address when the policy allows it there straight, or when a rule of Forward
// lets the node pass it on.
func (v *View) EdgeSources(node api.Node, vip netip.AddrPort, protocol api.Protocol) (sources []netip.Prefix, all bool) {
	if v.policy == nil {
		return nil, true
	}
	to := plain(vip.Addr())
	ports := portsOf([]api.PortRange{{Protocol: string(protocol), First: vip.Port(), Last: vip.Port()}})
	var open space
	for _, r := range v.rules {
		if r.section == inEgress || r.section == inForward && !v.inZones(node, r.via) {
			continue
		}
		for _, t := range r.terms {
			if t.to.contains(to) && t.ports.covers(ports) {
				open = open.union(t.from.space)
			}
		}
	}
	for zone, list := range v.lists {
		if v.end(zone).contains(to) {
			open = open.intersect(list.space)
		}
	}
	family := everywhere()[:1]
	if to.Is6() {
		family = everywhere()[1:]
	}
	open = open.intersect(family)
	return open.prefixes(), len(family.subtract(open)) == 0
}

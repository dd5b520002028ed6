package zones

import (
	"net/netip"

	"github.com/weirproject/weir/api"
)

// Decide says what the policy means for a new flow between two addresses, and
// which rule allows it: the first of those that do, empty for a denied flow.
// Without a policy everything is allowed.
//
// A port range or a protocol without port is allowed when one rule allows all
// of it; "any" only by "any". Flows between two address families never match,
// nor do flows that only an implicit rule of the node lets pass, such as a
// reply. A flow between two addresses that are in no zone is denied unless a
// rule is from any to any; nodes enforce that on what is addressed to
// themselves and leave it alone where they merely pass it on.
func Decide(p *api.Policy, nodes []api.Node, from, to netip.Addr, port api.PortRange) (api.Verdict, string) {
	if p == nil {
		return api.Allow, ""
	}
	from, to = plain(from), plain(to)
	if from.Is4() != to.Is4() {
		return api.Deny, ""
	}
	for _, rule := range p.Rules {
		if anyContains(p, nodes, rule.From, from) && anyContains(p, nodes, rule.To, to) && covers(rule.Allow, port) {
			return api.Allow, rule.Name
		}
	}
	return api.Deny, ""
}

// anyContains tells whether one of the zones has the address.
func anyContains(p *api.Policy, nodes []api.Node, zones []string, a netip.Addr) bool {
	for _, name := range zones {
		if name == api.AnyZone || contains(p.Zones[name], nodes, a) {
			return true
		}
	}
	return false
}

// contains tells whether the zone has the address.
func contains(z api.Zone, nodes []api.Node, a netip.Addr) bool {
	for _, c := range z.CIDRs {
		if c.Contains(a) || c.Addr().Is4In6() && c.Contains(netip.AddrFrom16(a.As16())) {
			return true
		}
	}
	if z.Nodes == nil {
		return false
	}
	for _, n := range nodes {
		if !z.Nodes.Matches(n) {
			continue
		}
		for _, own := range n.Addresses {
			if plain(own) == a {
				return true
			}
		}
	}
	return false
}

// covers tells whether the allowed ports, taken together, hold all of those
// asked for.
func covers(allowed []api.PortRange, asked api.PortRange) bool {
	first, last := ports(asked)
	for next := first; ; {
		reached := false
		for _, a := range allowed {
			if a.Protocol == "any" {
				return true
			}
			if a.Protocol != asked.Protocol {
				continue
			}
			if lo, hi := ports(a); lo <= next && next <= hi {
				if hi >= last {
					return true
				}
				next, reached = hi+1, true
			}
		}
		if !reached {
			return false
		}
	}
}

// ports are the bounds of the range; no ports means every one, 0 included.
func ports(r api.PortRange) (first, last int) {
	if r.First == 0 && r.Last == 0 {
		return 0, 65535
	}
	return int(r.First), int(r.Last)
}

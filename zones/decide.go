package zones

import (
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
)

// Hook is where a node judges a flow.
type Hook string

// The hooks.
const (
	Input   Hook = "input"   // at the node that it is addressed to
	Forward Hook = "forward" // at a node that passes it on
	Output  Hook = "output"  // at the node that opens it
)

// Packet opens a flow.
type Packet struct {
	From, To netip.Addr
	// Port is what it is about. A range of ports, or a protocol as a whole, is
	// allowed when one rule allows all of it; "any" only by "any".
	Port api.PortRange
	// Hook that judges it; empty means Input.
	Hook Hook
	// Node that passes it on; for Forward.
	Node api.Node
}

// Decision is what a policy says of a packet.
type Decision struct {
	Verdict api.Verdict
	// Rule that decides: of the policy, or "weir" (Weir's own traffic between
	// nodes), "whitelist.<zone>", "unrouted.<zone>"; empty when none does.
	Rule string
	// Field is where the rule stands in the policy, such as "rules[3]".
	Field string
	// Unjudged is set when the hook leaves such flows alone.
	Unjudged bool
	Log      bool
	Rate     uint32 // new flows a second from one source; 0: no limit
}

// Decide says what the policy means for a packet, as if no limit of a rate had
// been reached, and which rule decides: the first of those that allow it.
// Packets between two address families are denied. It takes for granted that
// the source comes from where it may (see dataplane.Guard).
func (v *View) Decide(p Packet) Decision {
	if v.policy == nil {
		return Decision{Verdict: api.Allow, Unjudged: true}
	}
	p.From, p.To = plain(p.From), plain(p.To)
	if p.From.Is4() != p.To.Is4() {
		return Decision{Verdict: api.Deny}
	}
	if v.unjudged(p) {
		return Decision{Verdict: api.Allow, Unjudged: true}
	}
	ports := portsOf([]api.PortRange{p.Port})
	if p.Hook != Output {
		if v.nodes.contains(p.From) && v.nodes.contains(p.To) && portsOf(OwnPorts()).covers(ports) {
			return Decision{Verdict: api.Allow, Rule: ownRule}
		}
		if zone := v.notWhitelisted(p); zone != "" {
			return Decision{Verdict: api.Deny, Rule: whitelistPrefix + zone, Field: "zones." + zone + ".whitelist"}
		}
	} else if v.own(p, ports) {
		return Decision{Verdict: api.Allow, Rule: ownRule}
	}
	return v.byRules(p, ports)
}

// unjudged tells whether the hook leaves the packet alone.
func (v *View) unjudged(p Packet) bool {
	switch p.Hook {
	case Forward:
		return !v.zoned.contains(p.From) && !v.zoned.contains(p.To)
	case Output:
		return len(v.policy.Egress) == 0 || v.inside.contains(p.To) || p.To.IsMulticast() || p.To.IsLoopback() || p.To.IsLinkLocalUnicast()
	}
	return false
}

// notWhitelisted is the first zone that does not let the source in.
func (v *View) notWhitelisted(p Packet) string {
	for _, zone := range v.zones {
		if list, has := v.lists[zone]; has && v.end(zone).contains(p.To) && !list.contains(p.From) {
			return zone
		}
	}
	return ""
}

// own tells whether the packet goes to what the agent itself speaks to.
func (v *View) own(p Packet, ports portSpace) bool {
	return slices.ContainsFunc(v.state.Own, func(a netip.AddrPort) bool {
		n := a.Port()
		own := portsOf([]api.PortRange{{Protocol: "tcp", First: n, Last: n}, {Protocol: "udp", First: n, Last: n}})
		return plain(a.Addr()) == p.To && own.covers(ports)
	})
}

func (v *View) byRules(p Packet, ports portSpace) Decision {
	sections := []section{inRules, inForward}
	switch p.Hook {
	case Output:
		sections = []section{inRules, inEgress}
	case Forward:
		if d := v.bySection(p, ports, inForward); d.Verdict == api.Allow {
			return d
		}
		if zone := v.unrouted(p); zone != "" {
			return Decision{Verdict: api.Deny, Rule: unroutedPrefix + zone, Field: "zones." + zone + ".unrouted"}
		}
		sections = []section{inRules, inEgress}
	}
	return v.bySection(p, ports, sections...)
}

// bySection looks for a rule of the sections, in their order.
func (v *View) bySection(p Packet, ports portSpace, sections ...section) Decision {
	for _, s := range sections {
		for _, r := range v.rules {
			if r.section != s || p.Hook == Forward && s == inForward && !v.inZones(p.Node, r.via) || !r.allows(p.From, p.To, ports) {
				continue
			}
			return Decision{Verdict: api.Allow, Rule: r.Name, Field: r.field, Log: r.Log, Rate: r.Rate}
		}
	}
	return Decision{Verdict: api.Deny}
}

// allows tells whether the rule's terms, taken together, cover the ports.
func (r boundRule) allows(from, to netip.Addr, ports portSpace) bool {
	for _, t := range r.terms {
		if len(ports) > 0 && t.from.contains(from) && t.to.contains(to) {
			ports = ports.subtract(t.ports)
		}
	}
	return len(ports) == 0
}

// unrouted is the first zone that the packet may not be passed on into: not
// counted are the node's own apps, which no other hook judges.
func (v *View) unrouted(p Packet) string {
	if v.runsOn(p.Node, p.To) {
		return ""
	}
	for _, zone := range v.zones {
		if v.policy.Zones[zone].Unrouted && v.end(zone).contains(p.To) {
			return zone
		}
	}
	return ""
}

// runsOn tells whether an app on the node has the address.
func (v *View) runsOn(n api.Node, a netip.Addr) bool {
	for _, s := range v.state.Services {
		for _, b := range s.Backends {
			if b.Node == n.Name && n.Name != "" && plain(b.Address.Addr()) == a {
				return true
			}
		}
	}
	for _, app := range v.state.Apps {
		for _, i := range app.Instances {
			if i.Node == n.Name && n.Name != "" && plain(i.Address) == a {
				return true
			}
		}
	}
	return false
}

// inZones tells whether one of the node's addresses is in one of the zones.
func (v *View) inZones(n api.Node, zones []string) bool {
	if slices.Contains(zones, api.AnyZone) {
		return true
	}
	for _, a := range n.Addresses {
		for _, z := range zones {
			if v.end(z).contains(plain(a)) {
				return true
			}
		}
	}
	return false
}

// zonesOf lists the zones that have the address.
func (v *View) zonesOf(a netip.Addr) []string {
	var all []string
	for _, z := range v.zones {
		if v.end(z).contains(a) {
			all = append(all, z)
		}
	}
	return all
}

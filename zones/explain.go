package zones

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
)

// Explain says what the policy means for new flows from one end to another,
// each an address, the name of a zone ("any" included) or of a node. The
// verdict is allow only if every pair of their addresses is allowed. Nodes
// lists those that judge it: they have the address it goes to. The error says
// which end is unknown, has no address, or is an empty zone.
func Explain(p *api.Policy, nodes []api.Node, from, to string, port api.PortRange) (api.ZoneExplanation, error) {
	a := newAtlas(p, nodes)
	x := api.ZoneExplanation{From: from, To: to, Port: port}
	source, err := a.endpoint(from)
	if err != nil {
		return x, fmt.Errorf("explain flow from %s: %w", from, err)
	}
	target, err := a.endpoint(to)
	if err != nil {
		return x, fmt.Errorf("explain flow to %s: %w", to, err)
	}
	flows, err := a.flows(p, source, target, port)
	if err != nil {
		return x, fmt.Errorf("explain flow from %s to %s: %w", from, to, err)
	}
	x.FromZones, x.ToZones = source.zones, target.zones
	x.Nodes = a.owners(target)
	x.Verdict, x.Rule, x.Reason = verdict(p, flows, source, target)
	if p != nil && len(x.Nodes) == 0 {
		x.Reason += "; no node has " + to + ", so the nodes that pass it on judge it"
		if len(x.FromZones)+len(x.ToZones) == 0 {
			x.Reason += ", and they leave alone what neither comes from a zone nor goes to one"
		}
	}
	return x, nil
}

// verdict sums up the flows.
func verdict(p *api.Policy, flows []flow, from, to endpoint) (v api.Verdict, rule, reason string) {
	if p == nil {
		return api.Allow, "", "there is no policy: everything passes"
	}
	var rules []string
	var denied []flow
	for _, f := range flows {
		if f.verdict == api.Deny {
			denied = append(denied, f)
		} else if !slices.Contains(rules, f.rule) {
			rules = append(rules, f.rule)
		}
	}
	switch {
	case len(denied) == 0 && len(rules) == 1:
		return api.Allow, rules[0], fmt.Sprintf("rule %q allows it", rules[0])
	case len(denied) == 0:
		return api.Allow, rules[0], fmt.Sprintf("the rules %s allow it, depending on the addresses", strings.Join(rules, ", "))
	case len(rules) == 0:
		return api.Deny, "", fmt.Sprintf("no rule allows it from %s to %s, and what no rule allows is closed", where(from), where(to))
	default:
		return api.Deny, "", fmt.Sprintf("not all of it is allowed: %s → %s is closed, though the rules %s allow other addresses",
			denied[0].from, denied[0].to, strings.Join(rules, ", "))
	}
}

// where names the zones of an end.
func where(e endpoint) string {
	switch {
	case e.text == api.AnyZone:
		return "any"
	case len(e.zones) == 0:
		return "outside every zone"
	default:
		return strings.Join(e.zones, ", ")
	}
}

// owners are the nodes that have an address of the end, sorted by name.
func (a *atlas) owners(e endpoint) []string {
	var all []string
	for _, n := range a.nodes {
		for _, addr := range addresses(n) {
			inside := slices.Contains(e.addrs, addr)
			if e.named && !e.node {
				inside = e.text == api.AnyZone || slices.Contains(a.zonesOf(addr), e.text)
			}
			if inside {
				all = append(all, n.Name)
				break
			}
		}
	}
	slices.Sort(all)
	return all
}

package zones

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
)

// Explanation says what becomes of a flow, and why.
type Explanation struct {
	api.ZoneExplanation
	// Field is where the rule that decides stands in the policy, such as
	// "rules[3]"; empty when no rule does, or several do.
	Field string `json:"field,omitempty"`
	// Hook on Nodes that judges the flow.
	Hook Hook `json:"hook"`
	// File and Line of the field, when ExplainOptions.Place knows it.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// ExplainOptions tell more about the flow to explain.
type ExplainOptions struct {
	// Via is a node that passes the flow on, or a zone of such nodes: it is their
	// verdict that is asked for. Empty: the flow goes straight.
	Via string
	// Place gives the file and line of a field of the policy; may be nil.
	Place func(field string) (file string, line int)
}

// Explain says what the policy means for new flows from one end to another,
// each an address, a network, the name of a zone ("any" included), of a list,
// a service or a node. The verdict is allow only if every pair of their
// addresses is allowed. The error says which end is unknown or empty.
func (v *View) Explain(from, to string, port api.PortRange, o ExplainOptions) (Explanation, error) {
	x := Explanation{ZoneExplanation: api.ZoneExplanation{From: from, To: to, Port: port}}
	source, err := v.endpoint(from)
	if err != nil {
		return x, fmt.Errorf("explain flow from %s: %w", from, err)
	}
	target, err := v.endpoint(to)
	if err != nil {
		return x, fmt.Errorf("explain flow to %s: %w", to, err)
	}
	relays, err := v.relays(o.Via)
	if err != nil {
		return x, fmt.Errorf("explain flow from %s to %s: %w", from, to, err)
	}
	all, err := v.judge(source, target, port, relays)
	if err != nil {
		return x, fmt.Errorf("explain flow from %s to %s: %w", from, to, err)
	}
	x.FromZones, x.ToZones, x.Hook = source.zones, target.zones, all[0].hook
	v.sumUp(&x, all, source, target)
	switch x.Hook {
	case Input:
		x.Nodes = v.owners(target)
	case Output:
		x.Nodes = v.owners(source)
	case Forward:
		for _, n := range relays {
			x.Nodes = append(x.Nodes, n.Name)
		}
	}
	if v.policy != nil && x.Hook == Input && len(x.Nodes) == 0 {
		x.Reason += "; no node has " + to + ", so the nodes that pass it on judge it"
		if len(x.FromZones)+len(x.ToZones) == 0 {
			x.Reason += ", and they leave alone what neither comes from a zone nor goes to one"
		}
	}
	if o.Place != nil && x.Field != "" {
		x.File, x.Line = o.Place(x.Field)
	}
	return x, nil
}

// sumUp gives the verdict on all of the flows.
func (v *View) sumUp(x *Explanation, all []flow, from, to endpoint) {
	var rules []string
	var denied []flow
	for _, f := range all {
		if f.Verdict == api.Deny {
			denied = append(denied, f)
		} else if f.Rule != "" && !slices.Contains(rules, f.Rule) {
			rules = append(rules, f.Rule)
		}
	}
	x.Verdict = api.Allow
	switch {
	case v.policy == nil:
		x.Reason = "there is no policy: everything passes"
	case len(denied) == 0 && len(rules) == 0:
		x.Reason = unjudgedReason(x.Hook)
	case len(denied) == 0 && len(rules) == 1:
		i := slices.IndexFunc(all, func(f flow) bool { return f.Rule != "" })
		x.Rule, x.Field, x.Reason = rules[0], all[i].Field, fmt.Sprintf("rule %q allows it", rules[0])
		if rules[0] == ownRule {
			x.Reason = "it is Weir's own traffic between nodes"
		}
	case len(denied) == 0:
		x.Rule, x.Reason = rules[0], fmt.Sprintf("the rules %s allow it, depending on the addresses", strings.Join(rules, ", "))
	default:
		x.Verdict = api.Deny
		x.Rule, x.Field, x.Reason = denied[0].Rule, denied[0].Field, v.denial(denied, rules, from, to)
	}
}

func unjudgedReason(h Hook) string {
	if h == Output {
		return "it leaves the fleet, and nothing is said about what may; whoever passes it on may judge it"
	}
	return "nodes leave alone what neither comes from a zone nor goes to one"
}

func (v *View) denial(denied []flow, rules []string, from, to endpoint) string {
	d := denied[0]
	if len(rules) > 0 {
		return fmt.Sprintf("not all of it is allowed: %s → %s is closed, though the rules %s allow other addresses", d.from, d.to, strings.Join(rules, ", "))
	}
	if zone, is := strings.CutPrefix(d.Rule, whitelistPrefix); is {
		return fmt.Sprintf("the whitelist of the zone %s does not have %s", zone, d.from)
	}
	if zone, is := strings.CutPrefix(d.Rule, unroutedPrefix); is {
		return fmt.Sprintf("the zone %s is unrouted, and no forward rule lets the node pass it on", zone)
	}
	return fmt.Sprintf("no rule allows it from %s to %s, and what no rule allows is closed", where(from), where(to))
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
func (v *View) owners(e endpoint) []string {
	var all []string
	for _, n := range v.state.Nodes {
		if slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return e.space.contains(plain(a)) }) {
			all = append(all, n.Name)
		}
	}
	slices.Sort(all)
	return all
}

package zones

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
)

// endpoint is what people name as one end of a flow.
type endpoint struct {
	text   string
	isAddr bool // an address: it says all
	node   bool
	zones  []string // sorted
	space  space
	// addrs stand for all of its addresses: they are one of each class.
	addrs []netip.Addr
}

// endpoint reads an address or network, the name of a zone or list or "any",
// of a service (name.namespace), or of a node, in this order.
func (v *View) endpoint(text string) (endpoint, error) {
	e := endpoint{text: text}
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = plain(addr)
		e.isAddr, e.space, e.addrs, e.zones = true, spaceOf(prefixesOf(addr)), []netip.Addr{addr}, v.zonesOf(addr)
		return e, nil
	}
	policy := v.policy
	if policy == nil {
		policy = &api.Policy{}
	}
	if kind, network := wordOf(policy, text); kind != wordUnknown {
		if e.space = v.spaceOf(kind, text, network); len(e.space) == 0 {
			return e, v.emptiness(kind, text)
		}
		if kind == wordZone {
			e.zones = []string{text}
		}
	} else if err := v.nodeEndpoint(&e); err != nil {
		return e, err
	}
	for _, c := range v.classes().all {
		if part := c.spans.intersect(e.space); len(part) > 0 {
			e.addrs = append(e.addrs, part[0].lo)
		}
	}
	return e, nil
}

// spaceOf is what a word stands for. It leaves the view as it is.
func (v *View) spaceOf(kind word, text string, network netip.Prefix) space {
	if r, known := v.regions[text]; known {
		return r.space
	}
	switch kind {
	case wordAny:
		return everywhere()
	case wordList:
		return v.list(text)
	case wordNetwork:
		return spaceOf([]netip.Prefix{network})
	default:
		return v.services(v.byKey[text], true)
	}
}

// emptiness says why a word stands for nothing.
func (v *View) emptiness(kind word, text string) error {
	var z api.Zone
	if kind == wordZone {
		z = v.policy.Zones[text]
	}
	switch {
	case kind == wordService && len(v.byKey[text]) == 0:
		return fmt.Errorf("there is no service %q", text)
	case kind == wordService:
		return fmt.Errorf("the service %q has no address", text)
	case kind == wordZone && z.Nodes != nil && z.Apps == nil && len(z.Services) == 0:
		return fmt.Errorf("the zone %q is empty: no node matches it", text)
	case kind == wordZone:
		return fmt.Errorf("the zone %q is empty: nothing matches it", text)
	default:
		return fmt.Errorf("%q is empty", text)
	}
}

func (v *View) nodeEndpoint(e *endpoint) error {
	i := slices.IndexFunc(v.state.Nodes, func(n api.Node) bool { return n.Name == e.text })
	if i < 0 {
		return fmt.Errorf("%q is no address, zone, node or service; zones are %s", e.text, strings.Join(append(slices.Clone(v.zones), api.AnyZone), ", "))
	}
	e.node, e.space = true, spaceOf(nodePrefixes(v.state.Nodes[i:i+1]))
	for _, a := range v.state.Nodes[i].Addresses {
		e.zones = append(e.zones, v.zonesOf(plain(a))...)
	}
	slices.Sort(e.zones)
	e.zones = slices.Compact(e.zones)
	if len(e.space) == 0 {
		return fmt.Errorf("the node %q has no address", e.text)
	}
	return nil
}

// flow is one pair of addresses with the policy's decision.
type flow struct {
	from, to netip.Addr
	hook     Hook
	Decision
}

// hookOf is where a straight flow is judged.
func (v *View) hookOf(from, to netip.Addr) Hook {
	if v.policy != nil && v.inside.contains(from) && !v.inside.contains(to) {
		return Output
	}
	return Input
}

// judge judges every pair of the two ends' addresses that share a family: as
// straight flows, or as flows that each of the relays passes on, if there are
// any. A node is no relay for its own addresses and apps.
func (v *View) judge(from, to endpoint, port api.PortRange, relays []api.Node) ([]flow, error) {
	var all []flow
	related := false
	for _, a := range from.addrs {
		for _, b := range to.addrs {
			if a.Is4() != b.Is4() {
				continue
			}
			related = true
			p := Packet{From: a, To: b, Port: port, Hook: v.hookOf(a, b)}
			if relays == nil {
				all = append(all, flow{a, b, p.Hook, v.Decide(p)})
			}
			for _, p.Node = range relays {
				p.Hook = Forward
				if !hasAddress(p.Node, b) && !v.runsOn(p.Node, b) {
					all = append(all, flow{a, b, p.Hook, v.Decide(p)})
				}
			}
		}
	}
	if !related {
		return nil, fmt.Errorf("%s and %s have no address family in common", from.text, to.text)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("nobody passes on what goes to %s: its own nodes do not", to.text)
	}
	return all, nil
}

func hasAddress(n api.Node, a netip.Addr) bool {
	return slices.ContainsFunc(n.Addresses, func(own netip.Addr) bool { return plain(own) == a })
}

// relays finds the nodes that pass flows on: one by its name, or those of a
// zone; nil when the name is empty.
func (v *View) relays(name string) ([]api.Node, error) {
	if name == "" {
		return nil, nil
	}
	for i, n := range v.state.Nodes {
		if n.Name == name {
			return v.state.Nodes[i : i+1], nil
		}
	}
	if v.policy == nil {
		return nil, fmt.Errorf("via: %q is no node", name)
	}
	if _, isZone := v.policy.Zones[name]; !isZone {
		return nil, fmt.Errorf("via: %q is no node or zone", name)
	}
	var all []api.Node
	for _, n := range v.state.Nodes {
		if v.inZones(n, []string{name}) {
			all = append(all, n)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("via: no node is in the zone %q", name)
	}
	return all, nil
}

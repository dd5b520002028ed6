package zones

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
)

// atlas knows where the verdicts can change: it holds a policy's zones with
// their members merged, for one set of nodes.
type atlas struct {
	nodes []api.Node
	zones map[string][]netip.Prefix // merged members, by zone
	names []string                  // of the zones, sorted
	edges []netip.Addr              // sorted; membership is the same between two of them
}

func newAtlas(p *api.Policy, nodes []api.Node) *atlas {
	a := &atlas{nodes: nodes, zones: map[string][]netip.Prefix{}}
	if p == nil {
		return a
	}
	a.names = slices.Sorted(maps.Keys(p.Zones))
	for _, name := range a.names {
		a.zones[name] = merge(members(p.Zones[name], nodes))
		for _, m := range a.zones[name] {
			a.edges = append(a.edges, m.Addr())
			if next := last(m).Next(); next.IsValid() {
				a.edges = append(a.edges, next)
			}
		}
	}
	slices.SortFunc(a.edges, netip.Addr.Compare)
	a.edges = slices.Compact(a.edges)
	return a
}

// zonesOf lists the zones that have the address, sorted by name.
func (a *atlas) zonesOf(addr netip.Addr) []string {
	var all []string
	for _, name := range a.names {
		prefixes := a.zones[name]
		i, found := slices.BinarySearchFunc(prefixes, addr, func(p netip.Prefix, t netip.Addr) int { return p.Addr().Compare(t) })
		if found || i > 0 && prefixes[i-1].Contains(addr) {
			all = append(all, name)
		}
	}
	return all
}

// endpoint is what people name as one end of a flow.
type endpoint struct {
	text  string
	named bool     // a zone or node, not an address
	node  bool     // a node
	zones []string // sorted
	// addrs stand for all of its addresses: every membership in zones that one
	// of them has, one of these has too.
	addrs []netip.Addr
}

// endpoint reads an address, the name of a zone or "any", or the name of a
// node, in this order.
func (a *atlas) endpoint(text string) (endpoint, error) {
	e := endpoint{text: text, named: true}
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = plain(addr)
		return endpoint{text: text, zones: a.zonesOf(addr), addrs: []netip.Addr{addr}}, nil
	}
	if prefixes, isZone := a.zones[text]; isZone {
		if len(prefixes) == 0 {
			return e, fmt.Errorf("the zone %q is empty: no node matches it", text)
		}
		e.zones, e.addrs = []string{text}, a.represent(prefixes)
		return e, nil
	}
	if text == api.AnyZone {
		e.addrs = a.represent([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")})
		return e, nil
	}
	for _, n := range a.nodes {
		if n.Name != text {
			continue
		}
		e.node, e.addrs = true, addresses(n)
		for _, addr := range e.addrs {
			e.zones = append(e.zones, a.zonesOf(addr)...)
		}
		slices.Sort(e.zones)
		e.zones = slices.Compact(e.zones)
		if len(e.addrs) == 0 {
			return e, fmt.Errorf("the node %q has no address", text)
		}
		return e, nil
	}
	return e, fmt.Errorf("%q is no address, zone or node; zones are %s", text, strings.Join(append(slices.Clone(a.names), api.AnyZone), ", "))
}

// represent picks addresses of the merged prefixes: one for each combination
// of zones and address family that occurs in them. A large prefix is looked at
// wherever another zone begins or ends in it.
func (a *atlas) represent(prefixes []netip.Prefix) []netip.Addr {
	var addrs []netip.Addr
	seen := map[string]bool{}
	try := func(addr netip.Addr) {
		key := fmt.Sprint(addr.Is4(), a.zonesOf(addr))
		if !seen[key] {
			seen[key] = true
			addrs = append(addrs, addr)
		}
	}
	for _, p := range prefixes {
		try(p.Addr())
		i, _ := slices.BinarySearchFunc(a.edges, p.Addr(), netip.Addr.Compare)
		for ; i < len(a.edges) && p.Contains(a.edges[i]); i++ {
			try(a.edges[i])
		}
	}
	return addrs
}

// flow is one pair of addresses with the policy's verdict.
type flow struct {
	from, to netip.Addr
	verdict  api.Verdict
	rule     string
}

// flows judges every pair of the two ends' addresses that share a family.
func (a *atlas) flows(p *api.Policy, from, to endpoint, port api.PortRange) ([]flow, error) {
	var all []flow
	for _, f := range from.addrs {
		for _, t := range to.addrs {
			if f.Is4() == t.Is4() {
				v, rule := Decide(p, a.nodes, f, t, port)
				all = append(all, flow{f, t, v, rule})
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s and %s have no address family in common", from.text, to.text)
	}
	return all, nil
}

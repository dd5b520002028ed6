package zones

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
)

// Change is what one policy allows and another does not.
type Change struct {
	// Allowed are the flows that only the new one lets pass, Denied those that
	// only the old one does. No flow is in two of one list.
	Allowed []Flow `json:"allowed,omitempty"`
	Denied  []Flow `json:"denied,omitempty"`
}

// Empty tells whether the two mean the same.
func (c Change) Empty() bool { return len(c.Allowed)+len(c.Denied) == 0 }

// Flow is every flow from one set of addresses to another on some ports.
type Flow struct {
	From  Ends            `json:"from"`
	To    Ends            `json:"to"`
	Ports []api.PortRange `json:"ports"`
	// Family is ipv4 or ipv6 when only the addresses of that family are meant,
	// though both ends have others.
	Family string `json:"family,omitempty"`
	// Via is the zone whose nodes pass the flow on; empty: it goes straight.
	Via string `json:"via,omitempty"`
}

// Ends are a set of addresses, as people name them: what any of the zones and
// blocks has, as far as it is of the other end's family, without what But has.
type Ends struct {
	// Zones of the new policy (of the old one where there is no new one), "any",
	// or "outside" for what is in no zone of either.
	Zones  []string       `json:"zones,omitempty"`
	Blocks []netip.Prefix `json:"blocks,omitempty"`
	But    []netip.Prefix `json:"but,omitempty"`
}

// OutsideZones names, in Ends and Matrix, all addresses that are in no zone.
const OutsideZones = "outside"

func (e Ends) String() string {
	text := strings.Join(slices.Concat(e.Zones, blocks(e.Blocks)), ", ")
	if len(e.But) > 0 {
		text += " but " + strings.Join(blocks(e.But), ", ")
	}
	return text
}

// blocks writes the first of many networks.
func blocks(all []netip.Prefix) (texts []string) {
	for i, b := range all {
		if i == 3 && len(all) > 4 {
			return append(texts, fmt.Sprintf("%d more", len(all)-i))
		}
		texts = append(texts, api.Network{Prefix: b}.String())
	}
	return texts
}

func (f Flow) String() string {
	var ports []string
	for _, p := range f.Ports {
		ports = append(ports, p.String())
	}
	text := fmt.Sprintf("%s → %s: %s", f.From, f.To, strings.Join(ports, " "))
	if f.Family != "" {
		text += " (" + f.Family + ")"
	}
	if f.Via != "" {
		text += " (passed on by " + f.Via + ")"
	}
	return text
}

// String lists the flows, one a line: "+" for allowed, "-" for denied.
func (c Change) String() string {
	var b strings.Builder
	for _, f := range c.Allowed {
		fmt.Fprintf(&b, "+ %s\n", f)
	}
	for _, f := range c.Denied {
		fmt.Fprintf(&b, "- %s\n", f)
	}
	return b.String()
}

// Diff says which flows the new policy newly allows and newly denies. It
// compares what the two mean, not their texts, and is exact for addresses and
// ports; limits of rates and logs are no part of it. Straight flows are listed,
// and what nodes pass on by forward rules of either policy.
func Diff(old, now *View) Change {
	regions := map[string]space{}
	old.regionsOf("-", regions)
	now.regionsOf("+", regions)
	c := classify(regions)
	names := namer{classes: c, view: now, prefix: "+"}
	if now.policy == nil {
		names.view, names.prefix = old, "-"
	}
	for i, x := range c.all {
		if !x.in("+/zoned") && !x.in("-/zoned") {
			names.outside = append(names.outside, i)
		}
	}
	var change Change
	vias := slices.Compact(slices.Sorted(slices.Values(append(old.vias(), now.vias()...))))
	for _, via := range append([]string{""}, vias...) {
		p := path{via}
		before, after := old.flows(c, "-", p), now.flows(c, "+", p)
		change.Allowed = append(change.Allowed, names.collect(after, before, via)...)
		change.Denied = append(change.Denied, names.collect(before, after, via)...)
	}
	return change
}

// collect lists what is open in one and not in the other: joined into as few
// flows as are found by taking together sources first, then destinations.
func (n namer) collect(in, out flows, via string) []Flow {
	ports := map[string]portSpace{}
	sources := map[string]map[int][]int{} // by ports and destination
	for x, open := range in.open {
		rest := open.subtract(out.open[x])
		if len(rest) == 0 || len(rest.ranges()) == 0 {
			continue
		}
		key := fmt.Sprint(rest)
		ports[key] = rest
		if sources[key] == nil {
			sources[key] = map[int][]int{}
		}
		sources[key][x.to] = append(sources[key][x.to], x.from)
	}
	var all []Flow
	for key, byTarget := range sources {
		targets := map[string][]int{} // by sources
		for _, to := range slices.Sorted(maps.Keys(byTarget)) {
			slices.Sort(byTarget[to])
			from := fmt.Sprint(byTarget[to])
			targets[from] = append(targets[from], to)
		}
		for _, to := range targets {
			f := Flow{From: n.ends(byTarget[to[0]]), To: n.ends(to), Ports: ports[key].ranges(), Via: via, Family: "ipv6"}
			if n.all[to[0]].v4() {
				f.Family = "ipv4"
			}
			all = append(all, f)
		}
	}
	return n.joinFamilies(all)
}

// joinFamilies makes one of two flows that differ in their family alone, and
// sorts them.
func (n namer) joinFamilies(all []Flow) []Flow {
	slices.SortFunc(all, func(a, b Flow) int {
		return cmp.Or(strings.Compare(a.full(), b.full()), strings.Compare(a.Family, b.Family))
	})
	var out []Flow
	for _, f := range all {
		if last := len(out) - 1; last >= 0 && f.full() == out[last].full() {
			out[last].Family = "" // both of them
			continue
		}
		out = append(out, f)
	}
	for i, f := range out {
		if len(f.From.Zones) == 0 || len(f.To.Zones) == 0 || n.oneFamily(f.From) || n.oneFamily(f.To) {
			out[i].Family = "" // it is seen
		}
	}
	return out
}

// full is the whole text of it.
func (f Flow) full() string {
	return fmt.Sprint(f.From.Zones, f.From.Blocks, f.From.But, f.To.Zones, f.To.Blocks, f.To.But, f.Ports)
}

package zones

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/dataplane"
)

// Link is a network interface of a node.
type Link struct {
	Name string
	// Prefixes are its addresses with the length of their networks.
	Prefixes []netip.Prefix
}

// guard is a dataplane.Guard with its set.
type guard struct {
	dataplane.Guard
	sources *group
}

// guard says where addresses may come in on a node with these links: those of
// a zone with interfaces on these, if the node has one of them, and those of a
// network that the node is on from there. Where one network lies in another,
// the narrower one counts.
func (b *plan) guard(links []Link) []guard {
	var all []guard
	for _, zone := range slices.Sorted(maps.Keys(b.policy.Zones)) {
		patterns := slices.Compact(slices.Sorted(slices.Values(b.policy.Zones[zone].Interfaces)))
		if slices.ContainsFunc(links, func(l Link) bool { return matchesInterface(patterns, l.Name) }) {
			g := b.group(zone)
			all = append(all, guard{dataplane.Guard{Name: zone, Sources: g.set.Name, Interfaces: patterns}, g})
		}
	}
	names := map[netip.Prefix][]string{}
	for _, l := range links {
		for _, p := range l.Prefixes {
			p = plainPrefix(p)
			if p.Bits() > 0 && !p.IsSingleIP() && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsLoopback() && !slices.Contains(names[p], l.Name) {
				names[p] = append(names[p], l.Name)
			}
		}
	}
	networks := slices.SortedFunc(maps.Keys(names), func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	for _, p := range networks {
		var narrower []netip.Prefix
		for _, q := range networks {
			if q.Bits() > p.Bits() && p.Overlaps(q) {
				narrower = append(narrower, q)
			}
		}
		sources := spaceOf([]netip.Prefix{p}).subtract(spaceOf(narrower)).prefixes()
		if len(sources) == 0 {
			continue
		}
		g := newGroup(hashedSet("link", p.String()), sources)
		slices.Sort(names[p])
		all = append(all, guard{dataplane.Guard{Name: p.String(), Sources: g.set.Name, Interfaces: names[p]}, g})
	}
	return all
}

// matchesInterface tells whether one of the patterns stands for the name.
func matchesInterface(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		head, open := strings.CutSuffix(p, "*")
		return p == name || open && strings.HasPrefix(name, head)
	})
}

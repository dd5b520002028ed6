package zones

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// plan is what a Compiler knows of one policy on one node: the groups that its
// words stand for, with their present members.
type plan struct {
	policy *api.Policy
	self   []netip.Addr
	name   string // of this node

	words    map[string]*group // zones, services, lists and joined networks
	order    []*group          // of words, always the same
	moving   map[*group]bool   // groups whose members move between nodes
	zoned    *group
	inside   *group
	nodes    *group
	local    *group
	own      dataplane.EndpointSet
	services map[string]*endpoints // those that rules allow, by key
	guards   []guard

	index        selectors
	nodeMembers  []*member
	serviceParts []serviceMember
	appParts     [][2]*member
}

// endpoints of one service that rules allow.
type endpoints struct {
	set   dataplane.EndpointSet
	stale bool
}

func newPlan(p *api.Policy, o Options) (*plan, error) {
	if err := checkNames(p); err != nil {
		return nil, err
	}
	b := &plan{policy: p, name: o.Self.Name, words: map[string]*group{}, moving: map[*group]bool{}, services: map[string]*endpoints{}}
	for _, a := range o.Self.Addresses {
		if a.IsValid() {
			b.self = append(b.self, plain(a))
		}
	}
	var nets []netip.Prefix
	for _, name := range slices.Sorted(maps.Keys(p.Zones)) {
		g := b.group(name)
		nets = append(nets, g.nets...)
	}
	b.zoned, b.inside = newGroup(zonedSet, nets), newGroup(insideSet, nil)
	b.nodes, b.local = newGroup(nodesSet, nil), newGroup(localSet, nil)
	b.eachRule(func(r api.Rule) {
		for _, words := range [][]string{r.From, r.To, r.Except.From, r.Except.To} {
			for _, w := range b.ends(words) {
				b.group(w)
			}
		}
		for _, t := range r.Allow {
			if t.Service != "" {
				b.group(t.Service)
				b.services[t.Service] = &endpoints{set: dataplane.EndpointSet{Name: namedSet("ep", t.Service)}, stale: true}
			}
		}
	})
	for _, z := range p.Zones {
		for _, w := range b.ends(z.Whitelist) {
			b.group(w)
		}
	}
	b.guards = b.guard(o.Links)
	b.order = slices.SortedFunc(maps.Values(b.words), func(x, y *group) int { return strings.Compare(x.set.Name, y.set.Name) })
	b.index = newSelectors(p)
	return b, nil
}

func (b *plan) eachRule(do func(api.Rule)) {
	for _, r := range b.policy.Rules {
		do(r)
	}
	for _, r := range b.policy.Forward {
		do(r.Rule)
	}
	for _, r := range b.policy.Egress {
		do(r.Rule)
	}
}

// joined begins the word that stands for several networks.
const joined = "networks "

// ends are the words that need a group each: any alone where it is among them,
// and all networks as one.
func (b *plan) ends(words []string) []string {
	if slices.Contains(words, api.AnyZone) {
		return []string{api.AnyZone}
	}
	var all, networks []string
	for _, w := range words {
		if kind, _ := wordOf(b.policy, w); kind == wordNetwork {
			networks = append(networks, w)
		} else if !slices.Contains(all, w) {
			all = append(all, w)
		}
	}
	if len(networks) > 0 {
		slices.Sort(networks)
		all = append(all, joined+strings.Join(slices.Compact(networks), " "))
	}
	return all
}

// group makes the group of a word, or gives the one that is there; nil for any.
func (b *plan) group(w string) *group {
	if g := b.words[w]; g != nil || w == api.AnyZone {
		return g
	}
	var g *group
	if text, ok := strings.CutPrefix(w, joined); ok {
		var nets []netip.Prefix
		for _, n := range strings.Fields(text) {
			_, p := wordOf(b.policy, n)
			nets = append(nets, p)
		}
		g = newGroup(hashedSet("net", text), nets)
	} else {
		switch kind, _ := wordOf(b.policy, w); kind {
		case wordZone:
			z := b.policy.Zones[w]
			g = newGroup(setName(w), b.networks(z.CIDRs, z.Lists))
			b.moving[g] = z.Apps != nil || len(z.Services) > 0
		case wordList:
			g = newGroup(namedSet("list", w), b.networks(nil, []string{w}))
		default:
			g = newGroup(namedSet("svc", w), nil)
			b.moving[g] = true
		}
	}
	b.words[w] = g
	return g
}

func (b *plan) networks(cidrs []netip.Prefix, lists []string) []netip.Prefix {
	all := slices.Clone(cidrs)
	for _, l := range lists {
		for _, n := range b.policy.Lists[l] {
			all = append(all, n.Prefix)
		}
	}
	return all
}

// reach says what a group means on this node.
type reach struct{ here, elsewhere, empty bool }

func (b *plan) reach(g *group) reach {
	if g == nil {
		return reach{here: true, elsewhere: true}
	}
	own, whole := 0, 0
	for _, a := range b.self {
		if g.contains(a) {
			own++
		}
		if g.hosts[a] > 0 {
			whole++
		}
	}
	return reach{
		here:      own > 0,
		elsewhere: b.moving[g] || len(g.nets) > 0 || len(g.hosts) > whole,
		empty:     !b.moving[g] && g.size() == 0,
	}
}

// reaches are those of all groups, in their order.
func (b *plan) reaches() []reach {
	all := make([]reach, 0, len(b.order))
	for _, g := range b.order {
		all = append(all, b.reach(g))
	}
	return all
}

// uses are the sets that rules need, by name, in the order of names.
type uses struct {
	groups   []*group
	services []*endpoints
	own      bool // the endpoints of this node's own daemons
}

func (b *plan) usesOf(r *dataplane.Ruleset) uses {
	needed := map[string]bool{r.Zoned: true, r.Inside: true}
	for _, rules := range [][]dataplane.FilterRule{r.Input, r.Forward, r.Output} {
		for _, f := range rules {
			needed[f.From], needed[f.To], needed[f.Endpoints] = true, true, true
			for _, n := range slices.Concat(f.NotFrom, f.NotTo) {
				needed[n] = true
			}
		}
	}
	for _, g := range r.Guards {
		needed[g.Sources] = true
	}
	u := uses{own: needed[ownSet]}
	for _, g := range b.groups() {
		if needed[g.set.Name] {
			u.groups = append(u.groups, g)
			needed[g.set.Name] = false
		}
	}
	slices.SortFunc(u.groups, func(a, b *group) int { return strings.Compare(a.set.Name, b.set.Name) })
	for _, e := range b.services {
		if needed[e.set.Name] {
			u.services = append(u.services, e)
		}
	}
	slices.SortFunc(u.services, func(a, b *endpoints) int { return strings.Compare(a.set.Name, b.set.Name) })
	return u
}

// groups are all that there are.
func (b *plan) groups() []*group {
	all := slices.Concat(b.order, []*group{b.zoned, b.inside, b.nodes, b.local})
	for _, g := range b.guards {
		all = append(all, g.sources)
	}
	return all
}

// fill puts the sets that the rules need into the ruleset, as they are now.
func (b *plan) fill(r *dataplane.Ruleset, u uses) {
	for _, g := range b.groups() {
		g.settle()
	}
	r.Sets = make([]dataplane.AddressSet, len(u.groups))
	for i, g := range u.groups {
		r.Sets[i] = g.set
	}
	for _, e := range u.services {
		r.Endpoints = append(r.Endpoints, e.set)
	}
	if u.own {
		r.Endpoints = append(r.Endpoints, b.own)
	}
	slices.SortFunc(r.Endpoints, func(a, b dataplane.EndpointSet) int { return strings.Compare(a.Name, b.Name) })
}

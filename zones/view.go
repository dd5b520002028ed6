package zones

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
)

// View is a policy bound to a state at one moment: it says what the policy
// means then. It never changes and is for any number of goroutines.
type View struct {
	policy *api.Policy
	state  State
	now    time.Time

	regions map[string]region // by key
	zones   []string          // sorted
	zoned   region            // every address of any zone
	nodes   region            // the nodes' addresses
	inside  region            // the fleet's addresses: nodes, apps, services
	rules   []boundRule       // of Rules, Forward and Egress, in this order
	lists   map[string]region // whitelists by zone, the zone itself included
	byKey   map[string][]api.Service
	classes func() *classes // by which it judges, made when they are needed
	bound   bool            // regions and all the rest stay as they are
}

// region is a named set of addresses; equal keys are equal sets.
type region struct {
	key string
	space
}

// section is the part of a policy that a rule is in.
type section int

const (
	inRules section = iota
	inForward
	inEgress
)

// boundRule is a rule with what it stands for.
type boundRule struct {
	api.Rule
	section section
	via     []string
	field   string // in the policy, such as rules[3]
	terms   []term
}

// term is a part of a rule: all flows between two sets of addresses to a set
// of ports.
type term struct {
	from, to region
	ports    portSpace
}

// Bind says what the policy means for the state at the time. A nil policy
// allows everything. Rules that have expired are left out; names that stand
// for nothing are empty.
func Bind(p *api.Policy, s State, now time.Time) *View {
	v := &View{policy: p, state: s, now: now, regions: map[string]region{}, lists: map[string]region{}}
	v.classes = sync.OnceValue(func() *classes {
		regions := map[string]space{}
		v.regionsOf("", regions)
		return classify(regions)
	})
	v.byKey = map[string][]api.Service{}
	for _, service := range s.Services {
		v.byKey[service.Key()] = append(v.byKey[service.Key()], service)
	}
	if p == nil {
		return v
	}
	v.zones = slices.Sorted(maps.Keys(p.Zones))
	v.nodes = region{"/nodes", spaceOf(nodePrefixes(s.Nodes))}
	v.inside = region{"/inside", v.nodes.union(v.services(s.Services, true), v.apps(func(App) bool { return true }))}
	v.regions["/outside"] = region{"/outside", everywhere().subtract(v.inside.space)}
	var all space
	for _, z := range v.zones {
		all = append(all, v.end(z).space...)
	}
	v.zoned = region{"/zoned", all.normalize()}
	for _, z := range v.zones {
		if w := p.Zones[z].Whitelist; len(w) > 0 {
			v.lists[z] = v.region(append([]string{z}, w...), nil)
		}
	}
	for i, r := range p.Rules {
		v.bind(boundRule{Rule: r, section: inRules, field: fmt.Sprintf("rules[%d]", i)}, nil)
	}
	for i, r := range p.Forward {
		v.bind(boundRule{Rule: r.Rule, section: inForward, via: r.Via, field: fmt.Sprintf("forward[%d]", i)}, nil)
	}
	for i, r := range p.Egress {
		v.bind(boundRule{Rule: r.Rule, section: inEgress, field: fmt.Sprintf("egress[%d]", i)}, r.Names)
	}
	v.bound = true
	return v
}

func nodePrefixes(nodes []api.Node) []netip.Prefix {
	var all []netip.Prefix
	for _, n := range nodes {
		for _, a := range n.Addresses {
			if a.IsValid() {
				all = append(all, host(plain(a)))
			}
		}
	}
	return all
}

// services has the backends of the services, and their virtual addresses too
// if asked for.
func (v *View) services(services []api.Service, vips bool) space {
	var all []netip.Prefix
	for _, s := range services {
		for _, e := range v.endpoints(s, vips) {
			all = append(all, host(e.Addr()))
		}
	}
	return spaceOf(all)
}

// endpoints of one service.
func (v *View) endpoints(s api.Service, vips bool) []netip.AddrPort {
	var all []netip.AddrPort
	for _, b := range s.Backends {
		if b.Address.IsValid() {
			all = append(all, netip.AddrPortFrom(plain(b.Address.Addr()), b.Address.Port()))
		}
	}
	for _, vip := range s.VIPs {
		for _, a := range v.state.addressesOf(s, vip) {
			if vips && a.IsValid() {
				all = append(all, netip.AddrPortFrom(plain(a), vip.Port))
			}
		}
	}
	return all
}

func (v *View) apps(which func(App) bool) space {
	var all []netip.Prefix
	for _, a := range v.state.Apps {
		if !which(a) {
			continue
		}
		for _, i := range a.Instances {
			if i.Address.IsValid() {
				all = append(all, host(plain(i.Address)))
			}
		}
	}
	return spaceOf(all)
}

// end is what one word of a rule stands for.
func (v *View) end(name string) region {
	if r, known := v.regions[name]; known {
		return r
	}
	r := region{key: name}
	kind, network := wordOf(v.policy, name)
	switch kind {
	case wordAny:
		r.space = everywhere()
	case wordZone:
		r.space = v.zone(v.policy.Zones[name])
	case wordList:
		r.space = v.list(name)
	case wordNetwork:
		r.space = spaceOf([]netip.Prefix{network})
	case wordService:
		r.space = v.services(v.byKey[name], true)
	}
	if !v.bound {
		v.regions[name] = r
	}
	return r
}

func (v *View) list(name string) space {
	var all []netip.Prefix
	for _, n := range v.policy.Lists[name] {
		all = append(all, n.Prefix)
	}
	return spaceOf(all)
}

func (v *View) zone(z api.Zone) space {
	members := slices.Clone(z.CIDRs)
	if z.Nodes != nil {
		for i := range v.state.Nodes {
			if z.Nodes.Matches(v.state.Nodes[i]) {
				members = append(members, nodePrefixes(v.state.Nodes[i:i+1])...)
			}
		}
	}
	all := spaceOf(members)
	for _, l := range z.Lists {
		all = all.union(v.list(l))
	}
	if z.Apps != nil {
		all = all.union(v.apps(func(a App) bool { return z.Apps.Matches(a.ID, a.Labels) }))
	}
	if z.Apps != nil || len(z.Services) > 0 {
		chosen := slices.DeleteFunc(slices.Clone(v.state.Services), func(s api.Service) bool { return !selectsService(z, s) })
		all = all.union(v.services(chosen, false))
	}
	return all
}

// region joins words, without those excepted.
func (v *View) region(words, except []string) region {
	if len(words) == 1 && len(except) == 0 {
		return v.end(words[0])
	}
	words = slices.Compact(slices.Sorted(slices.Values(words)))
	key := strings.Join(words, ",")
	if len(except) > 0 {
		key += " but " + strings.Join(except, ",")
	}
	if r, known := v.regions[key]; known {
		return r
	}
	var all, without space
	for _, w := range words {
		all = append(all, v.end(w).space...)
	}
	for _, w := range except {
		without = append(without, v.end(w).space...)
	}
	r := region{key, all.normalize().subtract(without.normalize())}
	v.regions[key] = r
	return r
}

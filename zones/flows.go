package zones

import (
	"maps"
	"slices"
	"strconv"

	"github.com/weirproject/weir/api"
)

// path is how flows go: straight to where they are addressed to, when via is
// empty, or through the nodes of a zone.
type path struct{ via string }

// pair is two classes of addresses: flows from one to the other are all judged
// alike.
type pair struct{ from, to int }

// flows say which ports are open between classes.
type flows struct {
	*classes
	open map[pair]portSpace
}

// regionsOf collects the regions by which a view judges, under keys that start
// with a prefix.
func (v *View) regionsOf(prefix string, into map[string]space) {
	add := func(key string, s space) { into[prefix+key] = s }
	for _, z := range v.zones {
		add(z, v.end(z).space)
		if list, has := v.lists[z]; has {
			add("/whitelist "+z, list.space)
		}
	}
	add("/nodes", v.nodes.space)
	add("/inside", v.inside.space)
	add("/zoned", v.zoned.space)
	for _, r := range v.rules {
		for _, t := range r.terms {
			add(t.from.key, t.from.space)
			add(t.to.key, t.to.space)
		}
	}
	add("/special", spaceOf(specials()))
	for i, a := range v.state.Own {
		add(ownKey(i), spaceOf(prefixesOf(plain(a.Addr()))))
	}
}

// flows works out what is open on the path. The classes must know the view's
// regions under the prefix.
//
// A straight flow from the fleet to the outside world is judged where it is
// opened, every other one where it arrives. Of what a zone's nodes pass on this
// is what they let through; where it arrives it is judged as a straight flow.
func (v *View) flows(c *classes, prefix string, p path) flows {
	f := flows{c, map[pair]portSpace{}}
	if v.policy == nil {
		f.eachPair(func(x pair) { f.open[x] = everyPort() })
		return f
	}
	for _, r := range v.rules {
		for _, t := range r.terms {
			f.each(c.of[prefix+t.from.key], c.of[prefix+t.to.key], func(x pair) {
				if v.applies(r, f, prefix, x, p) {
					f.open[x] = f.open[x].union(t.ports)
				}
			})
		}
	}
	v.restrict(f, prefix, p)
	return f
}

// eachPair goes through all pairs of one family.
func (f flows) eachPair(do func(pair)) {
	all := make([]int, len(f.all))
	for i := range all {
		all[i] = i
	}
	f.each(all, all, do)
}

// each goes through the pairs of one family between two lists of classes.
func (f flows) each(from, to []int, do func(pair)) {
	for _, a := range from {
		for _, b := range to {
			if f.all[a].v4() == f.all[b].v4() {
				do(pair{a, b})
			}
		}
	}
}

// leaves tells whether the flow goes from the fleet to the outside world.
func (f flows) leaves(prefix string, x pair) bool {
	return f.all[x.from].in(prefix+"/inside") && !f.all[x.to].in(prefix+"/inside")
}

func (v *View) applies(r boundRule, f flows, prefix string, x pair, p path) bool {
	if p.via != "" {
		if r.section == inForward {
			return slices.Contains(r.via, p.via) || slices.Contains(r.via, api.AnyZone)
		}
		return !v.closedToRelays(f, prefix, x)
	}
	leaves := f.leaves(prefix, x)
	return r.section == inRules || r.section == inEgress && leaves || r.section == inForward && !leaves
}

// closedToRelays tells whether the destination is in an unrouted zone.
func (v *View) closedToRelays(f flows, prefix string, x pair) bool {
	return slices.ContainsFunc(v.zones, func(z string) bool { return v.policy.Zones[z].Unrouted && f.all[x.to].in(prefix+z) })
}

// restrict closes what whitelists close, and opens what no rule decides.
func (v *View) restrict(f flows, prefix string, p path) {
	own := portsOf(OwnPorts())
	f.eachPair(func(x pair) {
		from, to := f.all[x.from], f.all[x.to]
		if p.via == "" && f.leaves(prefix, x) {
			if len(v.policy.Egress) == 0 || to.in(prefix+"/special") {
				f.open[x] = everyPort()
			} else {
				for i, o := range v.state.Own {
					if to.in(prefix + ownKey(i)) {
						n := o.Port()
						f.open[x] = f.open[x].union(portsOf([]api.PortRange{{Protocol: "tcp", First: n, Last: n}, {Protocol: "udp", First: n, Last: n}}))
					}
				}
			}
			return
		}
		if p.via != "" && !from.in(prefix+"/zoned") && !to.in(prefix+"/zoned") {
			f.open[x] = everyPort()
			return
		}
		for z := range v.lists {
			if to.in(prefix+z) && !from.in(prefix+"/whitelist "+z) {
				delete(f.open, x)
			}
		}
		if from.in(prefix+"/nodes") && to.in(prefix+"/nodes") {
			f.open[x] = f.open[x].union(own)
		}
	})
}

func ownKey(i int) string { return "/own " + strconv.Itoa(i) }

// vias are the zones whose nodes may pass flows on by a rule of their own.
func (v *View) vias() []string {
	all := map[string]bool{}
	for _, r := range v.rules {
		for _, z := range r.via {
			if z == api.AnyZone {
				for _, zone := range v.zones {
					all[zone] = true
				}
				continue
			}
			all[z] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

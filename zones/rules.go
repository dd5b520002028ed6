package zones

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// rules makes the ruleset without its sets, and tells when a rule expires next.
func (b *plan) rules(now time.Time) (*dataplane.Ruleset, time.Time) {
	d := draft{plan: b, now: now, Ruleset: &dataplane.Ruleset{Zoned: b.zoned.set.Name}}
	if len(b.policy.Egress) > 0 {
		d.Inside = b.inside.set.Name
		d.Output = append(d.Output, dataplane.FilterRule{Name: ownRule, Endpoints: ownSet})
	}
	for _, g := range b.guards {
		d.Guards = append(d.Guards, g.Guard)
	}
	own := dataplane.FilterRule{Name: ownRule, From: nodesSet, To: nodesSet, Ports: OwnPorts()}
	d.Input, d.Ruleset.Forward = append(d.Input, own), append(d.Ruleset.Forward, own)
	b.addWhitelists(d.Ruleset)
	d.addRules()
	d.addForward()
	b.addUnrouted(d.Ruleset)
	d.addEgress()
	d.Input, d.Ruleset.Forward = append(d.Input, d.input...), append(d.Ruleset.Forward, d.forward...)
	if d.Inside != "" {
		d.Output = append(d.Output, d.output...)
	}
	slices.SortFunc(d.Dynamic, func(a, b dataplane.DynamicSet) int { return strings.Compare(a.Name, b.Name) })
	return d.Ruleset, d.next
}

// draft is a ruleset in the making.
type draft struct {
	*plan
	*dataplane.Ruleset
	now, next time.Time
	// What comes after all that is in the ruleset so far.
	input, forward, output []dataplane.FilterRule
}

// live tells whether the rule has not expired, and notes when it will.
func (d *draft) live(rule api.Rule) bool {
	if rule.Expires.IsZero() {
		return true
	}
	if !d.now.Before(rule.Expires.Time) {
		return false
	}
	if d.next.IsZero() || rule.Expires.Before(d.next) {
		d.next = rule.Expires.Time
	}
	return true
}

func (d *draft) addRules() {
	for _, rule := range d.policy.Rules {
		if !d.live(rule) {
			continue
		}
		d.each(rule, func(f dataplane.FilterRule, to reach, out way) {
			d.input = appendIf(to.here, d.input, f)
			d.forward = appendIf(to.elsewhere, d.forward, f)
			d.output = appendIf(out.own && out.outside, d.output, f)
		})
	}
}

// addForward lets this node pass on what it may, and take what others may pass
// on to it.
func (d *draft) addForward() {
	for _, rule := range d.policy.Forward {
		if !d.live(rule.Rule) {
			continue
		}
		via := d.isIn(rule.Via)
		d.each(rule.Rule, func(f dataplane.FilterRule, to reach, _ way) {
			d.input = appendIf(to.here, d.input, f)
			d.Ruleset.Forward = appendIf(to.elsewhere && via, d.Ruleset.Forward, f)
		})
	}
}

func (d *draft) addEgress() {
	for _, rule := range d.policy.Egress {
		if !d.live(rule.Rule) {
			continue
		}
		d.egress(rule, d.Ruleset, func(f dataplane.FilterRule, out way) {
			d.output, d.forward = appendIf(out.own, d.output, f), append(d.forward, f)
		})
	}
}

func appendIf(is bool, all []dataplane.FilterRule, f dataplane.FilterRule) []dataplane.FilterRule {
	if is {
		return append(all, f)
	}
	return all
}

// isIn tells whether this node is in one of the zones.
func (b *plan) isIn(zones []string) bool {
	return slices.ContainsFunc(b.ends(zones), func(z string) bool { return b.reach(b.words[z]).here })
}

// setOf is the set's name for a word, empty for any.
func (b *plan) setOf(w string) string {
	if g := b.words[w]; g != nil {
		return g.set.Name
	}
	return ""
}

// setsOf are the sets of several words; all tells that any is among them.
func (b *plan) setsOf(words []string) (sets []string, all bool) {
	for _, w := range b.ends(words) {
		if w == api.AnyZone {
			return nil, true
		}
		sets = append(sets, b.setOf(w))
	}
	return sets, false
}

// way says what a rule means for flows that this node opens to the outside.
type way struct {
	own     bool // they may come from this node
	outside bool // they may go outside
}

// each gives the filter rules of a rule, and what they mean on this node.
func (b *plan) each(rule api.Rule, do func(f dataplane.FilterRule, to reach, out way)) {
	f := dataplane.FilterRule{Name: rule.Name, Log: rule.Log, Rate: rule.Rate, Expires: rule.Expires.Time}
	var all bool
	if f.NotFrom, all = b.setsOf(rule.Except.From); all {
		return
	}
	if f.NotTo, all = b.setsOf(rule.Except.To); all {
		return
	}
	targets := b.ends(rule.To)
	if len(targets) == 0 {
		targets = []string{api.AnyZone}
	}
	for _, from := range b.ends(rule.From) {
		source := b.reach(b.words[from])
		if source.empty {
			continue // nobody is there to send
		}
		for _, to := range targets {
			g := b.words[to]
			f.From, f.To = b.setOf(from), b.setOf(to)
			b.eachTraffic(rule, f, func(f dataplane.FilterRule, service *group) {
				reached := b.reach(g)
				if service != nil {
					reached.here = reached.here && b.reach(service).here
				}
				do(f, reached, way{source.here, service == nil && (g == nil || len(g.nets) > 0)})
			})
		}
	}
}

// eachTraffic gives one filter rule for the ports and one for each service.
func (b *plan) eachTraffic(rule api.Rule, f dataplane.FilterRule, do func(dataplane.FilterRule, *group)) {
	var ports []api.PortRange
	services := map[string]bool{}
	for _, t := range rule.Allow {
		if t.Service == "" {
			ports = append(ports, t.PortRange)
		} else {
			services[t.Service] = true
		}
	}
	except := portsOf(rule.Except.Ports)
	if len(portsOf(ports).subtract(except)) > 0 {
		f.Ports, f.NotPorts = ports, rule.Except.Ports
		do(f, nil)
	}
	f.Ports, f.NotPorts = nil, rule.Except.Ports
	for _, key := range slices.Sorted(maps.Keys(services)) {
		f.Endpoints = b.services[key].set.Name
		do(f, b.words[key])
	}
}

// addWhitelists denies what comes from elsewhere than the zones allow.
func (b *plan) addWhitelists(r *dataplane.Ruleset) {
	for _, zone := range slices.Sorted(maps.Keys(b.policy.Zones)) {
		allowed, all := b.setsOf(b.policy.Zones[zone].Whitelist)
		if all || len(allowed) == 0 {
			continue
		}
		g := b.words[zone]
		if !slices.Contains(allowed, g.set.Name) {
			allowed = append(allowed, g.set.Name)
		}
		f := dataplane.FilterRule{Name: whitelistPrefix + zone, To: g.set.Name, NotFrom: allowed, Ports: []api.PortRange{{Protocol: "any"}}, Deny: true}
		to := b.reach(g)
		r.Input, r.Forward = appendIf(to.here, r.Input, f), appendIf(to.elsewhere, r.Forward, f)
	}
}

// addUnrouted denies what nothing before has allowed to be passed on.
func (b *plan) addUnrouted(r *dataplane.Ruleset) {
	for _, zone := range slices.Sorted(maps.Keys(b.policy.Zones)) {
		if b.policy.Zones[zone].Unrouted && b.reach(b.words[zone]).elsewhere {
			r.Forward = append(r.Forward, dataplane.FilterRule{
				Name: unroutedPrefix + zone, To: b.setOf(zone), NotTo: []string{localSet}, Ports: []api.PortRange{{Protocol: "any"}}, Deny: true,
			})
		}
	}
}

// egress gives the filter rules of an egress rule, and adds the set that its
// DNS names fill.
func (b *plan) egress(rule api.EgressRule, r *dataplane.Ruleset, do func(dataplane.FilterRule, way)) {
	give := func(f dataplane.FilterRule, out way) {
		f.NotTo = append(slices.Clone(f.NotTo), insideSet)
		do(f, out)
	}
	if len(rule.To) > 0 {
		b.each(rule.Rule, func(f dataplane.FilterRule, _ reach, out way) {
			if out.outside {
				give(f, out)
			}
		})
	}
	if len(rule.Names) == 0 {
		return
	}
	set := dataplane.DynamicSet{Name: namedSet("dns", rule.Name), Names: slices.Compact(slices.Sorted(slices.Values(rule.Names)))}
	r.Dynamic = append(r.Dynamic, set)
	toAll := rule.Rule
	toAll.To = []string{api.AnyZone}
	b.each(toAll, func(f dataplane.FilterRule, _ reach, out way) {
		f.To = set.Name
		give(f, out)
	})
}

package zones

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
)

// Lint finds what is no fault, but is hardly meant: zones without members,
// zones and lists that nothing uses, services that are not there, and rules
// that have expired, match nothing, are closed by a whitelist, or allow nothing
// that others do not allow. The findings are in the policy's order.
func (v *View) Lint() []*api.FieldError {
	if v.policy == nil || checkNames(v.policy) != nil {
		return nil
	}
	l := linter{View: v}
	l.groups()
	l.expired()
	l.ends()
	l.rules()
	slices.SortStableFunc(l.found, func(a, b *api.FieldError) int { return placeOf(a.Field) - placeOf(b.Field) })
	return l.found
}

// placeOf is the rank of a field's section in a policy.
func placeOf(field string) int {
	return slices.IndexFunc([]string{"zones", "lists", "rules", "forward", "egress", ""}, func(s string) bool { return strings.HasPrefix(field, s) })
}

type linter struct {
	*View
	found []*api.FieldError
}

func (l *linter) add(field, format string, args ...any) {
	l.found = append(l.found, &api.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)})
}

// groups looks at zones and lists.
func (l *linter) groups() {
	used := map[string]bool{}
	each := func(field string, r api.Rule) {
		for _, w := range slices.Concat(r.From, r.To, r.Except.From, r.Except.To) {
			used[w] = true
		}
	}
	l.eachRule(each)
	for _, r := range l.policy.Forward {
		for _, w := range r.Via {
			used[w] = true
		}
	}
	for _, z := range l.policy.Zones {
		for _, w := range slices.Concat(z.Lists, z.Whitelist) {
			used[w] = true
		}
	}
	for _, name := range l.zones {
		z, field := l.policy.Zones[name], "zones."+name
		if len(l.end(name).space) == 0 {
			l.add(field, "is empty: %s", strings.TrimPrefix(l.emptiness(wordZone, name).Error(), fmt.Sprintf("the zone %q is empty: ", name)))
		}
		if !used[name] && len(z.Whitelist) == 0 && !z.Unrouted && len(z.Interfaces) == 0 {
			l.add(field, "no rule names it: nothing reaches it and it reaches nothing, but by \"any\" or another zone")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.policy.Lists)) {
		if !used[name] {
			l.add("lists."+name, "nothing uses it")
		}
	}
}

func (l *linter) eachRule(do func(field string, r api.Rule)) {
	for i, r := range l.policy.Rules {
		do(fmt.Sprintf("rules[%d]", i), r)
	}
	for i, r := range l.policy.Forward {
		do(fmt.Sprintf("forward[%d]", i), r.Rule)
	}
	for i, r := range l.policy.Egress {
		do(fmt.Sprintf("egress[%d]", i), r.Rule)
	}
}

func (l *linter) expired() {
	l.eachRule(func(field string, r api.Rule) {
		if !r.Expires.IsZero() && !l.now.Before(r.Expires.Time) {
			l.add(field, "has expired on %s", r.Expires.Format("2006-01-02 15:04 MST"))
		}
	})
}

// ends looks for services that are not there.
func (l *linter) ends() {
	l.eachRule(func(field string, r api.Rule) {
		for _, side := range []struct {
			name  string
			words []string
		}{{"from", r.From}, {"to", r.To}} {
			for i, w := range side.words {
				if kind, _ := wordOf(l.policy, w); kind == wordService && len(l.byKey[w]) == 0 {
					l.add(fmt.Sprintf("%s.%s[%d]", field, side.name, i), "there is no service %q", w)
				}
			}
		}
		for i, t := range r.Allow {
			if t.Service != "" && len(l.byKey[t.Service]) == 0 {
				l.add(fmt.Sprintf("%s.allow[%d]", field, i), "there is no service %q", t.Service)
			}
		}
	})
}

// rules looks for rules that change nothing.
func (l *linter) rules() {
	f := flows{l.classes(), nil}
	before := map[section]map[pair]portSpace{inRules: {}, inForward: {}, inEgress: {}}
	for i, r := range l.View.rules {
		reaches, shadowed, closed := false, true, true
		seen := before[r.section]
		for _, t := range r.terms {
			f.each(f.of[t.from.key], f.of[t.to.key], func(x pair) {
				reaches = true
				shadowed = shadowed && seen[x].covers(t.ports)
				closed = closed && l.whitelistCloses(f, x)
			})
		}
		switch {
		case !reaches:
			if !l.learns(r) {
				l.add(r.field, "matches nothing: it leads from or to nobody")
			}
		case closed && r.section != inEgress:
			l.add(r.field, "never matches: the whitelists of the zones it leads to close all of it")
		case shadowed:
			l.add(r.field, "adds nothing: %s all that it allows", l.coverer(f, i))
		}
		if r.Rate > 0 || !r.Expires.IsZero() || r.section == inForward {
			continue // what it allows may end, or depends on via
		}
		for _, t := range r.terms {
			f.each(f.of[t.from.key], f.of[t.to.key], func(x pair) { seen[x] = seen[x].union(t.ports) })
		}
	}
}

// learns tells whether the rule's addresses come by DNS.
func (l *linter) learns(r boundRule) bool {
	return slices.ContainsFunc(l.policy.Egress, func(e api.EgressRule) bool { return e.Name == r.Name && len(e.Names) > 0 })
}

func (l *linter) whitelistCloses(f flows, x pair) bool {
	return slices.ContainsFunc(l.zones, func(z string) bool {
		_, has := l.lists[z]
		return has && f.all[x.to].in(z) && !f.all[x.from].in("/whitelist "+z)
	})
}

// coverer names the rule that allows all that the one with the index does, if
// one alone does.
func (l *linter) coverer(f flows, index int) string {
	r := l.View.rules[index]
	for _, other := range l.View.rules[:index] {
		if other.section != r.section || other.Rate > 0 || !other.Expires.IsZero() {
			continue
		}
		all := !slices.ContainsFunc(r.terms, func(t term) bool {
			return !slices.ContainsFunc(other.terms, func(o term) bool {
				return o.ports.covers(t.ports) && subset(f.of[t.from.key], f.of[o.from.key]) && subset(f.of[t.to.key], f.of[o.to.key])
			})
		})
		if all {
			return fmt.Sprintf("the rule %q before it allows", other.Name)
		}
	}
	return "the rules before it allow"
}

// subset tells whether all of the sorted list are in the other one.
func subset(some, of []int) bool {
	for _, x := range some {
		if _, in := slices.BinarySearch(of, x); !in {
			return false
		}
	}
	return true
}

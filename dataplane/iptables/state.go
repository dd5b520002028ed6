package iptables

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/weirproject/weir/dataplane"
)

// state is what is ours, as wanted or as found.
type state struct {
	sets   map[string]*set // by the kernel's name
	tables map[table]*chains
}

// table is a table of one address family.
type table struct {
	v6   bool
	name string // filter or mangle
}

// chains are our chains in a table.
type chains struct {
	rules map[string][]rule // by chain
	// hooks are the built-in chains, with the number of rules that jump to ours;
	// -1: one does, but others come before it.
	hooks map[string]int
}

func newState() *state { return &state{sets: map[string]*set{}, tables: map[table]*chains{}} }

// in gives the chains of a table.
func (s *state) in(t table) *chains {
	if s.tables[t] == nil {
		s.tables[t] = &chains{rules: map[string][]rule{}, hooks: map[string]int{}}
	}
	return s.tables[t]
}

// rule is one rule of a chain.
type rule struct {
	mark    string // tells the rule's whole meaning apart; empty: not ours
	name    string
	counts  bool
	text    string // when wanted: what follows -A and the chain, without comment
	packets uint64 // when found
	bytes   uint64
}

// counters sums the rules' counters by name.
func (s *state) counters() map[string]Counter {
	all := map[string]Counter{}
	for _, c := range s.tables {
		c.sum(all)
	}
	return all
}

func (c *chains) sum(all map[string]Counter) map[string]Counter {
	for _, rules := range c.rules {
		for _, r := range rules {
			if r.counts {
				sum := all[r.name]
				all[r.name] = Counter{Packets: sum.Packets + r.packets, Bytes: sum.Bytes + r.bytes}
			}
		}
	}
	return all
}

// set is one set of the kernel's.
type set struct {
	typ     string   // hash:net, hash:ip,port or hash:ip
	v6      bool     //
	max     int      // members that it has room for
	members []string // as ipset writes them, sorted; none of sets that learn
	version uint64   // of the ruleset's set; 0: unknown
}

// learns tells whether the set is filled while it is in use.
func (s *set) learns() bool { return s.typ == "hash:ip" }

// difference gives the strings that only one of the two sorted lists has.
func difference(a, b []string) (onlyA, onlyB []string) {
	for len(a) > 0 && len(b) > 0 {
		switch c := strings.Compare(a[0], b[0]); {
		case c == 0:
			a, b = a[1:], b[1:]
		case c < 0:
			onlyA, a = append(onlyA, a[0]), a[1:]
		default:
			onlyB, b = append(onlyB, b[0]), b[1:]
		}
	}
	return append(onlyA, a...), append(onlyB, b...)
}

func (s *set) changes(o *set) (stale, fresh []string) {
	if s == o || s.version != 0 && s.version == o.version {
		return nil, nil
	}
	return difference(s.members, o.members)
}

// compare counts what a change from found to wanted does, given what the last
// Set had left in the kernel.
func compare(last, found, wanted *state) dataplane.Changes {
	if last == nil {
		removed, written := found.diff(wanted)
		return dataplane.Changes{Written: written, Removed: removed}
	}
	removed, written := last.diff(wanted)
	extra, missing := found.diff(last)
	return dataplane.Changes{Written: written, Removed: removed, Repaired: extra + missing}
}

// diff counts the objects that only s has and those that only o has: chains,
// jumps to them, rules, sets and their members. What has changed counts once,
// as one that only o has.
func (s *state) diff(o *state) (onlyS, onlyO int) {
	for _, t := range tables() {
		a, b := s.in(t), o.in(t)
		for hook := range union(a.hooks, b.hooks) {
			switch x, y := a.hooks[hook], b.hooks[hook]; {
			case x == y:
			case y == 0:
				onlyS++
			default:
				onlyO++
			}
		}
		for chain := range union(a.rules, b.rules) {
			x, here := a.rules[chain]
			y, there := b.rules[chain]
			onlyS, onlyO = onlyS+count(here && !there), onlyO+count(there && !here)
			extra, missing := diffRules(x, y)
			onlyS, onlyO = onlyS+extra, onlyO+missing
		}
	}
	for name := range union(firsts(s.sets), firsts(o.sets)) {
		a, b := pick(s.sets, name), pick(o.sets, name)
		switch {
		case a == nil:
			onlyO += 1 + len(b.members)
		case b == nil:
			onlyS += 1 + len(a.members)
		default:
			stale, fresh := a.changes(b)
			onlyS, onlyO = onlyS+len(stale), onlyO+len(fresh)
		}
	}
	return onlyS, onlyO
}

func tables() []table {
	return []table{{false, "mangle"}, {false, "filter"}, {true, "mangle"}, {true, "filter"}}
}

// firsts gives the sets' first names.
func firsts(sets map[string]*set) map[string]bool {
	all := map[string]bool{}
	for name := range sets {
		all[strings.TrimSuffix(name, otherName)] = true
	}
	return all
}

func pick(sets map[string]*set, first string) *set {
	if s := sets[first]; s != nil {
		return s
	}
	return sets[first+otherName]
}

func union[A, B any](a map[string]A, b map[string]B) map[string]bool {
	keys := map[string]bool{}
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	return keys
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func sameRules(a, b []rule) bool {
	return slices.EqualFunc(a, b, func(x, y rule) bool { return x.mark == y.mark })
}

// diffRules counts the rules that only a has and those that only b has; an
// edited rule is one of either and counts once, and so does a wrong order.
func diffRules(a, b []rule) (onlyA, onlyB int) {
	if sameRules(a, b) {
		return 0, 0
	}
	left := map[string]int{}
	for _, r := range a {
		left[r.mark]++
	}
	for _, r := range b {
		if left[r.mark] > 0 {
			left[r.mark]--
		} else {
			onlyB++
		}
	}
	for n := range maps.Values(left) {
		onlyA += n
	}
	edited := min(onlyA, onlyB)
	return onlyA - edited, cmp.Or(onlyB, count(onlyA == 0))
}

package nft

import (
	"cmp"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/weirproject/weir/dataplane"
)

// The base chains of our table, in the order in which they are made.
const (
	// addressedChain judges what is addressed to this node before anybody
	// translates the destination, and so keeps published ports of containers
	// from going round the input chain.
	addressedChain = "addressed"
	inputChain     = "input"   // what is addressed to this node
	forwardChain   = "forward" // what passes through
	outputChain    = "output"  // what this node opens itself
)

var baseChains = []string{addressedChain, inputChain, forwardChain, outputChain}

// content is what our table holds, as wanted or as found. The zero value is no
// table.
type content struct {
	exists   bool
	chains   map[string]nftables.ChainPolicy // by name; chains without a hook have none
	sets     map[string]*set                 // by the kernel's name
	rules    map[string][]rule               // by chain
	counters map[string]bool                 // by name
	// shape is the same for contents with the same chains, rules and counters,
	// when that is known.
	shape *byte
	// odd content was found that cannot be changed in place: it is not ours.
	odd bool
}

func newContent() *content {
	return &content{
		exists: true, chains: map[string]nftables.ChainPolicy{}, sets: map[string]*set{},
		rules: map[string][]rule{}, counters: map[string]bool{}, shape: new(byte),
	}
}

// rule is one rule of a chain.
type rule struct {
	name    string
	mark    string     // tells the rule's whole meaning apart; empty: not ours
	code    attributes // its expressions, when wanted
	exprs   []expr.Any // instead, if they look into literals
	literal []*literal // the sets that exprs look into, in their order
}

// literal is a set of values inside a rule, such as { 80, 443 }.
type literal struct {
	typ      nftables.SetDatatype
	interval bool
	elements []nftables.SetElement
	lookup   *expr.Lookup // the expression that looks into it
}

func sameRules(a, b []rule) bool {
	return slices.EqualFunc(a, b, func(x, y rule) bool { return x.mark == y.mark })
}

// shapedLike tells whether both are known to have the same chains, rules and
// counters.
func (c *content) shapedLike(o *content) bool { return c.shape != nil && c.shape == o.shape }

// missing gives the names that a has and b has not, sorted.
func missing[V any](a, b map[string]V) []string {
	var names []string
	for name := range a {
		if _, there := b[name]; !there {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// changing gives the names of the sets that both have, but not the same one,
// sorted.
func changing(a, b map[string]*set) []string {
	var names []string
	for name, s := range a {
		if t := b[name]; t != nil && t != s {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// chainNames gives the chains in the order in which they are made.
func (c *content) chainNames() []string {
	var names []string
	for _, name := range baseChains {
		if _, there := c.chains[name]; there {
			names = append(names, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.chains)) {
		if !slices.Contains(baseChains, name) {
			names = append(names, name)
		}
	}
	return names
}

// same tells whether nothing would have to be written.
func (c *content) same(o *content) bool {
	if c == o {
		return true
	}
	if c.exists != o.exists || c.odd || o.odd || len(c.sets) != len(o.sets) {
		return false
	}
	for name := range c.sets {
		if o.sets[name] == nil {
			return false
		}
	}
	extra, missing := c.diff(o)
	return extra+missing == 0
}

// compare counts what a change from found to wanted does, given what the last
// Set had left in the kernel.
func compare(last, found, wanted *content) dataplane.Changes {
	if last == nil {
		removed, written := found.diff(wanted)
		return dataplane.Changes{Written: written, Removed: removed}
	}
	removed, written := last.diff(wanted)
	if found == last {
		return dataplane.Changes{Written: written, Removed: removed}
	}
	extra, missing := found.diff(last)
	return dataplane.Changes{Written: written, Removed: removed, Repaired: extra + missing}
}

// diff counts the objects that only c has and those that only o has: the
// table, chains, counters, sets, their elements and rules. What has changed
// counts once, as one that only o has.
func (c *content) diff(o *content) (onlyC, onlyO int) {
	onlyC, onlyO = boolCount(c.exists && !o.exists), boolCount(o.exists && !c.exists)
	if c.odd {
		onlyC++
	}
	if !c.shapedLike(o) {
		extra, missing := c.diffChains(o)
		onlyC, onlyO = onlyC+extra, onlyO+missing
	}
	extra, missing := diffSets(c.sets, o.sets)
	return onlyC + extra, onlyO + missing
}

// diffChains does so for chains, rules and counters.
func (c *content) diffChains(o *content) (onlyC, onlyO int) {
	count := func(here, there bool) {
		onlyC, onlyO = onlyC+boolCount(here && !there), onlyO+boolCount(there && !here)
	}
	for name := range union(c.chains, o.chains) {
		p, here := c.chains[name]
		q, there := o.chains[name]
		count(here, there)
		if here && there && p != q {
			onlyO++
		}
		extra, missing := diffRules(c.rules[name], o.rules[name])
		onlyC, onlyO = onlyC+extra, onlyO+missing
	}
	for name := range union(c.counters, o.counters) {
		count(c.counters[name], o.counters[name])
	}
	return onlyC, onlyO
}

// union gives the keys of both maps.
func union[V any](a, b map[string]V) map[string]bool {
	keys := map[string]bool{}
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	return keys
}

// diffSets counts sets by their first names: a set under its other name is the
// same one.
func diffSets(a, b map[string]*set) (onlyA, onlyB int) {
	twins := func(sets map[string]*set, name string) *set {
		if s := sets[name]; s != nil {
			return s
		}
		return sets[twin(name)]
	}
	for name, s := range a {
		if nominal(name) != name && a[nominal(name)] != nil {
			onlyA++ // both are there: one of them is left over
			continue
		}
		t := twins(b, name)
		if t == s {
			continue
		}
		if t != nil {
			stale, fresh := s.changes(t)
			onlyA, onlyB = onlyA+stale.size(), onlyB+fresh.size()
			if s.kind != t.kind || s.v6 != t.v6 {
				onlyB++
			}
		} else {
			onlyA += 1 + s.size()
		}
	}
	for name, t := range b {
		if twins(a, name) == nil {
			onlyB += 1 + t.size()
		}
	}
	return onlyA, onlyB
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
	for _, n := range left {
		onlyA += n
	}
	edited := min(onlyA, onlyB)
	return onlyA - edited, cmp.Or(onlyB, boolCount(onlyA == 0))
}

func boolCount(b bool) int {
	if b {
		return 1
	}
	return 0
}

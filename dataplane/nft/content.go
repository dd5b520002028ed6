package nft

import (
	"cmp"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/weirproject/weir/dataplane"
)

// The chains of our table, in the order in which they are made.
const (
	// addressedChain judges what is addressed to this node before anybody
	// translates the destination, and so keeps published ports of containers
	// from going round the input chain.
	addressedChain = "addressed"
	inputChain     = "input"   // what is addressed to this node
	forwardChain   = "forward" // what passes through
)

var chainNames = []string{addressedChain, inputChain, forwardChain}

// content is what our table holds, as wanted or as found. The zero value is no
// table.
type content struct {
	exists bool
	chains map[string]nftables.ChainPolicy // by name
	sets   map[string]addressSet           // by name
	rules  map[string][]rule               // by chain
	// odd content was found that cannot be changed in place: it is not ours.
	odd bool
}

func newContent() *content {
	return &content{
		exists: true, chains: map[string]nftables.ChainPolicy{}, sets: map[string]addressSet{}, rules: map[string][]rule{},
	}
}

// addressSet holds the addresses of one family.
type addressSet struct {
	v6    bool
	spans []span // sorted, disjoint
}

// rule is one rule of a chain.
type rule struct {
	name    string
	mark    string        // tells the rule's whole meaning apart; empty: not ours
	exprs   []expr.Any    // when wanted
	literal []*literal    // the sets that exprs look into, in their order
	counter *expr.Counter // when found
}

// literal is a set of values inside a rule, such as { 80, 443 }.
type literal struct {
	typ      nftables.SetDatatype
	interval bool
	elements []nftables.SetElement
	lookup   *expr.Lookup // the expression that looks into it
}

// same tells whether nothing would have to be written.
func (c *content) same(o *content) bool {
	if c.exists != o.exists || c.odd || o.odd {
		return false
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
	extra, missing := found.diff(last)
	return dataplane.Changes{Written: written, Removed: removed, Repaired: extra + missing}
}

// diff counts the objects that only c has and those that only o has: the
// table, chains, sets, address ranges and rules. What has changed counts once,
// as one that only o has.
func (c *content) diff(o *content) (onlyC, onlyO int) {
	count := func(here, there bool) {
		if here && !there {
			onlyC++
		} else if there && !here {
			onlyO++
		}
	}
	count(c.exists, o.exists)
	if c.odd {
		onlyC++
	}
	for _, name := range chainNames {
		p, here := c.chains[name]
		q, there := o.chains[name]
		count(here, there)
		if here && there && p != q {
			onlyO++
		}
		extra, missing := diffRules(c.rules[name], o.rules[name])
		onlyC, onlyO = onlyC+extra, onlyO+missing
	}
	for name, s := range c.sets {
		t, there := o.sets[name]
		count(true, there)
		extra, missing := difference(s.spans, t.spans)
		onlyC, onlyO = onlyC+len(extra), onlyO+len(missing)
	}
	for name, t := range o.sets {
		if _, here := c.sets[name]; !here {
			onlyO += 1 + len(t.spans)
		}
	}
	return onlyC, onlyO
}

// diffRules counts the rules that only a has and those that only b has; an
// edited rule is one of either and counts once, and so does a wrong order.
func diffRules(a, b []rule) (onlyA, onlyB int) {
	if slices.EqualFunc(a, b, func(x, y rule) bool { return x.mark == y.mark }) {
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

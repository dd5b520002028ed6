package nft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/weirproject/weir/dataplane"
)

// addHook appends a hook's rules to a base chain.
func (b *builder) addHook(base, hook string, rules []dataplane.FilterRule) {
	if base == addressedChain && b.mode == Observe {
		return // input counts it
	}
	deny := []expr.Any{goTo(b.denial(dataplane.DefaultDeny))}
	d := b.hooks[hook]
	if d != nil {
		// The class is kept in the mark for some instructions. Packets that have
		// one of somebody else's are judged by all rules.
		all := base + ".marked"
		b.chains[all] = nftables.ChainPolicyAccept
		for _, f := range rules {
			b.addFilter(place{chain: all, base: base}, f)
		}
		b.add(all, dataplane.DefaultDeny, deny)
		b.add(base, "marked", append(marked(), goTo(all)))
		for _, v6 := range []bool{false, true} {
			b.addClasses(d, base, v6, rules)
		}
		b.add(base, "unmark", unmark()) // not reached from a class's chain
	}
	if d == nil && len(rules) > 2 {
		b.addByFamily(base, rules)
		rules = nil
	}
	for _, f := range rules {
		if d == nil || !d.about(f) {
			b.addFilter(place{chain: base, base: base}, f)
		}
	}
	b.add(base, dataplane.DefaultDeny, deny)
}

// addByFamily gives each family a chain of its own: half the rules are not its.
func (b *builder) addByFamily(base string, rules []dataplane.FilterRule) {
	for _, v6 := range []bool{false, true} {
		chain := setOf(base, v6)
		b.chains[chain] = nftables.ChainPolicyAccept
		b.add(base, "family", append(family(v6), goTo(chain)))
		for _, f := range rules {
			b.addFilter(place{chain: chain, base: base, v6: v6, known: true}, f)
		}
		b.add(chain, dataplane.DefaultDeny, []expr.Any{goTo(b.denial(dataplane.DefaultDeny))})
	}
}

// about tells whether the rule matches only what is in one of the classes.
func (d *dispatch) about(f dataplane.FilterRule) bool {
	_, ours := slices.BinarySearch(d.sets, d.end(f))
	return ours
}

// addClasses appends the look-up of one family's class to a base chain, and
// makes the chains that it goes to.
func (b *builder) addClasses(d *dispatch, base string, v6 bool, rules []dataplane.FilterRule) {
	b.add(base, "class", slices.Concat(family(v6), []expr.Any{address(v6, d.source)}, toClass(b.look(hostsOf(d.mapName(), v6), hostClasses))))
	b.add(base, "class", slices.Concat(family(v6), unmarked(), []expr.Any{address(v6, d.source)}, toClass(b.look(setOf(d.mapName(), v6), classes))))
	b.add(base, "classes", slices.Concat(family(v6), toChain(b.look(targetsName(base, v6), verdicts))))
	for class := range d.used[boolCount(v6)] {
		chain := chainOf(base, class, v6)
		b.chains[chain] = nftables.ChainPolicyAccept
		b.add(chain, "unmark", unmark())
		for _, f := range rules {
			if i, ours := slices.BinarySearch(d.sets, d.end(f)); !ours || slices.Contains(d.of[class], i) {
				b.addFilter(place{chain: chain, base: base, v6: v6, known: true, dispatch: d}, f)
			}
		}
		b.add(chain, dataplane.DefaultDeny, []expr.Any{goTo(b.denial(dataplane.DefaultDeny))})
	}
}

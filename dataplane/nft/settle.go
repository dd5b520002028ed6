package nft

import (
	"maps"
	"slices"
)

// How a change of sets reaches packets. A packet goes by the rules of one
// moment: the kernel takes the rules when it begins with a packet. Sets it
// looks into one after the other, and elements may change in between. So sets
// are changed in place only when no packet can tell: when rules stay as they
// are and no address leaves one set while it comes into another. Otherwise the
// sets that change are made anew, under their other names, and the rules that
// look into the new ones replace those that look into the old ones in one step.

// settle names the wanted sets as they are found, so that they are changed in
// place.
func (b *builder) settle(found *content, last *build) map[string]string {
	names := map[string]string{}
	known := last != nil && found == last.content
	for first, s := range b.replaceable() {
		if known && last.names[first] != "" && (last.sources[first] == s || last.parts[first] == s) {
			names[first] = last.names[first]
			continue
		}
		name := first
		for _, candidate := range []string{first, twin(first)} {
			if f := found.sets[candidate]; f != nil && f.kind == s.kind && f.v6 == s.v6 {
				name = candidate
				if f.sameAs(s) {
					found.sets[candidate] = s // to compare no more
					break
				}
			}
		}
		names[first] = name
	}
	return names
}

// replaceable gives the sets that may have another name.
func (b *builder) replaceable() map[string]*set {
	all := maps.Clone(b.sources)
	maps.Copy(all, b.parts)
	return all
}

// flip gives the changing sets their other names, and tells whether there are
// any.
func (b *builder) flip(found *content, names map[string]string, onlySets bool) (map[string]string, bool) {
	flipped, any := maps.Clone(names), false
	for first, s := range b.replaceable() {
		if _, used := b.looks[first]; !used {
			continue
		}
		// A packet looks into a map of classes once.
		if f := found.sets[names[first]]; f != nil && f != s && !f.sameAs(s) && !(onlySets && (s.kind == classes || s.kind == hostClasses)) {
			flipped[first], any = twin(names[first]), true
		}
	}
	return flipped, any
}

// kindsChange tells whether a set is found as one of another kind under the name
// that it would have.
func (b *builder) kindsChange(found *content, names map[string]string) bool {
	for first, s := range b.replaceable() {
		if f := found.sets[names[first]]; f != nil && f.kind != s.kind {
			return true
		}
	}
	return false
}

// moves tells whether an address leaves one set and comes into another.
func (b *builder) moves(found *content) bool {
	var lost, gained [2][]span
	var left, came []string
	for name, wanted := range b.sets {
		f := found.sets[name]
		if f == nil || f == wanted || wanted.kind != addresses && wanted.kind != hosts && wanted.kind != endpoints {
			continue
		}
		stale, fresh := f.changes(wanted)
		i := boolCount(wanted.v6)
		lost[i] = append(lost[i], subtract(stale.spans, fresh.spans)...)
		gained[i] = append(gained[i], subtract(fresh.spans, stale.spans)...)
		left, came = append(left, stale.keys...), append(came, fresh.keys...)
	}
	for i := range lost {
		out, in := join(lost[i]), join(gained[i])
		for _, s := range out {
			if len(overlapping(in, s)) > 0 {
				return true
			}
		}
	}
	slices.Sort(came)
	return slices.ContainsFunc(left, func(key string) bool {
		_, there := slices.BinarySearch(came, key)
		return there
	})
}

// finish writes the rules so that no packet sees half of the change from what
// is found.
func (b *builder) finish(found *content, last *build) error {
	if b.err != nil {
		return b.err
	}
	names := b.settle(found, last)
	alike := last != nil && maps.Equal(names, last.names) && b.rulesLike(last)
	if !alike {
		if err := b.buildRules(names); err != nil {
			return err
		}
	}
	if !found.exists || found.odd {
		return nil
	}
	rules := !alike || found != last.content || b.kindsChange(found, names)
	if rules {
		rules = b.kindsChange(found, names)
		for chain := range b.chains {
			if _, there := found.chains[chain]; there && !sameRules(found.rules[chain], b.rules[chain]) {
				rules = true
			}
		}
	}
	if !rules && !b.moves(found) {
		return nil
	}
	if flipped, any := b.flip(found, names, !rules); any {
		return b.buildRules(flipped)
	}
	return nil
}

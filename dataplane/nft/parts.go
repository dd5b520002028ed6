package nft

import "github.com/google/nftables"

// Spans of a few addresses go into a hash table, each address by itself, and the
// others into an interval tree. A change of a tree costs the kernel a walk
// through all of it (nft_rbtree_commit, seen on Linux 6.18), one of a hash table
// costs nothing more. The set of all zones and the maps of classes are split
// into one of each. Other sets, for which a second look-up would be a second
// rule, are the one or the other.

// few is how many addresses of a span go into a hash table.
const few = 16

func (s span) short() bool {
	return s.first.high == s.last.high && s.last.low-s.first.low < few
}

const (
	// manySpans make a set that has short spans alone a hash table.
	manySpans = 128
	// muchLonger is how many addresses a span may come to have in one that is a
	// hash table, before it is made a tree: so that a set does not go to and fro.
	muchLonger = 16 * few
)

// asHosts gives the set as a hash table, nil if it is to be a tree. It stays
// what it was if it can. known tells that last was made of the set that this
// one came from; of the same set it is not asked.
func asHosts(of, last *set, known bool) *set {
	out := &set{kind: hosts, v6: of.v6, of: of, entire: true}
	switch {
	case known && last == nil:
		return nil
	case known:
		for _, s := range of.fresh {
			if s.first.high != s.last.high || s.last.low-s.first.low >= muchLonger {
				return nil
			}
		}
		out.from, out.stale, out.fresh = last, of.stale, of.fresh
		return out
	}
	n := 0
	for _, piece := range of.list {
		n += len(piece)
		for _, s := range piece {
			if !s.short() {
				return nil
			}
		}
	}
	if n < manySpans {
		return nil
	}
	return out
}

// hostsOf names the part of a set that is a hash table.
func hostsOf(name string, v6 bool) string { return setOf(name+".hosts", v6) }

// part gives the spans of the set that are short, or those that are not, from
// the last ones if it can.
func part(of *set, short bool, last *set) *set {
	if last != nil && last.of == of {
		return last
	}
	out := &set{kind: of.kind, v6: of.v6, of: of, short: short}
	if short {
		out.kind = map[kind]kind{addresses: hosts, classes: hostClasses}[of.kind]
	}
	if last != nil && of.from != nil && last.of == of.from {
		out.from, out.stale, out.fresh = last, those(of.stale, short), those(of.fresh, short)
	}
	return out
}

// all gives the spans. Those of a part are picked out only when they are needed:
// not for a change that is known.
func (s *set) all() []span {
	if s.list != nil {
		return s.list.flat()
	}
	if s.of != nil && s.spans == nil {
		if s.spans = s.of.all(); !s.entire {
			s.spans = those(s.spans, s.short)
		}
	}
	return s.spans
}

func those(all []span, short bool) []span {
	n := 0
	for _, s := range all {
		if s.short() == short {
			n++
		}
	}
	if n == len(all) {
		return all
	}
	out := make([]span, 0, n)
	for _, s := range all {
		if s.short() == short {
			out = append(out, s)
		}
	}
	return out
}

// hostElements writes each address of the spans by itself.
func hostElements(all []span) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, len(all))
	for _, s := range all {
		for a := s.first; ; a = a.Next() {
			e := nftables.SetElement{Key: a.AsSlice()}
			if s.class != 0 {
				e.Val = classValue(s.class)
			}
			out = append(out, e)
			if a == s.last {
				break
			}
		}
	}
	return out
}

// hostSpans reads them back.
func hostSpans(elements []nftables.SetElement) []span {
	all := make([]span, 0, len(elements))
	for _, e := range elements {
		if a, ok := addrFromSlice(e.Key); ok {
			all = append(all, span{a, a, classOf(e.Val)})
		}
	}
	return joinClasses(all)
}

// makeParts splits the set of all zones and the maps of classes, and makes hash
// tables of other sets.
func (b *builder) makeParts(last *build) {
	b.parts = map[string]*set{}
	for name, s := range b.sources {
		if s.kind != addresses {
			continue
		}
		old, p := last.sources[name], last.parts[name]
		if old != s {
			p = asHosts(s, p, s.from != nil && s.from == old)
		}
		if p != nil {
			b.parts[name] = p
		}
	}
	for _, v6 := range []bool{false, true} {
		if s := b.sources[setOf(b.ruleset.Zoned, v6)]; s != nil && s.kind == addresses {
			b.makePart(b.ruleset.Zoned+".nets", b.ruleset.Zoned, s, last)
		}
		for _, d := range b.hooks {
			b.makePart(d.mapName(), d.mapName(), d.maps[boolCount(v6)], last)
		}
	}
}

func (b *builder) makePart(nets, hosts string, s *set, last *build) {
	name := setOf(nets, s.v6)
	b.parts[name] = part(s, false, last.parts[name])
	name = hostsOf(hosts, s.v6)
	b.parts[name] = part(s, true, last.parts[name])
}

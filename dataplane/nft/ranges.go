package nft

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"github.com/google/nftables"
)

// span is a range of addresses of one family, both ends included. In a map it
// has a class, in a set none (0).
type span struct {
	first, last addr
	class       uint32
}

func (s span) compare(o span) int {
	if c := s.first.Compare(o.first); c != 0 {
		return c
	}
	return cmp.Or(s.last.Compare(o.last), cmp.Compare(s.class, o.class))
}

// spans writes the prefixes of one family as disjoint spans, sorted, with
// neighbours joined: an interval set takes no element twice.
func spans(prefixes []netip.Prefix, v6 bool) ([]span, error) {
	all := make([]span, 0, len(prefixes))
	for _, p := range prefixes {
		if !p.IsValid() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%s is not a prefix of addresses as packets carry them", p)
		}
		if p.Addr().Is6() == v6 {
			p = p.Masked()
			all = append(all, span{first: addrOf(p.Addr()), last: lastOf(p)})
		}
	}
	return join(all), nil
}

// join sorts the spans and merges those that overlap or touch. They have no
// classes.
func join(all []span) []span {
	if !slices.IsSortedFunc(all, span.compare) {
		slices.SortFunc(all, span.compare)
	}
	var out []span
	for _, s := range all {
		n := len(out) - 1
		// Next of the family's last address is invalid, and less than all others.
		if n >= 0 && (s.first.Compare(out[n].last) <= 0 || s.first == out[n].last.Next()) {
			if s.last.Compare(out[n].last) > 0 {
				out[n].last = s.last
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// joinClasses sorts disjoint spans and merges those of one class that touch.
func joinClasses(all []span) []span {
	slices.SortFunc(all, span.compare)
	var out []span
	for _, s := range all {
		if n := len(out) - 1; n >= 0 && out[n].class == s.class && out[n].last.Next() == s.first {
			out[n].last = s.last
			continue
		}
		out = append(out, s)
	}
	return out
}

// subtract takes the sorted, disjoint spans of b out of those of a.
func subtract(a, b []span) []span {
	var out []span
	for _, s := range a {
		for len(b) > 0 && b[0].last.Less(s.first) {
			b = b[1:]
		}
		rest := true
		for _, hole := range b {
			if s.last.Less(hole.first) {
				break
			}
			if s.first.Less(hole.first) {
				out = append(out, span{first: s.first, last: hole.first.Prev(), class: s.class})
			}
			if s.last.Compare(hole.last) <= 0 {
				rest = false
				break
			}
			s.first = hole.last.Next()
		}
		if rest {
			out = append(out, s)
		}
	}
	return out
}

// touching finds the sorted, disjoint spans that overlap the region or lie
// right beside it: all[from:to].
func touching(all []span, region span) (from, to int) {
	before, after := region.first.Prev(), region.last.Next()
	from = sort.Search(len(all), func(i int) bool {
		return all[i].last.Compare(region.first) >= 0 || before.IsValid() && all[i].last == before
	})
	to = from
	for to < len(all) && (all[to].first.Compare(region.last) <= 0 || after.IsValid() && all[to].first == after) {
		to++
	}
	return from, to
}

// overlapping gives the parts of the sorted, disjoint spans that lie inside the
// region.
func overlapping(all []span, region span) []span {
	from := sort.Search(len(all), func(i int) bool { return all[i].last.Compare(region.first) >= 0 })
	var out []span
	for _, s := range all[from:] {
		if region.last.Less(s.first) {
			break
		}
		if s.first.Less(region.first) {
			s.first = region.first
		}
		if region.last.Less(s.last) {
			s.last = region.last
		}
		out = append(out, s)
	}
	return out
}

// renew computes the spans anew where they have changed, in the sorted regions,
// and tells which ones are gone and which ones came. Its cost is one copy, and
// else what changes. compute gives the spans inside a region, which begins and
// ends where no old span reaches across.
func renew(old, regions []span, compute func(old []span, region span) []span) (out, stale, fresh []span) {
	if len(regions) == 0 {
		return old, nil, nil
	}
	type piece struct {
		region   span
		from, to int
	}
	var pieces []piece
	for _, r := range regions {
		from, to := touching(old, r)
		if to > from {
			if old[from].first.Less(r.first) {
				r.first = old[from].first
			}
			if r.last.Less(old[to-1].last) {
				r.last = old[to-1].last
			}
		}
		// Regions that touch the same span are one.
		if n := len(pieces) - 1; n >= 0 && (from < pieces[n].to || r.first.Compare(pieces[n].region.last) <= 0 || r.first == pieces[n].region.last.Next()) {
			if pieces[n].region.last.Less(r.last) {
				pieces[n].region.last = r.last
			}
			pieces[n].to = max(pieces[n].to, to)
			continue
		}
		pieces = append(pieces, piece{r, from, to})
	}
	out = make([]span, 0, len(old)+2*len(regions))
	at := 0
	for _, p := range pieces {
		out = append(out, old[at:p.from]...)
		at = p.to
		now := compute(old[p.from:p.to], p.region)
		gone, came := difference(old[p.from:p.to], now)
		stale, fresh = append(stale, gone...), append(fresh, came...)
		out = append(out, now...)
	}
	return append(out, old[at:]...), stale, fresh
}

// lastOf is the highest address of the prefix.
func lastOf(p netip.Prefix) addr {
	a, free := addrOf(p.Addr()), p.Addr().BitLen()-p.Bits()
	if free >= 64 {
		a.low = 1<<64 - 1
		a.high |= 1<<(free-64) - 1
	} else {
		a.low |= 1<<free - 1
	}
	return a
}

// elements writes spans as an interval set holds them: an element for each
// start and a flagged one for the first address past the end, which the last
// span of the address space has none of.
func elements(all []span) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, 2*len(all))
	for _, s := range all {
		e := nftables.SetElement{Key: s.first.AsSlice()}
		if s.class != 0 {
			e.Val = classValue(s.class)
		}
		out = append(out, e)
		if next := s.last.Next(); next.IsValid() {
			out = append(out, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// spansOf reads spans back from an interval set's elements, in any order.
func spansOf(elements []nftables.SetElement) []span {
	type edge struct {
		addr  addr
		class uint32
		end   bool
	}
	edges := make([]edge, 0, len(elements))
	for _, e := range elements {
		if a, ok := addrFromSlice(e.Key); ok {
			edges = append(edges, edge{a, classOf(e.Val), e.IntervalEnd})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if c := a.addr.Compare(b.addr); c != 0 || a.end == b.end {
			return c
		}
		if a.end {
			return -1 // one span ends where the next one starts
		}
		return 1
	})
	var out []span
	open := false
	for _, e := range edges {
		switch {
		case e.end && open:
			out[len(out)-1].last = e.addr.Prev()
			open = false
		case !e.end:
			out = append(out, span{e.addr, e.addr.highest(), e.class})
			open = true
		}
	}
	return out
}

// difference gives the spans that only one of the two sorted lists has.
func difference(a, b []span) (onlyA, onlyB []span) {
	for len(a) > 0 && len(b) > 0 {
		switch c := a[0].compare(b[0]); {
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

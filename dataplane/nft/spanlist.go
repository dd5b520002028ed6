package nft

import (
	"slices"
	"sort"
)

// spanList is a sorted list of disjoint spans in pieces, none of them empty. It
// is never changed: a new version shares all but a few pieces with the one it
// came from, so that a change of a large set costs what it changes.
type spanList [][]span

// spansInPiece is how many spans a fresh piece has.
const spansInPiece = 256

// listOf cuts the spans; the pieces share their memory.
func listOf(all []span) spanList {
	if len(all) == 0 {
		return nil
	}
	if len(all) < 2*spansInPiece {
		return spanList{all}
	}
	return slices.Collect(slices.Chunk(all, spansInPiece))
}

// flat gives all spans in one slice.
func (l spanList) flat() []span {
	if len(l) == 1 {
		return l[0]
	}
	return slices.Concat(l...)
}

// from is the first piece that ends behind the address, or at it.
func (l spanList) from(a addr) int {
	return sort.Search(len(l), func(i int) bool { return l[i][len(l[i])-1].last.Compare(a) >= 0 })
}

// overlapping gives the parts of the spans that lie inside the region.
func (l spanList) overlapping(region span) []span {
	var out []span
	for _, piece := range l[l.from(region.first):] {
		if region.last.Less(piece[0].first) {
			break
		}
		out = append(out, overlapping(piece, region)...)
	}
	return out
}

// window is a run of pieces, and the regions that change in it.
type window struct {
	from, to int
	regions  []span
}

// windows finds the pieces with the spans that overlap the sorted regions or
// lie right beside them.
func (l spanList) windows(regions []span) []window {
	var all []window
	for _, r := range regions {
		w := window{from: l.from(r.first)}
		w.to = max(w.from, l.from(r.last))
		// The spans beside a region may be in the pieces beside, and small pieces
		// grow together.
		w.from, w.to = max(w.from-1, 0), min(w.to+2, len(l))
		if n := len(all) - 1; n >= 0 && w.from < all[n].to {
			all[n].to = max(all[n].to, w.to)
			all[n].regions = append(all[n].regions, r)
			continue
		}
		w.regions = []span{r}
		all = append(all, w)
	}
	return all
}

// renew is renew of a list.
func (l spanList) renew(regions []span, compute func(old []span, region span) []span) (out spanList, stale, fresh []span) {
	at := 0
	for _, w := range l.windows(regions) {
		now, gone, came := renew(l[w.from:w.to].flat(), w.regions, compute)
		out = append(append(out, l[at:w.from]...), listOf(now)...)
		stale, fresh = append(stale, gone...), append(fresh, came...)
		at = w.to
	}
	return append(out, l[at:]...), stale, fresh
}

package zones

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
)

func TestPiecesShareWhatDoesNotChange(t *testing.T) {
	c := newChance(1)
	in := map[netip.Prefix]bool{}
	var pieces [][]netip.Prefix
	for step := range 300 {
		added, removed := map[netip.Prefix]bool{}, map[netip.Prefix]bool{}
		for range []int{1, 3000, 1, 40}[step%4] {
			p := host(netip.AddrFrom4([4]byte{10, byte(c.IntN(4)), byte(c.IntN(256)), byte(c.IntN(256))}))
			if !in[p] {
				added[p] = true
			} else if !added[p] {
				removed[p] = true
			}
		}
		if step%50 == 49 { // all gone
			added, removed = nil, maps.Clone(in)
		}
		maps.Copy(in, added)
		maps.DeleteFunc(in, func(p netip.Prefix, _ bool) bool { return removed[p] })
		before := pieces
		pieces = changePieces(pieces, slices.SortedFunc(maps.Keys(added), comparePrefix), slices.SortedFunc(maps.Keys(removed), comparePrefix))
		if got, want := slices.Concat(pieces...), slices.SortedFunc(maps.Keys(in), comparePrefix); !slices.Equal(got, want) {
			t.Fatalf("step %d: %d prefixes, want %d", step, len(got), len(want))
		}
		fresh := 0
		for _, piece := range pieces {
			if len(piece) == 0 || len(piece) >= 2*pieceSize {
				t.Fatalf("step %d: a piece of %d", step, len(piece))
			}
			if !slices.ContainsFunc(before, func(old []netip.Prefix) bool { return sameMemory(old, piece) }) {
				fresh++
			}
		}
		if len(added)+len(removed) == 1 && fresh > 2 {
			t.Fatalf("step %d: one change made %d new pieces", step, fresh)
		}
	}
}

package zones

import (
	"net/netip"
	"slices"
)

// The prefixes of a set are kept in pieces, so that a new version shares all but
// a piece or two with the one before: a copy of 100,000 prefixes takes
// milliseconds.

// pieceSize is how many prefixes a fresh piece has. A piece is split when it has
// twice as many; it may have any number less, but not 0.
const pieceSize = 256

// piecesOf cuts the sorted list; the pieces share its memory.
func piecesOf(all []netip.Prefix) [][]netip.Prefix {
	if len(all) < 2*pieceSize {
		if len(all) == 0 {
			return nil
		}
		return [][]netip.Prefix{all}
	}
	return slices.Collect(slices.Chunk(all, pieceSize))
}

// changePieces gives the sorted list with some prefixes taken out, which are in
// it, and others put in, which are not. Pieces in which nothing changes are
// shared.
func changePieces(old [][]netip.Prefix, added, removed []netip.Prefix) [][]netip.Prefix {
	out := make([][]netip.Prefix, 0, len(old)+2)
	for i, piece := range old {
		adds, removes := len(added), len(removed)
		if i+1 < len(old) { // what lies before the next piece
			next := old[i+1][0]
			adds, _ = slices.BinarySearchFunc(added, next, comparePrefix)
			removes, _ = slices.BinarySearchFunc(removed, next, comparePrefix)
		}
		if adds+removes == 0 {
			out = append(out, piece)
			continue
		}
		out = append(out, piecesOf(change(piece, added[:adds], removed[:removes]))...)
		added, removed = added[adds:], removed[removes:]
	}
	if len(added) > 0 { // there was no piece
		out = append(out, piecesOf(added)...)
	}
	return out
}

// comparePrefix orders disjoint prefixes.
func comparePrefix(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }

// change copies the sorted list with some taken out and others put in: whole
// stretches at a time.
func change(old, added, removed []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(old)+len(added)-len(removed))
	for len(added)+len(removed) > 0 {
		adds := len(removed) == 0 || len(added) > 0 && comparePrefix(added[0], removed[0]) < 0
		next := removed
		if adds {
			next = added
		}
		i, _ := slices.BinarySearchFunc(old, next[0], comparePrefix)
		out = append(out, old[:i]...)
		if adds {
			out, old, added = append(out, added[0]), old[i:], added[1:]
		} else {
			old, removed = old[i+1:], removed[1:]
		}
	}
	return append(out, old...)
}

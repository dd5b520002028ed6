package nft

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// span is a range of addresses of one family, both ends included.
type span struct{ first, last netip.Addr }

func (s span) compare(o span) int {
	if c := s.first.Compare(o.first); c != 0 {
		return c
	}
	return s.last.Compare(o.last)
}

// spans writes the prefixes of one family as disjoint spans, sorted, with
// neighbours joined: an interval set takes no element twice, and no end that is
// another's start would survive the round trip.
func spans(prefixes []netip.Prefix, v6 bool) ([]span, error) {
	var all []span
	for _, p := range prefixes {
		if !p.IsValid() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%s is not a prefix of addresses as packets carry them", p)
		}
		if p.Addr().Is6() == v6 {
			p = p.Masked()
			all = append(all, span{p.Addr(), lastOf(p)})
		}
	}
	return join(all), nil
}

// join sorts the spans and merges those that overlap or touch.
func join(all []span) []span {
	slices.SortFunc(all, span.compare)
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

// lastOf is the highest address of the prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		if free := (i+1)*8 - p.Bits(); free >= 8 {
			b[i] = 0xff
		} else if free > 0 {
			b[i] |= 1<<free - 1
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// elements writes spans as an interval set holds them: an element for each
// start and a flagged one for the first address past the end, which the last
// span of the address space has none of.
func elements(all []span) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, 2*len(all))
	for _, s := range all {
		out = append(out, nftables.SetElement{Key: s.first.AsSlice()})
		if next := s.last.Next(); next.IsValid() {
			out = append(out, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// spansOf reads spans back from an interval set's elements, in any order.
func spansOf(elements []nftables.SetElement) []span {
	type edge struct {
		addr netip.Addr
		end  bool
	}
	edges := make([]edge, 0, len(elements))
	for _, e := range elements {
		if a, ok := netip.AddrFromSlice(e.Key); ok {
			edges = append(edges, edge{a, e.IntervalEnd})
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
			out = append(out, span{e.addr, highest(e.addr)})
			open = true
		}
	}
	return out
}

// highest is the last address of the family.
func highest(a netip.Addr) netip.Addr { return lastOf(netip.PrefixFrom(a, 0)) }

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

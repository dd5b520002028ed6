package zones

import (
	"net/netip"
	"slices"
)

// span is a range of addresses of one family, both ends included.
type span struct{ lo, hi netip.Addr }

// space is a set of addresses: sorted spans, IPv4 first, that neither overlap
// nor touch. A space is never changed.
type space []span

// everywhere is every address.
func everywhere() space {
	return spaceOf([]netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)})
}

func spaceOf(prefixes []netip.Prefix) space {
	all := make(space, 0, len(prefixes))
	for _, p := range prefixes {
		if p = plainPrefix(p); p.IsValid() {
			all = append(all, span{p.Addr(), last(p)})
		}
	}
	return all.normalize()
}

// last is the highest address of the prefix.
func last(p netip.Prefix) netip.Addr {
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

// normalize sorts and joins the spans in place.
func (s space) normalize() space {
	slices.SortFunc(s, func(a, b span) int { return a.lo.Compare(b.lo) })
	out := s[:0]
	for _, next := range s {
		if n := len(out) - 1; n >= 0 && next.lo.BitLen() == out[n].hi.BitLen() {
			if next.lo.Compare(out[n].hi) <= 0 || next.lo == out[n].hi.Next() {
				if out[n].hi.Less(next.hi) {
					out[n].hi = next.hi
				}
				continue
			}
		}
		out = append(out, next)
	}
	return slices.Clip(out)
}

func (s space) contains(a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(s, a, func(p span, a netip.Addr) int { return p.lo.Compare(a) })
	if !found {
		i--
	}
	return i >= 0 && s[i].lo.BitLen() == a.BitLen() && a.Compare(s[i].hi) <= 0
}

func (s space) union(others ...space) space {
	all := slices.Clone(s)
	for _, o := range others {
		all = append(all, o...)
	}
	return all.normalize()
}

func (s space) intersect(o space) space {
	var out space
	for i, j := 0, 0; i < len(s) && j < len(o); {
		a, b := s[i], o[j]
		lo, hi := a.lo, a.hi
		if lo.Less(b.lo) {
			lo = b.lo
		}
		if b.hi.Less(hi) {
			hi = b.hi
		}
		if lo.BitLen() == hi.BitLen() && lo.Compare(hi) <= 0 {
			out = append(out, span{lo, hi})
		}
		if a.hi.Less(b.hi) {
			i++
		} else {
			j++
		}
	}
	return out
}

func (s space) subtract(o space) space {
	if len(o) == 0 {
		return s
	}
	var out space
	j := 0
	for _, a := range s {
		for j < len(o) && o[j].hi.Less(a.lo) {
			j++
		}
		lo, done := a.lo, false
		for k := j; k < len(o) && o[k].lo.Compare(a.hi) <= 0; k++ {
			if o[k].lo.BitLen() != lo.BitLen() {
				continue
			}
			if lo.Less(o[k].lo) {
				out = append(out, span{lo, o[k].lo.Prev()})
			}
			if a.hi.Compare(o[k].hi) <= 0 {
				done = true
				break
			}
			if next := o[k].hi.Next(); lo.Less(next) {
				lo = next
			}
		}
		if !done {
			out = append(out, span{lo, a.hi})
		}
	}
	return out
}

// prefixes are the shortest list that makes up the space.
func (s space) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		for lo := p.lo; ; {
			bits := lo.BitLen()
			for bits > 0 {
				wider := netip.PrefixFrom(lo, bits-1)
				if wider.Masked().Addr() != lo || p.hi.Less(last(wider)) {
					break
				}
				bits--
			}
			block := netip.PrefixFrom(lo, bits)
			out = append(out, block)
			if last(block) == p.hi {
				break
			}
			lo = last(block).Next()
		}
	}
	return out
}

// specials are the addresses that no egress rule is about: multicast, loopback
// and those of a link alone.
func specials() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"),
	}
}

func prefixesOf(addresses ...netip.Addr) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range addresses {
		all = append(all, host(a))
	}
	return all
}

package zones

import (
	"slices"

	"github.com/weirproject/weir/api"
)

// portSpan is a range of ports of one protocol, both ends included: the
// protocol in the upper 16 bits, as its place in protocols, the port in the
// lower ones. A protocol without ports is one whole span.
type portSpan struct{ lo, hi uint32 }

// portSpace is a set of ports: sorted spans that neither overlap nor touch.
type portSpace []portSpan

// protocols in their order in a portSpace; other stands for all the rest.
var protocols = [...]string{"tcp", "udp", "icmp", "other"}

// everyPort is what "any" allows.
func everyPort() portSpace { return portSpace{{0, uint32(len(protocols))<<16 - 1}} }

func portsOf(ranges []api.PortRange) portSpace {
	var all portSpace
	for _, r := range ranges {
		if r.Protocol == "any" {
			return everyPort()
		}
		base := uint32(slices.Index(protocols[:], r.Protocol)) << 16
		s := portSpan{base, base | 0xffff}
		if r.First != 0 || r.Last != 0 {
			s = portSpan{base | uint32(r.First), base | uint32(r.Last)}
		}
		all = append(all, s)
	}
	return all.normalize()
}

func (s portSpace) normalize() portSpace {
	slices.SortFunc(s, func(a, b portSpan) int { return int(a.lo) - int(b.lo) })
	out := s[:0]
	for _, next := range s {
		if n := len(out) - 1; n >= 0 && next.lo <= out[n].hi+1 {
			out[n].hi = max(out[n].hi, next.hi)
			continue
		}
		out = append(out, next)
	}
	return slices.Clip(out)
}

func (s portSpace) union(o portSpace) portSpace {
	if len(o) == 0 || len(s) == 1 && s[0] == everyPort()[0] {
		return s
	}
	return append(slices.Clone(s), o...).normalize()
}

func (s portSpace) subtract(o portSpace) portSpace {
	out := s
	for _, b := range o {
		var rest portSpace
		for _, a := range out {
			if b.hi < a.lo || a.hi < b.lo {
				rest = append(rest, a)
				continue
			}
			if a.lo < b.lo {
				rest = append(rest, portSpan{a.lo, b.lo - 1})
			}
			if b.hi < a.hi {
				rest = append(rest, portSpan{b.hi + 1, a.hi})
			}
		}
		out = rest
	}
	return out
}

func (s portSpace) intersect(o portSpace) portSpace { return s.subtract(everyPort().subtract(o)) }

// covers tells whether all of the asked ports are in it.
func (s portSpace) covers(asked portSpace) bool { return len(asked.subtract(s)) == 0 }

func (s portSpace) equal(o portSpace) bool { return slices.Equal(s, o) }

// ranges writes the set as people do. Port 0, which nothing can listen on, is
// not told from its neighbours.
func (s portSpace) ranges() []api.PortRange {
	if s.covers(everyPort()) {
		return []api.PortRange{{Protocol: "any"}}
	}
	var all []api.PortRange
	for i, name := range protocols {
		base := uint32(i) << 16
		for _, p := range s {
			lo, hi := max(p.lo, base), min(p.hi, base|0xffff)
			switch {
			case lo > hi || hi == base:
			case lo <= base+1 && hi == base|0xffff:
				all = append(all, api.PortRange{Protocol: name})
			default:
				all = append(all, api.PortRange{Protocol: name, First: uint16(max(lo, base+1)), Last: uint16(hi)})
			}
		}
	}
	return all
}

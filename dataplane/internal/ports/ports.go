// Package ports takes ports out of ports. Both packet filters use it: the kernel
// has no rule for that.
package ports

import (
	"cmp"
	"slices"

	"github.com/weirproject/weir/api"
)

// Minus gives what is in some of the ranges and in none of not: ranges of TCP
// and of UDP, and ICMP, and in others whether every other protocol is in it. Port 0 alone
// is left out: nothing uses it, and it means every port.
func Minus(some, not []api.PortRange) (left []api.PortRange, others bool) {
	has := func(all []api.PortRange, protocols ...string) bool {
		return slices.ContainsFunc(all, func(p api.PortRange) bool { return slices.Contains(protocols, p.Protocol) })
	}
	if has(not, "any") {
		return nil, false
	}
	for _, protocol := range []string{"tcp", "udp"} {
		left = append(left, minus(spans(some, protocol), spans(not, protocol), protocol)...)
	}
	if has(some, "icmp", "any") && !has(not, "icmp") {
		left = append(left, api.PortRange{Protocol: "icmp"})
	}
	return left, has(some, "any")
}

// span is a range of ports, both ends included.
type span struct{ first, last int }

// spans are the ports of a protocol, sorted.
func spans(all []api.PortRange, protocol string) []span {
	var out []span
	for _, p := range all {
		switch {
		case p.Protocol != protocol && p.Protocol != "any":
		case p.First == 0 && p.Last == 0:
			out = append(out, span{0, 65535})
		default:
			out = append(out, span{int(p.First), int(p.Last)})
		}
	}
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	return out
}

func minus(some, not []span, protocol string) []api.PortRange {
	var out []api.PortRange
	put := func(first, last int) {
		switch {
		case first > last || last == 0:
		case first == 0 && last == 65535:
			out = append(out, api.PortRange{Protocol: protocol})
		default:
			out = append(out, api.PortRange{Protocol: protocol, First: uint16(first), Last: uint16(last)})
		}
	}
	for _, s := range some {
		at := s.first
		for _, n := range not {
			put(at, min(n.first-1, s.last))
			at = max(at, n.last+1)
		}
		put(at, s.last)
	}
	return out
}

package filtertest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// random makes up rulesets and packets for a network.
type random struct {
	*rand.Rand
	net  *Net
	port uint16 // the next source port
}

func pick[T any](r *random, from ...T) T { return from[r.IntN(len(from))] }

func (r *random) chance(n int) bool { return r.IntN(n) == 0 }

func (r *random) everybody() []netip.Addr {
	return slices.Concat(r.net.ClientAddrs, r.net.LeftAddrs, r.net.RightAddrs, r.net.Servers)
}

var setNames = []string{"alpha", "beta", "gamma", "delta", "all-of-them", "a-name-of-twenty-nine-letters"}

// ruleset makes one up, and what its dynamic sets have learnt.
func (r *random) ruleset(now time.Time) (*dataplane.Ruleset, map[string][]netip.Addr) {
	out := &dataplane.Ruleset{Zoned: "zoned", Inside: pick(r, "", "alpha", "zoned")}
	for _, name := range setNames {
		out.Sets = append(out.Sets, r.set(name))
	}
	out.Sets = append(out.Sets, r.set("zoned"))
	slices.SortFunc(out.Sets, func(a, b dataplane.AddressSet) int { return cmp.Compare(a.Name, b.Name) })
	for _, name := range []string{"ends", "more-ends"} {
		s := dataplane.EndpointSet{Name: name}
		for range r.IntN(8) {
			s.Endpoints = append(s.Endpoints, dataplane.Endpoint{
				Address: netip.AddrPortFrom(pick(r, r.everybody()...), pick(r, ports...)), Protocol: pick(r, api.TCP, api.UDP),
			})
		}
		out.Endpoints = append(out.Endpoints, s)
	}
	out.Dynamic = []dataplane.DynamicSet{{Name: "names"}}
	learnt := map[string][]netip.Addr{}
	for range r.IntN(5) {
		learnt["names"] = append(learnt["names"], pick(r, r.everybody()...))
	}
	for range r.IntN(3) {
		out.Guards = append(out.Guards, dataplane.Guard{
			Name: fmt.Sprint("guard", len(out.Guards)), Sources: pick(r, setNames...), Interfaces: pick(r, []string{"left"}, []string{"right"}, []string{"eth1", "le*"}),
		})
	}
	size := pick(r, 0, 1, 3, 6, 30)
	for _, rules := range []*[]dataplane.FilterRule{&out.Input, &out.Forward, &out.Output} {
		for i := range size {
			*rules = append(*rules, r.rule(fmt.Sprint("r", i%20), now))
		}
	}
	return out, learnt
}

// set makes a set of disjoint prefixes.
func (r *random) set(name string) dataplane.AddressSet {
	s := dataplane.AddressSet{Name: name}
	for range r.IntN(7) {
		a := pick(r, r.everybody()...)
		bits := pick(r, a.BitLen(), a.BitLen(), a.BitLen(), a.BitLen()-1, a.BitLen()-2, 16, 0)
		if bits == 0 && !r.chance(6) {
			bits = a.BitLen()
		}
		p, _ := a.Prefix(bits)
		if !slices.ContainsFunc(s.Prefixes, p.Overlaps) {
			s.Prefixes = append(s.Prefixes, p)
		}
	}
	slices.SortFunc(s.Prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return s
}

var ports = []uint16{53, 80, 81, 443, 8000, 65535}

func (r *random) rule(name string, now time.Time) dataplane.FilterRule {
	f := dataplane.FilterRule{Name: name, Deny: r.chance(4), Log: r.chance(4)}
	if !r.chance(3) {
		f.From = pick(r, setNames...)
	}
	if !r.chance(3) {
		f.To = pick(r, setNames...)
	}
	if r.chance(8) {
		f.To = "names"
	}
	if r.chance(5) {
		f.NotFrom = []string{pick(r, setNames...)}
	}
	if r.chance(5) {
		f.NotTo = []string{pick(r, setNames...), pick(r, setNames...)}
	}
	if r.chance(10) {
		f.Rate = 10_000
	}
	if r.chance(8) {
		f.Expires = now.Add(pick(r, -time.Hour, time.Hour, -time.Second))
	}
	for range 1 + r.IntN(3) {
		f.Ports = append(f.Ports, pick(r, parse("tcp"), parse("udp"), parse("icmp"), parse("any"), parse("tcp/80"), parse("tcp/80-443"),
			parse("udp/53"), parse("udp/1-65535"), parse("tcp/8000-65535"), parse("udp/443")))
	}
	if r.chance(4) {
		f.NotPorts = append(f.NotPorts, pick(r, parse("tcp/80"), parse("udp"), parse("icmp"), parse("tcp/1-1000"), parse("udp/53"), parse("tcp/443-8000")))
	}
	if r.chance(5) {
		f.Endpoints = pick(r, "ends", "more-ends")
		if r.chance(2) {
			f.Ports = nil
		}
	}
	return f
}

func parse(text string) api.PortRange {
	p, err := api.ParsePortRange(text)
	if err != nil {
		panic(err)
	}
	return p
}

// packet makes one up that opens a flow of its own, or is invalid.
func (r *random) packet() Packet {
	p := Packet{Hook: pick(r, Input, Forward, Output), In: "left"}
	from, to := r.net.ClientAddrs, r.net.Servers
	switch p.Hook {
	case Input:
		to = append(slices.Clone(r.net.LeftAddrs), r.net.RightAddrs...)
	case Output:
		from, to, p.In = r.net.LeftAddrs, append(slices.Clone(r.net.ClientAddrs), r.net.Servers...), ""
	}
	p.Source = pick(r, from...)
	for p.Destination = pick(r, to...); p.Destination.Is4() != p.Source.Is4(); {
		p.Destination = pick(r, to...)
	}
	p.Protocol = pick[uint8](r, unix.IPPROTO_TCP, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, otherProtocol)
	r.fresh(&p)
	switch p.Protocol {
	case unix.IPPROTO_TCP:
		p.Invalid = r.chance(10)
		p.Port = pick(r, ports...)
	case unix.IPPROTO_UDP:
		p.Port = pick(r, ports...)
	case unix.IPPROTO_ICMP:
		p.Type = 8
		if r.chance(6) {
			p.Type, p.Invalid = 11, true // about a packet that nobody sent
		}
		if p.six() {
			p.Protocol, p.Type = unix.IPPROTO_ICMPV6, map[uint8]uint8{8: 128, 11: 3}[p.Type]
		}
	}
	p.Delivered = p.Hook == Output && r.chance(10)
	return p
}

// fresh makes the packet one of another flow.
func (r *random) fresh(p *Packet) {
	if p.Protocol == unix.IPPROTO_TCP || p.Protocol == unix.IPPROTO_UDP {
		r.port++
		p.SourcePort = 1024 + r.port%60000
	}
}

package nft

import (
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/ports"
	"github.com/weirproject/weir/dataplane/internal/verdict"
)

// meterTimeout is how long a source is remembered after its last flow. A bucket
// is full again after a second.
const meterTimeout = 5 * time.Second

// meterSize bounds the sources that one rule tells apart; flows of others do
// not match it.
const meterSize = 1 << 16

// place says where a rule goes.
type place struct {
	chain, base string
	// In a class's chain the family is known, and one end of the flow.
	known    bool
	v6       bool
	dispatch *dispatch
}

// addFilter appends the kernel's rules for a filter rule: one for each of the
// address families and protocols that it is about.
func (b *builder) addFilter(p place, f dataplane.FilterRule) {
	if p.known {
		b.addFamily(p, f, nil, p.v6)
		return
	}
	icmp := slices.ContainsFunc(f.Ports, func(r api.PortRange) bool { return r.Protocol == "icmp" })
	if f.From == "" && f.To == "" && len(f.NotFrom)+len(f.NotTo) == 0 && f.Endpoints == "" && f.Rate == 0 && len(f.NotPorts) == 0 && !icmp {
		b.addProtocols(p, f, nil, nil, false)
		return
	}
	for _, v6 := range []bool{false, true} {
		b.addFamily(p, f, family(v6), v6)
	}
}

// addFamily appends the rules of one family, which match has made sure of.
// Ports are looked at before sets: that costs less, and most rules differ by
// them.
func (b *builder) addFamily(p place, f dataplane.FilterRule, match []expr.Any, v6 bool) {
	var sets []expr.Any
	in := func(name string, source, not bool) {
		k := addresses
		switch s := b.sources[setOf(name, v6)]; {
		case b.dynamic[name] && !source && !not:
			k = learnt
		case s == nil || s.kind != addresses:
			b.fail("rule %s: there is no address set %q", f.Name, name)
			return
		}
		sets = append(sets, address(v6, source), &expr.Lookup{
			SourceRegister: register, SetName: b.look(setOf(name, v6), k), Invert: not,
		})
	}
	done := func(source bool) bool { return p.dispatch != nil && p.dispatch.source == source && p.dispatch.about(f) }
	if f.From != "" && !done(true) {
		in(f.From, true, false)
	}
	if f.To != "" && !done(false) {
		in(f.To, false, false)
	}
	for _, name := range f.NotFrom {
		in(name, true, true)
	}
	for _, name := range f.NotTo {
		in(name, false, true)
	}
	b.addProtocols(p, f, match, sets, v6)
}

// addProtocols appends the rules of one family, whose match is given, with the
// look-ups of sets.
func (b *builder) addProtocols(p place, f dataplane.FilterRule, match, sets []expr.Any, v6 bool) {
	if !f.Expires.IsZero() && !b.noTime {
		match = slices.Concat(match, before(f.Expires))
	}
	if len(f.NotPorts) > 0 {
		if f.Ports, f.NotPorts = b.addOthers(p, f, match, sets, v6), nil; len(f.Ports) == 0 {
			return
		}
	}
	if f.Endpoints != "" {
		if s := b.sources[setOf(f.Endpoints, v6)]; s == nil || s.kind != endpoints {
			b.fail("rule %s: there is no endpoint set %q", f.Name, f.Endpoints)
			return
		}
		// Other protocols may have something else where ports are.
		l4, l := inBytes(protocolType, unix.IPPROTO_TCP, unix.IPPROTO_UDP)
		look := slices.Concat(match, []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, l4},
			endpoint(v6, b.look(setOf(f.Endpoints, v6), endpoints)))
		if len(f.Ports) == 0 || has(f.Ports, "any") {
			b.addEnd(p, f, look, sets, v6, l)
			return
		}
		b.addPorts(p, f, look, sets, v6, l)
		return
	}
	if has(f.Ports, "any") {
		b.addEnd(p, f, match, sets, v6)
		return
	}
	b.addPorts(p, f, match, sets, v6)
	if has(f.Ports, "icmp") {
		number := byte(unix.IPPROTO_ICMP)
		if v6 {
			number = unix.IPPROTO_ICMPV6
		}
		b.addEnd(p, f, slices.Concat(match, protocol(number)), sets, v6)
	}
}

// addOthers takes the rule's NotPorts out of its ports and gives what is left.
// It appends the rule for protocols that have no ports.
func (b *builder) addOthers(p place, f dataplane.FilterRule, match, sets []expr.Any, v6 bool) []api.PortRange {
	some := f.Ports
	if f.Endpoints != "" && len(some) == 0 {
		some = []api.PortRange{{Protocol: "any"}}
	}
	left, others := ports.Minus(some, f.NotPorts)
	if others && f.Endpoints == "" {
		known, l := inBytes(protocolType, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6)
		l.lookup.Invert = true
		b.addEnd(p, f, slices.Concat(match, []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, known}), sets, v6, l)
	}
	return left
}

func has(ports []api.PortRange, protocol string) bool {
	return slices.ContainsFunc(ports, func(r api.PortRange) bool { return r.Protocol == protocol })
}

// addPorts appends the rules for the ports of TCP and UDP.
func (b *builder) addPorts(p place, f dataplane.FilterRule, match, sets []expr.Any, v6 bool, literals ...*literal) {
	for _, t := range []struct {
		name   string
		number byte
	}{{"tcp", unix.IPPROTO_TCP}, {"udp", unix.IPPROTO_UDP}} {
		if !has(f.Ports, t.name) {
			continue
		}
		// A literal belongs to one rule.
		own := make([]*literal, len(literals))
		with := slices.Clone(match)
		for i, l := range literals {
			own[i] = l.clone(with)
		}
		spans, all := portSpans(f.Ports, t.name)
		if all {
			b.addEnd(p, f, slices.Concat(with, protocol(t.number)), sets, v6, own...)
			continue
		}
		in, l := inPorts(spans)
		b.addEnd(p, f, slices.Concat(with, protocol(t.number), []expr.Any{transport(2, 2)}, in), sets, v6, append(own, l)...)
	}
}

// clone makes another literal of the same, and replaces the look-up in exprs.
func (l *literal) clone(exprs []expr.Any) *literal {
	own := *l
	for i, e := range exprs {
		if e == expr.Any(l.lookup) {
			exprs[i] = own.look()
		}
	}
	return &own
}

// addEnd appends a rule with its limit, counter and verdict.
func (b *builder) addEnd(p place, f dataplane.FilterRule, match, sets []expr.Any, v6 bool, literals ...*literal) {
	match = slices.Concat(match, sets)
	if f.Rate > 0 {
		// What the addressed chain counts is counted again by input: each has
		// buckets of its own.
		name := "meter."
		if p.base == addressedChain {
			name = "meter.addressed."
		}
		set := b.look(setOf(name+short(f.Name), v6), meter)
		match = slices.Concat(match, perSource(v6, set, f.Rate))
	}
	var end []expr.Any
	switch {
	case f.Deny:
		end = []expr.Any{goTo(b.denial(f.Name))}
	case p.base == addressedChain: // input counts it
		end = []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	case f.Log:
		end = []expr.Any{goTo(b.ending("log."+short(f.Name), f.Name, verdict.Accepted, expr.VerdictAccept))}
	default:
		end = []expr.Any{b.counter(f.Name), &expr.Verdict{Kind: expr.VerdictAccept}}
	}
	b.add(p.chain, f.Name, slices.Concat(match, end), literals...)
}

package nft

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// zoned is the set of every address that is in a zone. No zone's own set has
// its name: zones are DNS labels, without underscores.
const zoned = "all_zones"

// setOf names the kernel's set with one family of an address set.
func setOf(name string, v6 bool) string {
	if v6 {
		return name + "_6"
	}
	return name + "_4"
}

// builder collects the wanted content.
type builder struct {
	*content
	err error
}

// build writes the ruleset as the content of our table.
func build(r *dataplane.Ruleset, mode Mode) (*content, error) {
	policy := nftables.ChainPolicyDrop
	if mode == Observe {
		policy = nftables.ChainPolicyAccept
	}
	b := builder{content: newContent()}
	b.chains[addressedChain], b.chains[inputChain], b.chains[forwardChain] = nftables.ChainPolicyAccept, policy, policy
	var all []netip.Prefix
	for _, s := range r.Sets {
		b.addSet(s.Name, s.Prefixes)
		all = append(all, s.Prefixes...)
	}
	b.addSet(zoned, all)
	b.addBuiltIn()
	for _, f := range r.Input {
		b.addFilter(addressedChain, f)
		b.addFilter(inputChain, f)
	}
	for _, f := range r.Forward {
		b.addFilter(forwardChain, f)
	}
	b.addDefault(mode)
	return b.content, b.err
}

// addDefault appends what becomes of flows that no rule allows.
func (b *builder) addDefault(mode Mode) {
	count := []expr.Any{&expr.Counter{}}
	deny := append(count, &expr.Verdict{Kind: expr.VerdictDrop})
	if mode == Observe {
		// What the addressed chain would drop goes on to be counted by input.
		deny = count
	} else {
		b.add(addressedChain, "default-deny", deny)
	}
	b.add(inputChain, "default-deny", deny)
	b.add(forwardChain, "default-deny", deny)
}

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// addSet makes the two sets of a name.
func (b *builder) addSet(name string, prefixes []netip.Prefix) {
	for _, v6 := range []bool{false, true} {
		s, err := spans(prefixes, v6)
		if err != nil {
			b.fail("set %s: %w", name, err)
		}
		if _, taken := b.sets[setOf(name, v6)]; taken || name == "" {
			b.fail("set %q: the name is taken or empty", name)
		}
		b.sets[setOf(name, v6)] = addressSet{v6: v6, spans: s}
	}
}

// add appends a rule to the chain.
func (b *builder) add(chain, name string, exprs []expr.Any, literals ...*literal) {
	literals = slices.DeleteFunc(literals, func(l *literal) bool { return l == nil })
	r := rule{name: name, exprs: exprs, literal: literals}
	hash := sha256.New()
	fmt.Fprintln(hash, name)
	for _, e := range exprs {
		data, err := expr.Marshal(byte(nftables.TableFamilyINet), e)
		if err != nil {
			b.fail("rule %s of chain %s: %w", name, chain, err)
		}
		fmt.Fprintf(hash, "%x\n", data)
	}
	for _, l := range literals {
		fmt.Fprintln(hash, l.typ, l.interval, l.elements)
	}
	r.mark = string(hash.Sum(nil)[:8])
	b.rules[chain] = append(b.rules[chain], r)
}

// addFilter appends the rules of a filter rule: one for each of the address
// families and protocols that it is about.
func (b *builder) addFilter(chain string, f dataplane.FilterRule) {
	families := []bool{false, true}
	if f.From == "" && f.To == "" && !slices.ContainsFunc(f.Ports, func(p api.PortRange) bool { return p.Protocol == "icmp" }) {
		b.addProtocols(chain, f, nil, false)
		return
	}
	for _, v6 := range families {
		match := family(v6)
		empty := false
		for _, end := range []struct {
			set    string
			source bool
		}{{f.From, true}, {f.To, false}} {
			if end.set == "" {
				continue
			}
			s, known := b.sets[setOf(end.set, v6)]
			if !known {
				b.fail("rule %s: there is no set %q", f.Name, end.set)
			}
			empty = empty || len(s.spans) == 0
			match = append(match, address(v6, end.source), in(setOf(end.set, v6)))
		}
		if !empty {
			b.addProtocols(chain, f, match, v6)
		}
	}
}

// addProtocols appends the rules of one family, whose match is given.
func (b *builder) addProtocols(chain string, f dataplane.FilterRule, match []expr.Any, v6 bool) {
	accept := func(more []expr.Any, l *literal) {
		end := []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}}
		if chain == addressedChain {
			end = end[1:] // input counts it
		}
		b.add(chain, f.Name, slices.Concat(match, more, end), l)
	}
	has := func(protocol string) bool {
		return slices.ContainsFunc(f.Ports, func(p api.PortRange) bool { return p.Protocol == protocol })
	}
	if has("any") {
		accept(nil, nil)
		return
	}
	for _, p := range []struct {
		name   string
		number byte
	}{{"tcp", unix.IPPROTO_TCP}, {"udp", unix.IPPROTO_UDP}} {
		if !has(p.name) {
			continue
		}
		spans, all := portSpans(f.Ports, p.name)
		if all {
			accept(protocol(p.number), nil)
			continue
		}
		ports, l := inPorts(spans)
		accept(slices.Concat(protocol(p.number), []expr.Any{transport(2, 2)}, ports), l)
	}
	if has("icmp") {
		number := byte(unix.IPPROTO_ICMP)
		if v6 {
			number = unix.IPPROTO_ICMPV6
		}
		accept(protocol(number), nil)
	}
}

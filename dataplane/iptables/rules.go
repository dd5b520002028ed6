package iptables

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/ports"
	"github.com/weirproject/weir/dataplane/internal/verdict"
)

// Our chains in place of the built-in ones.
const (
	addressedChain = "WEIR-ADDRESSED" // mangle: before destinations are translated
	inputChain     = "WEIR-INPUT"
	forwardChain   = "WEIR-FORWARD"
	outputChain    = "WEIR-OUTPUT"
	ownChains      = "WEIR-"
)

// hookOf names the built-in chain that jumps to ours.
func hookOf(chain string) string {
	switch chain {
	case addressedChain:
		return "PREROUTING"
	case inputChain:
		return "INPUT"
	case forwardChain:
		return "FORWARD"
	case outputChain:
		return "OUTPUT"
	default:
		return ""
	}
}

// lastTime is the last second that iptables' time match can tell.
var lastTime = time.Date(2038, 1, 19, 3, 14, 7, 0, time.UTC)

// builder writes the rules of one address family.
type builder struct {
	*state
	ruleset *dataplane.Ruleset
	observe bool
	v6      bool
	names   map[string]string // the kernel's names of sets, by first names
	sources map[string]*set   // by first names
	looks   map[string]bool   // first names of the sets that rules look into
	dynamic map[string]bool
	err     error
}

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// match is a list of matches, as iptables reads them.
type match []string

func (m match) and(more ...string) match { return append(slices.Clone(m), more...) }

// chain gives the table and chain of a place.
func (b *builder) table(base string) *chains {
	if base == addressedChain {
		return b.in(table{b.v6, "mangle"})
	}
	return b.in(table{b.v6, "filter"})
}

// add appends a rule. counts says that its counter is the name's.
func (b *builder) add(base, chain, name string, counts bool, m match, target string) {
	if strings.ContainsAny(name, "\n\x00") || len(name) > 200 || name == "" {
		b.fail("rule %q: its name cannot be a comment", name)
		return
	}
	text := strings.TrimSpace(strings.Join(m, " ") + " " + target)
	mark := digest(fmt.Sprint(name, counts, text))[:8]
	if counts {
		mark += "#"
	}
	t := b.table(base)
	t.rules[chain] = append(t.rules[chain], rule{mark: mark, name: name, counts: counts, text: text})
}

// pass ends a rule that accepts: the packet returns to the built-in chain.
const pass = "-j RETURN"

// look matches a set by the source or the destination.
func (b *builder) look(name, ends string, not bool) string {
	first := setName(name, b.v6)
	b.looks[first] = true
	kernel := first
	if b.names[first] != "" {
		kernel = b.names[first]
	}
	if not {
		return "-m set ! --match-set " + kernel + " " + ends
	}
	return "-m set --match-set " + kernel + " " + ends
}

// addressed matches one end by an address set, or the destination by one that
// learns.
func (b *builder) address(what, name string, source, not bool) string {
	end := "dst"
	if source {
		end = "src"
	}
	s := b.sources[setName(name, b.v6)]
	if (s == nil || s.typ != "hash:net") && !(b.dynamic[name] && !source && !not) {
		b.fail("%s: there is no address set %q", what, name)
	}
	return b.look(name, end, not)
}

// build writes the rules of one family.
func (b *builder) build() {
	bases := []string{addressedChain, inputChain, forwardChain}
	if b.ruleset.Inside != "" {
		bases = append(bases, outputChain)
	}
	for _, base := range bases {
		b.table(base).rules[base] = nil
		b.table(base).hooks[hookOf(base)] = 1
		b.addBuiltIn(base)
	}
	for _, f := range b.ruleset.Input {
		if !b.observe { // input counts it
			b.addFilter(addressedChain, f)
		}
		b.addFilter(inputChain, f)
	}
	for _, f := range b.ruleset.Forward {
		b.addFilter(forwardChain, f)
	}
	for _, f := range b.ruleset.Output {
		if b.ruleset.Inside != "" {
			b.addFilter(outputChain, f)
		}
	}
	for _, base := range bases {
		if base != addressedChain || !b.observe {
			b.add(base, base, dataplane.DefaultDeny, false, nil, b.denial(base, dataplane.DefaultDeny))
		}
	}
}

// denial ends a rule that drops: it goes to a chain that logs, counts and
// drops, or lets pass while observing.
func (b *builder) denial(base, name string) string {
	what, target := verdict.Dropped, "-j DROP"
	if b.observe {
		what, target = verdict.Observed, pass
	}
	return b.ending(base, "WEIR-D-", name, what, target)
}

func (b *builder) ending(base, kind, name, what, target string) string {
	chain := kind + digest(name)[:16]
	t := b.table(base)
	if _, there := t.rules[chain]; !there {
		t.rules[chain] = nil
		b.add(base, chain, "log", false, match{fmt.Sprintf("-m limit --limit %d/second --limit-burst %d", verdict.Rate, verdict.Burst)},
			fmt.Sprintf("-j NFLOG --nflog-group %d --nflog-size %d --nflog-prefix %s", verdict.Group, verdict.Bytes,
				quote(verdict.Prefix(what, name, prefixBytes-1))))
		b.add(base, chain, name, true, nil, target)
	}
	return "-g " + chain
}

// addFilter appends the rules for a filter rule: several if it has ports of
// several protocols, or many.
func (b *builder) addFilter(base string, f dataplane.FilterRule) {
	what := "rule " + f.Name
	var m match
	if f.From != "" {
		m = m.and(b.address(what, f.From, true, false))
	}
	if f.To != "" {
		m = m.and(b.address(what, f.To, false, false))
	}
	for _, name := range f.NotFrom {
		m = m.and(b.address(what, name, true, true))
	}
	for _, name := range f.NotTo {
		m = m.and(b.address(what, name, false, true))
	}
	if !f.Expires.IsZero() && !f.Expires.After(lastTime) {
		// The match takes whole seconds, up to the end of this one.
		m = m.and("-m time --datestop " + f.Expires.UTC().Add(-time.Nanosecond).Format("2006-01-02T15:04:05"))
	}
	if len(f.NotPorts) > 0 {
		if f.Ports, f.NotPorts = b.addOthers(base, f, m), nil; len(f.Ports) == 0 {
			return
		}
	}
	if f.Endpoints != "" {
		if s := b.sources[setName(f.Endpoints, b.v6)]; s == nil || s.typ != "hash:ip,port" {
			b.fail("%s: there is no endpoint set %q", what, f.Endpoints)
			return
		}
		look := b.look(f.Endpoints, "dst,dst", false)
		for _, protocol := range []string{"tcp", "udp"} {
			// Other protocols may have something else where ports are.
			with := match{"-p " + protocol}.and(m...).and(look)
			if len(f.Ports) == 0 || has(f.Ports, "any") {
				b.addEnd(base, f, with)
			} else {
				b.addPorts(base, f, m.and(look), protocol)
			}
		}
		return
	}
	if has(f.Ports, "any") {
		b.addEnd(base, f, m)
		return
	}
	b.addPorts(base, f, m, "tcp")
	b.addPorts(base, f, m, "udp")
	if has(f.Ports, "icmp") {
		b.addEnd(base, f, match{"-p " + b.icmp()}.and(m...))
	}
}

// addOthers takes the rule's NotPorts out of its ports and gives what is left.
// It appends the rule for protocols that have no ports. One rule cannot exclude
// several protocols, but several looks at conntrack can.
func (b *builder) addOthers(base string, f dataplane.FilterRule, m match) []api.PortRange {
	some := f.Ports
	if f.Endpoints != "" && len(some) == 0 {
		some = []api.PortRange{{Protocol: "any"}}
	}
	left, others := ports.Minus(some, f.NotPorts)
	if others && f.Endpoints == "" {
		b.addEnd(base, f, match{
			"! -p tcp", "-m conntrack ! --ctproto 17", fmt.Sprintf("-m conntrack ! --ctproto %d", map[bool]int{false: 1, true: 58}[b.v6]),
		}.and(m...))
	}
	return left
}

func (b *builder) icmp() string {
	if b.v6 {
		return "ipv6-icmp"
	}
	return "icmp"
}

func has(ports []api.PortRange, protocol string) bool {
	return slices.ContainsFunc(ports, func(p api.PortRange) bool { return p.Protocol == protocol })
}

// addPorts appends the rules for the ports of one protocol.
func (b *builder) addPorts(base string, f dataplane.FilterRule, m match, protocol string) {
	var list []string
	slots := 0
	flush := func() {
		if len(list) > 0 {
			b.addEnd(base, f, match{"-p " + protocol, "-m multiport --dports " + strings.Join(list, ",")}.and(m...))
		}
		list, slots = nil, 0
	}
	for _, p := range f.Ports {
		switch {
		case p.Protocol != protocol:
			continue
		case p.First == 0 && p.Last == 0:
			b.addEnd(base, f, match{"-p " + protocol}.and(m...))
			return
		}
		text, size := fmt.Sprint(p.First), 1
		if p.First != p.Last {
			text, size = fmt.Sprintf("%d:%d", p.First, p.Last), 2
		}
		if slots+size > 15 { // what the match takes
			flush()
		}
		list, slots = append(list, text), slots+size
	}
	flush()
}

// addEnd appends a rule with its limit and verdict.
func (b *builder) addEnd(base string, f dataplane.FilterRule, m match) {
	if f.Rate > 0 {
		if f.Rate > 1_000_000 {
			b.fail("rule %s: iptables cannot limit to %d flows a second, but to 1000000", f.Name, f.Rate)
		}
		// What the addressed chain counts is counted again by input: each has
		// buckets of its own.
		name := "weir-" + digest(f.Name)[:8]
		if base == addressedChain {
			name = "weira-" + digest(f.Name)[:8]
		}
		m = m.and(fmt.Sprintf("-m hashlimit --hashlimit-upto %d/sec --hashlimit-burst %d --hashlimit-mode srcip --hashlimit-name %s --hashlimit-htable-expire 5000", f.Rate, f.Rate, name))
	}
	switch {
	case f.Deny:
		b.add(base, base, f.Name, false, m, b.denial(base, f.Name))
	case base == addressedChain: // input counts it
		b.add(base, base, f.Name, false, m, pass)
	case f.Log:
		b.add(base, base, f.Name, false, m, b.ending(base, "WEIR-L-", f.Name, verdict.Accepted, pass))
	default:
		b.add(base, base, f.Name, true, m, pass)
	}
}

// quote writes a word as iptables-restore reads it.
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

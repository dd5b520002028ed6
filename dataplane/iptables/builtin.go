package iptables

import (
	"fmt"
	"strings"

	"github.com/weirproject/weir/dataplane"
)

// addBuiltIn appends what comes before the policy's own rules. Replies come
// first, since they are nearly all packets.
func (b *builder) addBuiltIn(base string) {
	add := func(name string, m match) { b.add(base, base, name, false, m, pass) }
	add("established", match{"-m conntrack --ctstate RELATED,ESTABLISHED"})
	add("delivered", match{fmt.Sprintf("-m mark --mark %#x/%#x", dataplane.DeliveredMark, dataplane.DeliveredMark)})
	switch base {
	case addressedChain:
		add("loopback", match{"-i lo"})
		// To judge no more than what others may translate: input sees the rest.
		add("not-addressed", match{"-m addrtype ! --dst-type LOCAL"})
		add("icmp", match{"-p " + b.icmp()})
	case inputChain:
		add("loopback", match{"-i lo"})
		b.addICMP(base)
	case outputChain:
		add("loopback", match{"-o lo"})
		b.addICMP(base)
	}
	if base == addressedChain && b.observe {
		return
	}
	b.add(base, base, dataplane.Invalid, false, match{"-m conntrack --ctstate INVALID"}, b.denial(base, dataplane.Invalid))
	if base != outputChain {
		b.addGuards(base)
	}
	if base == addressedChain || base == inputChain {
		from, to := 67, 68 // answers to the node's own DHCP client
		if b.v6 {
			from, to = 547, 546
		}
		add("dhcp-client", match{fmt.Sprintf("-p udp -m udp --sport %d --dport %d", from, to)})
	}
	if base == inputChain || base == outputChain {
		group := "224.0.0.18/32"
		if b.v6 {
			group = "ff02::12/128"
		}
		// Edge nodes must hear each other's VRRP (RFC 9568).
		add("edge-elections", match{"-d " + group, "-p 112"})
	}
	if base == forwardChain {
		b.addOutsideZones(add)
	}
	if base == outputChain {
		add("inside", match{b.address("inside", b.ruleset.Inside, false, false)})
		for _, p := range linkAlone(b.v6) {
			add("link", match{"-d " + p})
		}
	}
}

// addOutsideZones leaves flows that touch no zone to whoever routes them.
func (b *builder) addOutsideZones(add func(string, match)) {
	if b.ruleset.Zoned == "" {
		add("outside-zones", nil)
		return
	}
	add("outside-zones", match{b.address("zoned", b.ruleset.Zoned, true, true), b.address("zoned", b.ruleset.Zoned, false, true)})
}

// linkAlone are destinations that no router passes on.
func linkAlone(v6 bool) []string {
	if v6 {
		return []string{"ff00::/8", "fe80::/10"}
	}
	return []string{"224.0.0.0/4", "255.255.255.255/32", "169.254.0.0/16"}
}

// addICMP appends the ICMPv6 of the link, which conntrack does not follow, and
// the errors without which connections hang.
func (b *builder) addICMP(base string) {
	kind := "-p icmp -m icmp --icmp-type"
	if b.v6 {
		kind = "-p ipv6-icmp -m icmp6 --icmpv6-type"
		for t := 133; t <= 136; t++ { // router and neighbour, solicitation and advertisement
			b.add(base, base, "neighbours", false, match{fmt.Sprint(kind, " ", t), "-m hl --hl-eq 255"}, pass)
		}
		for _, t := range []int{130, 131, 132, 143} { // multicast listeners
			m := match{fmt.Sprint(kind, " ", t)}
			if base == inputChain {
				m = match{"-s fe80::/10"}.and(m...)
			}
			b.add(base, base, "multicast-listeners", false, m, pass)
		}
	}
	for _, t := range dataplane.NeededICMP(b.v6) {
		b.add(base, base, "needed-icmp", false, match{fmt.Sprint(kind, " ", t)}, pass)
	}
}

// addGuards drops what claims a source that cannot come from where it came in.
func (b *builder) addGuards(base string) {
	for _, g := range b.ruleset.Guards {
		chain := "WEIR-G-" + digest(fmt.Sprint(g.Name, g.Sources, g.Interfaces))[:16]
		t := b.table(base)
		if _, there := t.rules[chain]; !there {
			t.rules[chain] = nil
			for _, name := range g.Interfaces {
				if wild, ok := strings.CutSuffix(name, "*"); ok {
					name = wild + "+"
				}
				b.add(base, chain, "guard", false, match{"-i " + name}, pass)
			}
			b.add(base, chain, dataplane.Spoofed, false, nil, b.denial(base, dataplane.Spoofed))
		}
		b.add(base, base, "guard", false, match{b.address("guard "+g.Name, g.Sources, true, false)}, "-j "+chain)
	}
}

package zones

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

func TestDecideExample(t *testing.T) {
	for _, c := range []struct{ from, to, port, rule string }{
		{"203.0.113.3", "10.80.0.2", "tcp/22", "ops"},
		{"203.0.113.3", "203.0.113.2", "tcp/443", "ops"},
		{"203.0.113.3", "10.80.0.2", "tcp/23", ""},
		{"203.0.113.3", "10.80.0.2", "udp/22", ""},
		{"203.0.113.9", "10.80.0.2", "tcp/22", ""},
		{"203.0.113.9", "203.0.113.31", "tcp/80", "edge"},
		{"::ffff:203.0.113.9", "203.0.113.31", "tcp/80", "edge"},
		{"203.0.113.9", "203.0.113.31", "icmp", ""},
		{"10.80.0.12", "10.80.0.11", "icmp", "inner"},
		{"10.80.0.12", "10.80.0.11", "any", "inner"},
		{"10.80.0.12", "fd80::11", "tcp/80", ""},
		{"fd80::11", "fd80::11", "tcp/80", "inner"},
		{"8.8.8.8", "9.9.9.9", "tcp/80", ""},
	} {
		verdict, rule := Decide(example(), fleet(), addrs(c.from)[0], addrs(c.to)[0], port(c.port))
		if rule != c.rule || (verdict == api.Allow) != (c.rule != "") {
			t.Errorf("%s → %s %s: %s by %q, want rule %q", c.from, c.to, c.port, verdict, rule, c.rule)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		asked   string
		allowed []string
		want    bool
	}{
		{"tcp/80", names("tcp/80"), true},
		{"tcp/80", names("udp/80"), false},
		{"tcp/80", names("tcp"), true},
		{"tcp/80", names("any"), true},
		{"tcp", names("tcp/1-65535"), false}, // port 0 is a port
		{"tcp", names("udp", "tcp"), true},
		{"tcp/1-100", names("tcp/50-100", "tcp/1-49"), true},
		{"tcp/1-100", names("tcp/51-100", "tcp/1-49"), false},
		{"tcp/65535", names("tcp/65000-65535"), true},
		{"icmp", names("icmp"), true},
		{"icmp", names("tcp", "udp"), false},
		{"any", names("tcp", "udp", "icmp"), false},
	} {
		if got := covers(rule("", nil, nil, c.allowed...).Allow, port(c.asked)); got != c.want {
			t.Errorf("%v covers %s: got %t", c.allowed, c.asked, got)
		}
	}
}

// judge is what a filter makes of a ruleset: an interpreter for the test.
func judge(r *dataplane.Ruleset, here bool, from, to netip.Addr, p api.PortRange) (api.Verdict, string) {
	in := func(set string, a netip.Addr) bool {
		for _, s := range r.Sets {
			for _, prefix := range s.Prefixes {
				if s.Name == set && prefix.Contains(a) {
					return true
				}
			}
		}
		return set == ""
	}
	rules := r.Forward
	if here {
		rules = r.Input
	}
	for _, f := range rules {
		for _, allowed := range f.Ports {
			fits := allowed.Protocol == "any" || allowed.Protocol == p.Protocol &&
				(allowed.First == 0 && allowed.Last == 0 || allowed.First <= p.First && p.First <= allowed.Last)
			if fits && in(f.From, from) && in(f.To, to) {
				return api.Allow, f.Name
			}
		}
	}
	return api.Deny, ""
}

// chance makes up small policies in a small world, so that things overlap.
type chance struct{ *rand.Rand }

func (c chance) addr() netip.Addr {
	if c.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10, 0, 0, byte(c.IntN(16))})
	}
	return netip.AddrFrom16([16]byte{0xfd, 15: byte(c.IntN(16))})
}

func (c chance) policy() (*api.Policy, []api.Node) {
	var nodes []api.Node
	for i := range 1 + c.IntN(5) {
		n := api.Node{Name: fmt.Sprint("n", i), Zone: string(rune('x' + c.IntN(3)))}
		for range 1 + c.IntN(3) {
			n.Addresses = append(n.Addresses, c.addr())
		}
		nodes = append(nodes, n)
	}
	p := &api.Policy{Zones: map[string]api.Zone{}}
	all := names("any")
	for i := range 1 + c.IntN(4) {
		z := api.Zone{}
		if c.IntN(3) > 0 {
			z.Nodes = &api.NodeSelector{Zone: string(rune('x' + c.IntN(3)))}
		}
		for range c.IntN(3) {
			a := c.addr()
			z.CIDRs = append(z.CIDRs, netip.PrefixFrom(a, a.BitLen()-c.IntN(5)).Masked())
		}
		all = append(all, fmt.Sprint("z", i))
		p.Zones[fmt.Sprint("z", i)] = z
	}
	pick := func() (some []string) {
		for range 1 + c.IntN(2) {
			some = append(some, all[c.IntN(len(all))])
		}
		return some
	}
	ports := names("tcp/80", "tcp/80-90", "tcp", "udp/53", "icmp", "any")
	for i := range c.IntN(4) {
		p.Rules = append(p.Rules, rule(fmt.Sprint("r", i), pick(), pick(), ports[c.IntN(6)], ports[c.IntN(5)]))
	}
	return p, nodes
}

func TestRulesetsMeanWhatDecideSays(t *testing.T) {
	for seed := range uint64(400) {
		c := chance{rand.New(rand.NewPCG(seed, 1))}
		p, nodes := c.policy()
		self := nodes[c.IntN(len(nodes))]
		r, err := Compile(p, nodes, self)
		if err != nil {
			t.Fatal(err)
		}
		for range 60 {
			from, to := c.addr(), c.addr()
			if from.Is4() != to.Is4() {
				continue
			}
			asked := port(names("tcp/80", "tcp/85", "tcp/22", "udp/53", "udp/54", "icmp")[c.IntN(6)])
			here := false
			for _, a := range self.Addresses {
				here = here || a == to
			}
			wantVerdict, wantRule := Decide(p, nodes, from, to, asked)
			gotVerdict, gotRule := judge(r, here, from, to, asked)
			if gotVerdict != wantVerdict || gotRule != wantRule {
				t.Fatalf("seed %d: %s → %s %s: the ruleset says %s by %q, Decide %s by %q\npolicy %+v\nruleset %+v",
					seed, from, to, asked, gotVerdict, gotRule, wantVerdict, wantRule, p, r)
			}
		}
	}
}

// A test between zones must see every address in them that is judged
// otherwise.
func TestRepresentativesStandForAll(t *testing.T) {
	for seed := range uint64(300) {
		c := chance{rand.New(rand.NewPCG(seed, 2))}
		p, nodes := c.policy()
		a := newAtlas(p, nodes)
		for _, name := range a.names {
			z := p.Zones[name]
			e, err := a.endpoint(name)
			found := map[string]bool{}
			for _, rep := range e.addrs {
				found[fmt.Sprint(rep.Is4(), a.zonesOf(rep))] = true
				if !contains(z, nodes, rep) {
					t.Fatalf("seed %d: %s stands for zone %s, but is not in it", seed, rep, name)
				}
			}
			for i := range 32 {
				addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
				if i >= 16 {
					addr = netip.AddrFrom16([16]byte{0xfd, 15: byte(i - 16)})
				}
				if contains(z, nodes, addr) && !found[fmt.Sprint(addr.Is4(), a.zonesOf(addr))] {
					t.Fatalf("seed %d: nothing stands for %s in zone %s of %+v (%v)", seed, addr, name, p, err)
				}
			}
		}
	}
}

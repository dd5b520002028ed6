package zones

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

func TestRulesetsMeanWhatDecideSays(t *testing.T) {
	hooks := map[Hook]int{}
	for seed := range uint64(2000) {
		c := newChance(seed)
		p, s := c.policy(), c.state()
		if err := p.Validate(); err != nil && len(p.Zones) > 0 {
			for _, f := range api.FieldErrors(err) {
				if f.Reason != "has no members: give nodes, apps, services, cidrs or lists" {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		}
		self := s.Nodes[c.IntN(len(s.Nodes))]
		compiled, err := new(Compiler).Compile(p, s, Options{Self: self, Now: someTime})
		if err != nil {
			t.Fatal(err)
		}
		compareAll(t, c, seed, p, s, self, compiled.Ruleset, hooks)
	}
	for _, h := range []Hook{Input, Forward, Output} {
		if hooks[h] < 1000 {
			t.Errorf("only %d packets were compared at %s", hooks[h], h)
		}
	}
}

// compareAll sends packets through the ruleset and expects what Decide says.
func compareAll(t *testing.T, c chance, seed uint64, p *api.Policy, s State, self api.Node, r *dataplane.Ruleset, hooks map[Hook]int) {
	t.Helper()
	m := machine{Ruleset: r, learnt: map[string][]netip.Addr{}, now: someTime}
	for _, d := range r.Dynamic {
		for name, addresses := range s.Learnt {
			if slices.Contains(d.Names, name) || slices.Contains(d.Names, "*.example.com") {
				m.learnt[d.Name] = append(m.learnt[d.Name], addresses...)
			}
		}
	}
	v := Bind(p, s, someTime)
	for range 60 {
		packet := c.packet()
		packet.Node = self
		switch {
		case slices.Contains(self.Addresses, packet.To):
		case slices.Contains(self.Addresses, packet.From):
			packet.Hook = Output
		default:
			packet.Hook = Forward
		}
		hooks[packet.Hook]++
		want := v.Decide(packet)
		verdict, rule := m.judge(packet.Hook, packet.From, packet.To, packet.Port.Protocol, packet.Port.First)
		if verdict != want.Verdict || rule != want.Rule {
			t.Fatalf("seed %d: %s → %s %s at %s of %s: the ruleset says %s by %q, Decide %s by %q\npolicy %s\nstate %s\nruleset %s",
				seed, packet.From, packet.To, packet.Port, packet.Hook, self.Name, verdict, rule, want.Verdict, want.Rule, show(p), show(s), show(*r))
		}
	}
}

package zones

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
)

// has tells whether the ends have the address, in the view that they name zones
// of.
func (e Ends) has(a netip.Addr, v, other *View) bool {
	if slices.ContainsFunc(e.But, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return false
	}
	for _, z := range e.Zones {
		switch z {
		case api.AnyZone:
			return true
		case OutsideZones:
			if !v.zoned.contains(a) && !other.zoned.contains(a) {
				return true
			}
		default:
			if v.end(z).contains(a) {
				return true
			}
		}
	}
	return slices.ContainsFunc(e.Blocks, func(p netip.Prefix) bool { return p.Contains(a) })
}

func TestDiffIsWhatDecideSaysOtherwise(t *testing.T) {
	differ := 0
	for seed := range uint64(150) {
		c := newChance(seed)
		s := c.state()
		old, now := Bind(c.policy(), s, someTime), Bind(c.policy(), s, someTime)
		if c.IntN(3) == 0 { // something small is changed
			p := *old.policy
			p.Rules = append(slices.Clone(p.Rules), c.rule("more", []string{"any", "z0", "web.shop"}))
			now = Bind(&p, s, someTime)
		}
		change := Diff(old, now)
		in := func(all []Flow, p Packet) int {
			n := 0
			for _, f := range all {
				if f.Via == "" && f.Family != map[bool]string{true: "ipv6", false: "ipv4"}[p.From.Is4()] && f.From.has(p.From, now, old) && f.To.has(p.To, now, old) && portsOf(f.Ports2()).covers(portsOf([]api.PortRange{p.Port})) {
					n++
				}
			}
			return n
		}
		for range 60 {
			p := c.packet()
			p.Hook = old.hookOf(p.From, p.To)
			before, after := old.Decide(p).Verdict, now.Decide(p).Verdict
			allowed, denied := 0, 0
			if before != after {
				differ++
				if after == api.Allow {
					allowed = 1
				} else {
					denied = 1
				}
			}
			if a, d := in(change.Allowed, p), in(change.Denied, p); a != allowed || d != denied {
				t.Fatalf("seed %d: %s → %s %s was %s and is %s, but is in %d newly allowed flows and %d denied ones\n%s\nold %s\nnew %s\nstate %s",
					seed, p.From, p.To, p.Port, before, after, a, d, change, show(old.policy), show(now.policy), show(s))
			}
		}
		if back := Diff(now, now); !back.Empty() {
			t.Fatalf("seed %d: a policy differs from itself: %s", seed, back)
		}
	}
	if differ < 300 {
		t.Errorf("only %d packets were judged otherwise", differ)
	}
}

// Ports2 are the ports without the word "other".
func (f Flow) Ports2() []api.PortRange {
	return slices.DeleteFunc(slices.Clone(f.Ports), func(p api.PortRange) bool { return p.Protocol == "other" })
}

func TestDiffSpeaksOfMeaning(t *testing.T) {
	change := func(p *api.Policy) *api.Policy {
		c := *p
		c.Rules = slices.Clone(p.Rules)
		return &c
	}
	same := change(example())
	same.Rules = []api.Rule{
		rule("inner-a", names("admin", "public"), names("private"), "any"),
		rule("inner-b", names("private"), names("private"), "tcp", "any"),
		rule("web", names("any"), names("public"), "tcp/80"), rule("tls", names("any"), names("public"), "tcp/443"),
		rule("ops", names("203.0.113.0/30", "203.0.113.4/30"), names("admin"), "tcp/22", "tcp/443"),
	}
	more := change(example())
	more.Rules = append(more.Rules, rule("ssh", names("198.51.100.0/24", "office"), names("private", "admin"), "tcp/20-25"))
	less := change(example())
	less.Rules[1] = rule("edge", names("any"), names("public"), "tcp/443")
	relayed := change(example())
	relayed.Forward = []api.ForwardRule{{Rule: rule("in", names("office"), names("private"), "tcp/8080"), Via: names("public")}}
	for _, c := range []struct {
		name string
		to   *api.Policy
		want string
	}{
		{"the same in other words", same, ""},
		{"more", more, `
+ 198.51.100.0/24 → admin: tcp/20-25
+ office, 198.51.100.0/24 → private: tcp/20-25
+ office → admin: tcp/20-21 tcp/23-25`},
		{"less", less, `
- any → public: tcp/80`},
		{"none", nil, ""},
		{"relayed", relayed, `
+ office → private: tcp/8080
+ office → private: tcp/8080 (passed on by public)`},
	} {
		s := State{Nodes: fleet()}
		for i := range s.Nodes { // one network each
			s.Nodes[i].Addresses = s.Nodes[i].Addresses[:1]
		}
		if c.to == nil {
			continue
		}
		got := Diff(Bind(example(), s, someTime), Bind(c.to, s, someTime)).String()
		if got != strings.TrimPrefix(c.want+"\n", "\n") {
			t.Errorf("%s: got\n%s\nwant%s", c.name, got, c.want)
		}
	}
	if d := Diff(Bind(nil, State{}, someTime), Bind(nil, State{}, someTime)); !d.Empty() {
		t.Errorf("no policy differs from none: %s", d)
	}
}

package zones

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

func compile(t testing.TB, p *api.Policy, s State, self api.Node) *dataplane.Ruleset {
	t.Helper()
	r, err := new(Compiler).Compile(p, s, Options{Self: self, Now: someTime})
	if err != nil {
		t.Fatal(err)
	}
	return r.Ruleset
}

// withoutDeltas is the ruleset as it is when it is compiled for the first time.
func withoutDeltas(r dataplane.Ruleset) dataplane.Ruleset {
	r.Sets = slices.Clone(r.Sets)
	for i := range r.Sets {
		r.Sets[i].Delta = nil
		r.Sets[i].Prefixes, r.Sets[i].Pieces = slices.Collect(r.Sets[i].All()), nil
	}
	return r
}

func TestChangesLeadToWhatIsCompiledAnew(t *testing.T) {
	for seed := range uint64(300) {
		c := newChance(seed)
		p, s := c.policy(), c.state()
		self := s.Nodes[0]
		o := Options{Self: self, Now: someTime.Add(-2 * time.Hour), Links: []Link{{"eth0", prefixes("10.0.0.1/28")}, {"eth1", prefixes("fd00::1/120")}}}
		compiler := new(Compiler)
		var last *dataplane.Ruleset
		var before []api.Node
		for step := range 12 {
			inOrder := slices.IsSortedFunc(s.Nodes, func(a, b api.Node) int { return max(strings.Compare(a.Name, b.Name), -1) })
			if o.Changed = nil; seed%2 == 0 && step > 0 && inOrder && slices.IsSortedFunc(before, func(a, b api.Node) int { return strings.Compare(a.Name, b.Name) }) {
				o.Changed = differing(before, s.Nodes)
			}
			before = s.Nodes
			got, err := compiler.Compile(p, s, o)
			if err != nil {
				t.Fatal(err)
			}
			o.Changed = nil
			want, _ := new(Compiler).Compile(p, s, o)
			if g, w := withoutDeltas(*got.Ruleset), withoutDeltas(*want.Ruleset); !reflect.DeepEqual(g, w) || !got.Next.Equal(want.Next) {
				t.Fatalf("seed %d, step %d: got\n%s\nwant\n%s", seed, step, show(g), show(w))
			}
			if last != nil {
				checkDeltas(t, last, got.Ruleset)
			}
			last, s, o.Now = got.Ruleset, c.changed(s), o.Now.Add(time.Duration(c.IntN(50))*time.Minute)
		}
	}
}

// differing are the names of nodes that are not the same in both.
func differing(a, b []api.Node) []string {
	names := []string{}
	for _, x := range [][2][]api.Node{{a, b}, {b, a}} {
		for _, n := range x[0] {
			if !slices.ContainsFunc(x[1], func(o api.Node) bool { return reflect.DeepEqual(n, o) }) {
				names = append(names, n.Name)
			}
		}
	}
	return names
}

// checkDeltas holds versions and deltas to what they promise.
func checkDeltas(t *testing.T, old, now *dataplane.Ruleset) {
	t.Helper()
	for _, s := range now.Sets {
		i := slices.IndexFunc(old.Sets, func(o dataplane.AddressSet) bool { return o.Name == s.Name })
		if i < 0 {
			continue
		}
		before, after := slices.Collect(old.Sets[i].All()), slices.Collect(s.All())
		if same := slices.Equal(before, after); same != (old.Sets[i].Version == s.Version) {
			t.Fatalf("set %s: versions %d and %d for %v and %v", s.Name, old.Sets[i].Version, s.Version, before, after)
		}
		if d := s.Delta; d != nil && d.From == old.Sets[i].Version {
			all := slices.Concat(before, d.Added)
			all = slices.DeleteFunc(all, func(p netip.Prefix) bool { return slices.Contains(d.Removed, p) })
			slices.SortFunc(all, comparePrefix)
			if !slices.Equal(all, after) || len(all) != len(before)+len(d.Added)-len(d.Removed) {
				t.Fatalf("set %s: %v with +%v -%v is not %v", s.Name, before, d.Added, d.Removed, after)
			}
		}
	}
}

// changed is the state with something else in it.
func (c chance) changed(s State) State {
	s.Nodes, s.Services, s.Apps = slices.Clone(s.Nodes), slices.Clone(s.Services), slices.Clone(s.Apps)
	switch c.IntN(7) {
	case 0: // a node comes
		s.Nodes = append(s.Nodes, api.Node{Name: fmt.Sprint("m", c.IntN(1000)), Zone: c.one("x", "y"), Addresses: []netip.Addr{c.addr()}})
		if c.IntN(4) > 0 { // as it should be; or not
			slices.SortFunc(s.Nodes, func(a, b api.Node) int { return strings.Compare(a.Name, b.Name) })
		}
	case 1: // a node goes
		if len(s.Nodes) > 1 {
			s.Nodes = slices.Delete(s.Nodes, 1, 2)
		}
	case 2: // a node changes
		i := c.IntN(len(s.Nodes))
		s.Nodes[i].Addresses = append(slices.Clone(s.Nodes[i].Addresses), c.addr())
	case 3: // a node moves
		s.Nodes[c.IntN(len(s.Nodes))].Zone = c.one("x", "y", "z")
	case 4: // backends change
		if len(s.Services) > 0 {
			i := c.IntN(len(s.Services))
			s.Services[i].Backends = append(slices.Clone(s.Services[i].Backends), api.Backend{Address: netip.AddrPortFrom(c.addr(), 80), Node: "n0"})
			if n := len(s.Services[i].Backends); c.IntN(2) == 0 && n > 1 {
				s.Services[i].Backends = s.Services[i].Backends[n/2:]
			}
		}
	case 5:
		s.Apps = append(s.Apps, App{ID: "/shop/new", Labels: map[string]string{"tier": "front"}, Instances: []Instance{{c.addr(), c.one("n0", "")}}})
	case 6:
		s.Own = []netip.AddrPort{netip.AddrPortFrom(c.addr(), 53)}
	}
	return s
}

func TestNoPolicyIsNoRuleset(t *testing.T) {
	if r := compile(t, nil, State{Nodes: fleet()}, fleet()[0]); r != nil {
		t.Errorf("got %+v, want nil", r)
	}
	if d := Bind(nil, State{}, someTime).Decide(Packet{From: addrs("10.0.0.1")[0], To: addrs("10.0.0.2")[0], Port: port("tcp/1")}); d.Verdict != api.Allow || d.Rule != "" {
		t.Errorf("got %+v, want allow", d)
	}
}

func TestRulesDoNotGrowWithMembers(t *testing.T) {
	nodes := fleet()
	small := compile(t, example(), State{Nodes: nodes}, nodes[0])
	for i := range 1000 {
		nodes = append(nodes, api.Node{Name: fmt.Sprint("m", i), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 81, byte(i >> 7), byte(i << 1)})}})
	}
	large := compile(t, example(), State{Nodes: nodes}, nodes[0])
	if !reflect.DeepEqual(small.Input, large.Input) || !reflect.DeepEqual(small.Forward, large.Forward) {
		t.Error("1000 members more changed the rules")
	}
	slices.Reverse(nodes)
	if again := compile(t, example(), State{Nodes: nodes}, fleet()[0]); !reflect.DeepEqual(withoutDeltas(*large), withoutDeltas(*again)) {
		t.Error("the order of the nodes changed the ruleset")
	}
}

func TestCompileRefusesNamesItCannotUse(t *testing.T) {
	p := example()
	p.Rules = append(p.Rules, rule("default-deny", names("office"), names("lost"), "any"))
	_, err := new(Compiler).Compile(p, State{Nodes: fleet()}, Options{Self: fleet()[0]})
	var got []string
	for _, f := range api.FieldErrors(err) {
		got = append(got, f.Error())
	}
	want := []string{`rules[3].name: "default-deny" is the name of a built-in rule`, `rules[3].to[0]: there is no zone "lost"`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRulesExpire(t *testing.T) {
	p := example()
	p.Rules[0].Expires = api.Time{Time: someTime.Add(time.Hour)}
	p.Rules[1].Expires = api.Time{Time: someTime.Add(2 * time.Hour)}
	c, self := new(Compiler), fleet()[2]
	has := func(r *dataplane.Ruleset, name string) bool {
		return slices.ContainsFunc(slices.Concat(r.Input, r.Forward), func(f dataplane.FilterRule) bool { return f.Name == name })
	}
	for _, step := range []struct {
		now       time.Duration
		ops, edge bool
		next      time.Duration
	}{{0, true, true, 1}, {1, false, true, 2}, {0, true, true, 1}, {3, false, false, 0}} {
		r, err := c.Compile(p, State{Nodes: fleet()}, Options{Self: self, Now: someTime.Add(step.now * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		next := r.Next.Sub(someTime)
		if r.Next.IsZero() {
			next = 0
		}
		if has(r.Ruleset, "ops") != step.ops || has(r.Ruleset, "edge") != step.edge || next != step.next*time.Hour {
			t.Errorf("after %d h: ops %t, edge %t, next after %s; want %+v", step.now, has(r.Ruleset, "ops"), has(r.Ruleset, "edge"), next, step)
		}
	}
}

func TestGuards(t *testing.T) {
	p := example()
	office := p.Zones["office"]
	office.Interfaces = []string{"wan*"}
	p.Zones["office"] = office
	links := []Link{
		{"lan0", prefixes("10.80.0.31/24", "fe80::1/64")}, {"wan0", prefixes("203.0.113.31/24", "198.51.100.1/32")},
		{"vpn0", prefixes("10.0.0.1/8")}, {"lan1", prefixes("10.80.0.32/24")},
	}
	r, err := new(Compiler).Compile(p, State{Nodes: fleet()}, Options{Self: fleet()[3], Links: links})
	if err != nil {
		t.Fatal(err)
	}
	m := machine{Ruleset: r.Ruleset}
	for _, c := range []struct {
		from, on string
		want     bool
	}{
		{"10.80.0.11", "wan0", true}, {"10.80.0.11", "lan0", false}, {"10.80.0.11", "lan1", false}, {"10.80.0.11", "vpn0", true},
		{"10.9.0.1", "vpn0", false}, {"10.9.0.1", "lan0", true}, {"203.0.113.3", "lan0", true}, {"203.0.113.3", "wan7", true},
		{"203.0.113.3", "wan0", false}, {"8.8.8.8", "lan0", false}, {"198.51.100.1", "lan0", false}, {"fe80::2", "wan0", false},
	} {
		if got := m.spoofed(addrs(c.from)[0], c.on); got != c.want {
			t.Errorf("%s on %s: spoofed %t, want %t", c.from, c.on, got, c.want)
		}
	}
}

func TestSetNames(t *testing.T) {
	long := "longlonglonglonglonglonglonglonglonglonglonglong"
	seen := map[string]string{}
	for _, zone := range names("private", "2nd", "z-2nd", long, long+"a", "list", "svc", "ep") {
		seen[setName(zone)] = zone
	}
	for _, key := range names("web.shop", "web-shop.x", "w.e.b", long+".x", long+".y") {
		for _, kind := range names("svc", "ep", "list", "dns") {
			seen[namedSet(kind, key)] = kind + key
		}
	}
	if len(seen) != 8+5*4 {
		t.Errorf("names collide: %v", seen)
	}
	for name := range seen {
		if len(name) > 29 || name[0] < 'a' || name[0] > 'z' {
			t.Errorf("the set's name %q is too long or starts wrongly", name)
		}
	}
}

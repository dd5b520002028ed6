package zones

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
)

var update = flag.Bool("update", false, "write the golden files")

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func port(text string) api.PortRange {
	p, err := api.ParsePortRange(text)
	if err != nil {
		panic(err)
	}
	return p
}

func names(all ...string) []string { return all }

func rule(name string, from, to []string, ports ...string) api.Rule {
	r := api.Rule{Name: name, From: from, To: to}
	for _, p := range ports {
		r.Allow = append(r.Allow, port(p))
	}
	return r
}

// fleet and example are those of the design.
func fleet() []api.Node {
	return []api.Node{
		{Name: "a1", Addresses: addrs("10.80.0.11", "fd80::11"), Attributes: map[string]string{"rack": "r1"}},
		{Name: "a2", Addresses: addrs("10.80.0.12")},
		{Name: "c1", Role: api.RoleController, Addresses: addrs("10.80.0.2", "203.0.113.2")},
		{Name: "p1", Role: api.RolePublic, Addresses: addrs("10.80.0.31", "203.0.113.31")},
	}
}

func example() *api.Policy {
	return &api.Policy{
		Zones: map[string]api.Zone{
			"admin":   {Nodes: &api.NodeSelector{Role: api.RoleController}},
			"private": {Nodes: &api.NodeSelector{Role: api.RoleAgent}},
			"public":  {Nodes: &api.NodeSelector{Role: api.RolePublic}},
			"office":  {CIDRs: prefixes("203.0.113.0/29")},
		},
		Rules: []api.Rule{
			rule("ops", names("office"), names("admin"), "tcp/22", "tcp/443"),
			rule("edge", names("any"), names("public"), "tcp/80", "tcp/443"),
			rule("inner", names("admin", "public", "private"), names("private"), "any"),
		},
		Tests: []api.PolicyTest{
			{From: "203.0.113.3", To: "admin", Port: port("tcp/22"), Expect: api.Allow},
			{From: "203.0.113.9", To: "private", Port: port("tcp/22"), Expect: api.Deny},
		},
	}
}

func TestCompileExample(t *testing.T) {
	for _, self := range fleet() {
		t.Run(self.Name, func(t *testing.T) {
			r, err := Compile(example(), fleet(), self)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(r, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", self.Name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("the ruleset differs from %s:\n%s", file, got)
			}
		})
	}
}

func TestNoPolicyIsNoRuleset(t *testing.T) {
	if r, err := Compile(nil, fleet(), fleet()[0]); r != nil || err != nil {
		t.Errorf("got %+v, %v; want nil, nil", r, err)
	}
	if v, rule := Decide(nil, nil, addrs("10.0.0.1")[0], addrs("10.0.0.2")[0], port("tcp/1")); v != api.Allow || rule != "" {
		t.Errorf("got %s by %q, want allow", v, rule)
	}
	if err := Check(nil, nil); err != nil {
		t.Error(err)
	}
}

func TestRulesDoNotGrowWithMembers(t *testing.T) {
	nodes := fleet()
	small, err := Compile(example(), nodes, nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		nodes = append(nodes, api.Node{Name: fmt.Sprint("m", i), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 81, byte(i >> 7), byte(i << 1)})}})
	}
	large, err := Compile(example(), nodes, nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(small.Input, large.Input) || !reflect.DeepEqual(small.Forward, large.Forward) {
		t.Error("1000 members more changed the rules")
	}
	slices.Reverse(nodes)
	again, err := Compile(example(), nodes, fleet()[0])
	if err != nil || !reflect.DeepEqual(large, again) {
		t.Errorf("the order of the nodes changed the ruleset (%v)", err)
	}
}

func TestCompileRefusesNamesItCannotUse(t *testing.T) {
	p := example()
	p.Rules = append(p.Rules, rule("default-deny", names("office"), names("lost"), "any"))
	_, err := Compile(p, fleet(), fleet()[0])
	var got []string
	for _, f := range api.FieldErrors(err) {
		got = append(got, f.Error())
	}
	want := []string{`rules[3].name: "default-deny" is the name of a built-in rule`, `rules[3].to[0]: there is no zone "lost"`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMerge(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"10.0.0.1/32 10.0.0.1/32", "10.0.0.1/32"},
		{"10.0.0.0/8 10.1.2.3/32 9.0.0.0/8", "9.0.0.0/8 10.0.0.0/8"},
		{"10.0.0.0/32 10.0.0.1/32 10.0.0.2/31", "10.0.0.0/30"},
		{"10.0.0.1/32 10.0.0.2/32", "10.0.0.1/32 10.0.0.2/32"},
		{"::/1 8000::/1 128.0.0.0/1 0.0.0.0/1", "0.0.0.0/0 ::/0"},
		{"fd00::/64 10.0.0.0/8 fd00::1/128", "10.0.0.0/8 fd00::/64"},
	} {
		var got []string
		for _, p := range merge(prefixes(strings.Fields(c.in)...)) {
			got = append(got, p.String())
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("merge %q: got %q, want %q", c.in, text, c.want)
		}
	}
}

func TestSetNames(t *testing.T) {
	long := strings.Repeat("long", 15)
	zones := names("private", "2nd", "z-2nd", long, long+"a", strings.Repeat("b", 29), strings.Repeat("b", 30), "-")
	seen := map[string]string{}
	for _, zone := range zones {
		name := setName(zone)
		if len(name) > 29 || name[0] < 'a' || name[0] > 'z' {
			t.Errorf("zone %s: the set's name %q is too long or starts wrongly", zone, name)
		}
		if other, taken := seen[name]; taken {
			t.Errorf("zones %s and %s share the set %q", zone, other, name)
		}
		seen[name] = zone
	}
	if got := setName("private"); got != "private" {
		t.Errorf("got %q, want the plain name", got)
	}
}

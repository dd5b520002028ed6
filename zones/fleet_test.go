package zones

import (
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
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

func traffic(text string) api.Traffic {
	t, err := api.ParseTraffic(text)
	if err != nil {
		panic(err)
	}
	return t
}

func names(all ...string) []string { return all }

func rule(name string, from, to []string, ports ...string) api.Rule {
	r := api.Rule{Name: name, From: from, To: to}
	for _, p := range ports {
		r.Allow = append(r.Allow, traffic(p))
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

// list writes a ruleset for people, a line for each set and rule.
func list(r *dataplane.Ruleset) string {
	var b strings.Builder
	for _, s := range r.Sets {
		fmt.Fprintf(&b, "set %s %v\n", s.Name, slices.Collect(s.All()))
	}
	for _, s := range r.Endpoints {
		fmt.Fprintf(&b, "endpoints %s %v\n", s.Name, s.Endpoints)
	}
	for _, s := range r.Dynamic {
		fmt.Fprintf(&b, "dynamic %s %v\n", s.Name, s.Names)
	}
	fmt.Fprintf(&b, "zoned %s, inside %s, guards %v\n", r.Zoned, r.Inside, r.Guards)
	for hook, rules := range [][]dataplane.FilterRule{r.Input, r.Forward, r.Output} {
		for _, f := range rules {
			fmt.Fprintf(&b, "%s %s:", []string{"input", "forward", "output"}[hook], f.Name)
			for _, part := range []struct {
				word string
				is   bool
				what any
			}{
				{"from", f.From != "", f.From}, {"not", len(f.NotFrom) > 0, f.NotFrom}, {"to", f.To != "", f.To}, {"not", len(f.NotTo) > 0, f.NotTo},
				{"at", f.Endpoints != "", f.Endpoints}, {"ports", len(f.Ports) > 0, f.Ports}, {"not", len(f.NotPorts) > 0, f.NotPorts},
				{"rate", f.Rate > 0, f.Rate}, {"log", f.Log, ""}, {"deny", f.Deny, ""}, {"until", !f.Expires.IsZero(), f.Expires},
			} {
				if part.is {
					fmt.Fprintf(&b, " %s %v", part.word, part.what)
				}
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

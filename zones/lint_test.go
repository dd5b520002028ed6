package zones

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

func shop() []api.Service {
	return []api.Service{
		{Name: "db", Namespace: "shop", VIPs: []api.VIP{{Addr: addrs("198.18.0.11")[0], Port: 5432}}, Backends: []api.Backend{{Address: netip.MustParseAddrPort("10.90.0.3:5432"), Node: "a2"}}},
		{Name: "web", Namespace: "shop", VIPs: []api.VIP{{Addr: addrs("198.18.0.10")[0], Port: 80}}, Backends: []api.Backend{{Address: netip.MustParseAddrPort("10.90.0.2:8080"), Node: "a1"}}},
	}
}

func TestLint(t *testing.T) {
	p := example()
	p.Lists = map[string][]api.Network{"unused": {{Prefix: prefixes("192.0.2.0/24")[0]}}}
	p.Zones["ghost"] = api.Zone{Nodes: &api.NodeSelector{Role: "none"}}
	p.Zones["alone"] = api.Zone{CIDRs: prefixes("192.0.2.0/24")}
	p.Zones["vault"] = api.Zone{CIDRs: prefixes("10.99.0.0/24"), Whitelist: names("admin")}
	p.Rules = append(p.Rules,
		rule("again", names("admin"), names("private"), "tcp/22"),
		rule("twice", names("203.0.113.2"), names("public", "private"), "tcp/80"),
		rule("nobody", names("ghost"), names("private"), "tcp/22"),
		rule("closed", names("public"), names("vault"), "tcp/22"),
		rule("lost", names("office"), names("gone.shop"), "gone.shop"),
		rule("new", names("office"), names("public"), "tcp/22"),
	)
	old := rule("old", names("office"), names("public"), "tcp/23")
	old.Expires = api.Time{Time: someTime.Add(-time.Hour)}
	p.Rules = append(p.Rules, old)
	p.Egress = []api.EgressRule{{Rule: rule("names", names("private"), nil, "tcp/443"), Names: names("x.example.com")}}
	var got []string
	for _, f := range Bind(p, State{Nodes: fleet()}, someTime).Lint() {
		got = append(got, f.Error())
	}
	want := []string{
		`zones.alone: no rule names it: nothing reaches it and it reaches nothing, but by "any" or another zone`,
		`zones.ghost: is empty: no node matches it`,
		`lists.unused: nothing uses it`,
		`rules[9]: has expired on 2027-01-31 17:00 UTC`,
		`rules[7].to[0]: there is no service "gone.shop"`,
		`rules[7].allow[0]: there is no service "gone.shop"`,
		`rules[3]: adds nothing: the rule "inner" before it allows all that it allows`,
		`rules[4]: adds nothing: the rules before it allow all that it allows`,
		`rules[5]: matches nothing: it leads from or to nobody`,
		`rules[6]: never matches: the whitelists of the zones it leads to close all of it`,
		`rules[7]: matches nothing: it leads from or to nobody`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if found := Bind(nil, State{}, someTime).Lint(); found != nil {
		t.Errorf("without a policy: %v", found)
	}
}

func TestCuts(t *testing.T) {
	p := example()
	p.Rules = append(p.Rules, rule("agents", names("private"), names("admin"), "tcp/7443"))
	nodes := append(fleet(), api.Node{Name: "six", Addresses: addrs("fd80::77")})
	needed := append(ControllerFlows(nodes, 7443, 0),
		Needed{"ssh from the office", addrs("203.0.113.3")[0], addrs("203.0.113.2")[0], port("tcp/22")},
		Needed{"ssh from elsewhere", addrs("203.0.113.9")[0], addrs("10.80.0.2")[0], port("tcp/22")},
	)
	var got []string
	for _, n := range Bind(p, State{Nodes: nodes}, someTime).Cuts(needed) {
		got = append(got, n.Why)
	}
	if want := names("node p1 to controller c1", "ssh from elsewhere"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := len(ControllerFlows(nodes, 8443, 7443)); n != 6 {
		t.Errorf("got %d flows, want 3 each way", n)
	}
}

func TestEdgeSources(t *testing.T) {
	vip := netip.MustParseAddrPort("198.18.0.10:80")
	for _, c := range []struct {
		name   string
		change func(*api.Policy)
		want   string
	}{
		{"nothing", func(p *api.Policy) {}, ""},
		{"by its name", func(p *api.Policy) { p.Rules = append(p.Rules, rule("web", names("office"), nil, "web.shop")) }, "203.0.113.0/29"},
		{"but some", func(p *api.Policy) {
			r := rule("web", names("any"), nil, "web.shop")
			r.Except.From = names("128.0.0.0/1")
			p.Rules = append(p.Rules, r)
		}, "0.0.0.0/1"},
		{"any", func(p *api.Policy) { p.Rules = append(p.Rules, rule("web", names("any"), nil, "web.shop")) }, "all"},
		{"another port", func(p *api.Policy) { p.Rules = append(p.Rules, rule("web", names("any"), names("web.shop"), "tcp/81")) }, ""},
		{"whitelist", func(p *api.Policy) {
			p.Rules = append(p.Rules, rule("web", names("any"), names("web.shop"), "tcp/80"))
			p.Zones["vips"] = api.Zone{CIDRs: prefixes("198.18.0.0/15"), Whitelist: names("office")}
		}, "198.18.0.0/15 203.0.113.0/29"},
		{"forward", func(p *api.Policy) {
			p.Forward = []api.ForwardRule{{Rule: rule("in", names("office"), nil, "web.shop"), Via: names("public")}}
		}, "203.0.113.0/29"},
		{"forward elsewhere", func(p *api.Policy) {
			p.Forward = []api.ForwardRule{{Rule: rule("in", names("office"), nil, "web.shop"), Via: names("private")}}
		}, ""},
	} {
		p := example()
		c.change(p)
		sources, all := Bind(p, State{Nodes: fleet(), Services: shop()}, someTime).EdgeSources(fleet()[3], vip, api.TCP)
		var got []string
		for _, s := range sources {
			got = append(got, s.String())
		}
		text := strings.Join(got, " ")
		if all {
			text = "all"
		}
		if text != c.want {
			t.Errorf("%s: got %q, want %q", c.name, text, c.want)
		}
	}
	if _, all := Bind(nil, State{}, someTime).EdgeSources(api.Node{}, vip, api.TCP); !all {
		t.Error("without a policy there is a limit")
	}
}

func TestNamesTeachSets(t *testing.T) {
	p := example()
	p.Egress = []api.EgressRule{
		{Rule: rule("one", names("private"), nil, "tcp/443"), Names: names("deb.example.com", "*.mirror.example.com")},
		{Rule: rule("two", names("private"), nil, "tcp/443"), Names: names("*.example.com")},
	}
	n := NamesOf(compile(t, p, State{Nodes: fleet()}, fleet()[0]))
	for _, c := range []struct {
		name string
		want []string
	}{
		{"deb.example.com", names("dns_one", "dns_two")}, {"DEB.Example.com.", names("dns_one", "dns_two")}, {"example.com", nil},
		{"a.b.example.com", names("dns_two")}, {"a.mirror.example.com", names("dns_one", "dns_two")}, {"badexample.com", nil}, {"", nil},
	} {
		if got := n.Sets(c.name); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if n.Empty() || !NamesOf(nil).Empty() {
		t.Error("the names are empty when they are not")
	}
}

func TestExplainTellsPlaceHookAndRelay(t *testing.T) {
	p, s := load(t, "three-zones.yaml", "fleet.yaml")
	v := Bind(p, s, someTime)
	place := func(field string) (string, int) { return "p.yaml", len(field) }
	for _, c := range []struct {
		from, to, port, via string
		verdict             api.Verdict
		rule, field         string
		hook                Hook
		nodes               []string
		reason              string
	}{
		{"office", "admin", "tcp/22", "", api.Allow, "operators-ssh", "rules[1]", Input, names("c1", "c2"), `rule "operators-ssh" allows it`},
		{"192.0.2.1", "c1", "tcp/22", "", api.Deny, "whitelist.admin", "zones.admin.whitelist", Input, names("c1"), "the whitelist of the zone admin does not have 192.0.2.1"},
		{"192.0.2.1", "a1", "tcp/22", "p1", api.Deny, "unrouted.private", "zones.private.unrouted", Forward, names("p1"), "the zone private is unrouted, and no forward rule lets the node pass it on"},
		{"192.0.2.1", "a1", "tcp/8080", "public", api.Allow, "edge-to-web", "forward[0]", Forward, names("p1"), `rule "edge-to-web" allows it`},
		{"a1", "192.0.2.123", "udp/123", "", api.Allow, "time", "egress[0]", Output, names("a1"), `rule "time" allows it`},
		{"a1", "192.0.2.1", "udp/123", "", api.Deny, "", "", Output, names("a1"), "no rule allows it from private to outside every zone, and what no rule allows is closed"},
		{"a1", "p1", "udp/6080", "", api.Allow, "weir", "", Input, names("p1"), "it is Weir's own traffic between nodes"},
		{"192.0.2.1", "web.shop", "tcp/80", "", api.Deny, "", "", Input, names("a1", "a2"), "not all of it is allowed"},
	} {
		x, err := v.Explain(c.from, c.to, port(c.port), ExplainOptions{Via: c.via, Place: place})
		if err != nil || x.Verdict != c.verdict || x.Rule != c.rule || x.Field != c.field || x.Hook != c.hook || !slices.Equal(x.Nodes, c.nodes) || !strings.Contains(x.Reason, c.reason) {
			t.Errorf("%s → %s %s: got %+v, %v\nwant %+v", c.from, c.to, c.port, x, err, c)
		}
		if x.Field != "" && (x.File != "p.yaml" || x.Line != len(x.Field)) {
			t.Errorf("%s → %s: placed at %s:%d", c.from, c.to, x.File, x.Line)
		}
	}
	for _, c := range []struct{ from, to, via, want string }{
		{"a1", "moon.shop", "", `there is no service "moon.shop"`}, {"a1", "a2", "mars", `via: "mars" is no node or zone`}, {"a1", "a2", "operators", `no node is in the zone "operators"`},
	} {
		if _, err := v.Explain(c.from, c.to, port("tcp/1"), ExplainOptions{Via: c.via}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s → %s: got %v, want %q", c.from, c.to, err, c.want)
		}
	}
}

func TestMatrixCells(t *testing.T) {
	p := example()
	p.Zones["ghost"] = api.Zone{Nodes: &api.NodeSelector{Role: "none"}}
	m := Bind(p, State{Nodes: fleet()}, someTime).Matrix()
	cell := func(from, to string) Cell { return m.Cells[slices.Index(m.Zones, from)][slices.Index(m.Zones, to)] }
	for _, c := range []struct{ from, to, want string }{
		{"office", "admin", "tcp/22 tcp/443 (tcp/2380 tcp/8443 tcp/9466 udp/4789 and 2 more)"}, {"office", "public", "tcp/80 tcp/443 (tcp/2380 tcp/8443 tcp/9466 udp/4789 and 2 more)"}, {"private", "private", "any"},
		{"outside", "private", "-"}, {"ghost", "private", ""}, {"outside", "public", "tcp/80 tcp/443"}, {"office", "private", "(any)"},
	} {
		if got := cell(c.from, c.to).String(); got != c.want {
			t.Errorf("%s → %s: got %q, want %q", c.from, c.to, got, c.want)
		}
	}
	if got, want := cell("office", "admin").Rules, names("ops"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if m := Bind(nil, State{}, someTime).Matrix(); len(m.Zones) != 1 || m.Cells[0][0].String() != "any" {
		t.Errorf("without a policy: %+v", m)
	}
}

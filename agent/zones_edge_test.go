package agent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/document"
	"github.com/weirproject/weir/zones"
)

func viewFrom(t *testing.T, policy string, s *api.Snapshot) *zones.View {
	t.Helper()
	documents, err := document.Parse("policy.yaml", []byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	return zones.Bind(documents[0].Object.(*api.Policy), zones.StateOf(s), time.Now())
}

// onTheEdge is a service with two frontends that clients outside reach.
func onTheEdge() (*api.Snapshot, *dataplane.EdgeService) {
	at := func(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }
	s := &api.Snapshot{
		Node: api.Node{Name: "p1", Role: api.RolePublic, Addresses: []netip.Addr{netip.MustParseAddr("10.80.0.31")}},
		Services: []api.Service{{
			Name: "web", Namespace: "shop", Backends: []api.Backend{{Address: at("10.80.0.11:8080")}},
			VIPs: []api.VIP{{Addr: netip.MustParseAddr("203.0.113.100"), Port: 80}, {Addr: netip.MustParseAddr("203.0.113.100"), Port: 443}},
		}},
	}
	s.Nodes = []api.Node{s.Node}
	return s, &dataplane.EdgeService{Name: "web.shop/tcp/4", Protocol: api.TCP, Frontends: []netip.AddrPort{at("203.0.113.100:80"), at("203.0.113.100:443")}}
}

func TestTheEdgeLetsInWhomThePolicyLetsIn(t *testing.T) {
	const begin = "kind: policy\nzones: {public: {nodes: {role: public}}, office: {cidrs: [198.51.100.0/24]}}\nrules:\n"
	for what, c := range map[string]struct{ rules, allow, want string }{
		"no rule for it":      {"- {name: r, from: [any], to: [public], allow: [any]}\n", "", "web.shop/tcp/4 [203.0.113.100:80 203.0.113.100:443] [255.255.255.255/32]"},
		"the whole service":   {"- {name: r, from: [any], allow: [web.shop]}\n", "", "web.shop/tcp/4 [203.0.113.100:80 203.0.113.100:443] []"},
		"its own limit stays": {"- {name: r, from: [any], allow: [web.shop]}\n", "203.0.113.0/25", "web.shop/tcp/4 [203.0.113.100:80 203.0.113.100:443] [203.0.113.0/25]"},
		"one zone":            {"- {name: r, from: [office], allow: [web.shop]}\n", "", "web.shop/tcp/4 [203.0.113.100:80 203.0.113.100:443] [198.51.100.0/24]"},
		"both limits":         {"- {name: r, from: [office], allow: [web.shop]}\n", "198.51.100.8/29", "web.shop/tcp/4 [203.0.113.100:80 203.0.113.100:443] [198.51.100.8/29]"},
		"one port": {"- {name: r, from: [any], to: [web.shop], allow: [tcp/443]}\n", "",
			"web.shop/tcp/4 [203.0.113.100:80] [255.255.255.255/32]; web.shop/tcp/4/2 [203.0.113.100:443] []"},
	} {
		s, service := onTheEdge()
		if c.allow != "" {
			service.Allow = []netip.Prefix{netip.MustParsePrefix(c.allow)}
		}
		var limits edgeLimits
		view := viewFrom(t, begin+c.rules, s)
		first := limits.limit(view, s.Node, dataplane.EdgeTable{Services: []*dataplane.EdgeService{service}})
		got := ""
		for i, part := range first.Services {
			if i > 0 {
				got += "; "
			}
			got += fmt.Sprint(part.Name, " ", part.Frontends, " ", part.Allow)
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", what, got, c.want)
		}
		// Sinks compare pointers: what means the same is the same.
		again := limits.limit(viewFrom(t, begin+c.rules, s), s.Node, dataplane.EdgeTable{Services: []*dataplane.EdgeService{service}})
		for i := range again.Services {
			if again.Services[i] != first.Services[i] {
				t.Errorf("%s: another service for the same", what)
			}
		}
	}
}

func TestTheEdgeIsNotLimitedWhereNothingIsEnforced(t *testing.T) {
	s, service := onTheEdge()
	s.Policy = &api.Policy{}
	table := dataplane.EdgeTable{Services: []*dataplane.EdgeService{service}}
	for _, mode := range []string{"observe", "off"} {
		c := &zonesComponent{mode: mode}
		if got := c.limitEdge(s, table); got.Services[0] != service {
			t.Errorf("%s: got %+v", mode, got)
		}
	}
}

func TestTheOthersAreLostWhenNoneOfAKindIsHeard(t *testing.T) {
	type heard = map[string][]string
	for want, c := range map[string]struct{ before, now heard }{
		"": {heard{"peer": {"a2", "a3"}}, heard{"peer": {"a3"}}},
		"no peer is heard of any more (a2, a3 before)":   {heard{"peer": {"a2", "a3"}}, heard{"controller": {"c1"}}},
		"no controller is heard of any more (c1 before)": {heard{"peer": {"a2"}, "controller": {"c1"}}, heard{"peer": {"a2"}}},
	} {
		if got := lost(c.before, c.now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := lost(nil, nil); got != "" {
		t.Errorf("nobody was heard before: got %q", got)
	}
}

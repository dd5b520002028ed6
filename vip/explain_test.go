package vip

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// explained is a fleet with one thing right and many wrong.
func explained(t *testing.T) *api.Snapshot {
	udp := service(t, "dns.infra", []string{"dns:53"}, "10.0.0.5:53")
	udp.Protocol = api.UDP
	out := service(t, "out", []string{"out:80"}, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
	none := 0
	out.Backends[0].State, out.Backends[1].State, out.Backends[2].Weight = api.Down, api.Draining, &none
	sick := service(t, "sick.shop", []string{"sick:80"}, "10.0.0.9:80")
	sick.Health = &api.HealthCheck{TCP: &api.TCPCheck{}}
	return snapshot(t,
		service(t, "web.shop", []string{"web:80", "www:443", "192.0.2.1:80"}, "10.0.0.1:80", "10.0.0.2:80"),
		service(t, "twin.shop", []string{"192.0.2.1:80"}, "10.0.0.1:80"),
		service(t, "empty", []string{"empty:80"}), udp, out, sick,
		service(t, "unprogrammed", []string{"unprogrammed:80"}, "10.0.0.1:80"),
		service(t, "unreachable", []string{"unreachable:80"}, "10.0.0.7:80"),
		service(t, "nameless", []string{"nameless:80"}, "10.0.0.1:80"),
		service(t, "elsewhere", []string{"elsewhere:80"}, "10.0.0.1:80"),
	)
}

func explainOptions(s *api.Snapshot) ExplainOptions {
	o := ExplainOptions{Aliases: []string{"mesos"}}
	o.Domain = "weir.internal"
	o.State = func(_ string, _ api.Protocol, b netip.AddrPort) (api.BackendState, string) {
		if b.Addr().As4()[3] == 9 {
			return api.Down, "connection refused"
		}
		return api.Up, ""
	}
	o.Programmed = func(service string, _ api.Protocol) bool { return service != "unprogrammed.default" }
	o.Reach = func(_ api.Protocol, b netip.AddrPort) error {
		if b.Addr().As4()[3] == 7 {
			return errors.New("no route to host")
		}
		return nil
	}
	o.Resolve = func(name string) ([]netip.Addr, error) {
		key := strings.TrimSuffix(name, ".vip.weir.internal")
		switch key {
		case "nameless.default":
			return nil, errors.New("NXDOMAIN")
		case "elsewhere.default":
			return []netip.Addr{netip.MustParseAddr("203.0.113.1")}, nil
		}
		return []netip.Addr{s.VIPs[key].V4}, nil
	}
	return o
}

func TestExplainStopsAtTheFirstStepThatFails(t *testing.T) {
	s := explained(t)
	for _, test := range []struct{ name, step, evidence, next string }{
		{"web.shop", "", "", ""},
		{"WEB.shop:80", "", "", ""},
		{"/web.shop:80", "", "", ""},
		{"www.shop", "", "", ""},
		{"www.shop:443", "", "", ""},
		{"web.shop.vip", "", "", ""},
		{"web.shop.vip.weir.internal.", "", "", ""},
		{"web.shop.vip.mesos:80", "", "", ""},
		{"web.shop.l4lb.thisdcos.directory:80", "", "", ""},
		{"192.0.2.1:80", "", "", ""},
		{"192.0.2.1", "", "", ""},
		{"dns.infra", "", "", ""},
		{s.VIPs["web.shop"].V4.String(), "", "", ""},
		{"", "name", "it is empty", "write web"},
		{"web.shop:http", "name", `port "http"`, "write web"},
		{"web.shop:0", "name", `port "0"`, "write web"},
		{"weir.internal", "service", "the name weir in the namespace internal", "apply a service document"},
		{"web", "service", "none of 10 services has the name web in the namespace default", "there is web.shop (tcp, web:80, www:443, 192.0.2.1:80)"},
		{"web.shop:8080", "service", "port 8080", "there is web.shop"},
		{"192.0.2.1:81", "service", "the address 192.0.2.1, port 81", "there is web.shop"},
		{"nobody.shop", "service", "nobody", "apply a service document"},
		{"twin.shop", "address", "vips[0]: 192.0.2.1:80 tcp is served by web.shop already", "another address"},
		{"empty", "backends", "no backends", "add backends"},
		{"out", "backends", "0 of 3 may get connections: 10.0.0.1:80 is set down, 10.0.0.2:80 is set draining, 10.0.0.3:80 has the weight 0", "set one up"},
		{"sick.shop", "health", "0 of 1 are up: 10.0.0.9:80 is down (connection refused)", "look at the backends"},
		{"unreachable", "reachable", "0 of 1 that are up answer this node; 10.0.0.7:80: no route to host", "route"},
		{"unprogrammed", "programmed", "kernel does not hold it", "weir status"},
		{"nameless", "dns", "does not resolve on this node: NXDOMAIN", "weir dns explain"},
		{"elsewhere", "dns", "which is none of its addresses", "weir dns explain"},
	} {
		steps := Explain(s, test.name, explainOptions(s))
		last := steps[len(steps)-1]
		for _, step := range steps[:len(steps)-1] {
			if !step.OK || step.Next != "" || step.Evidence == "" {
				t.Errorf("%q: got %+v before the end", test.name, step)
			}
		}
		if test.step == "" {
			if len(steps) != 8 || !last.OK || last.Step != "dns" {
				t.Errorf("%q: got %+v", test.name, last)
			}
			continue
		}
		if last.OK || last.Step != test.step || !strings.Contains(last.Evidence, test.evidence) || !strings.Contains(last.Next, test.next) {
			t.Errorf("%q: got %+v, want %s to fail with %q, then %q", test.name, last, test.step, test.evidence, test.next)
		}
	}
}

func TestExplainAsksNobodyItWasNotGiven(t *testing.T) {
	s := explained(t)
	o := explainOptions(s)
	o.Reach, o.Resolve = nil, nil
	o.Protocol = api.UDP
	if steps := Explain(s, "web.shop", o); steps[len(steps)-1].Step != "service" {
		t.Errorf("got %+v", steps)
	}
	if steps := Explain(s, "dns.infra", o); len(steps) != 8 || steps[5].Evidence != "not tried" {
		t.Errorf("got %+v", steps)
	}
	o.Protocol = api.TCP
	steps := Explain(s, "192.0.2.1", o)
	if len(steps) != 8 || steps[5].Evidence != "not tried" || !strings.Contains(steps[7].Evidence, "not asked") || !strings.Contains(steps[1].Evidence, "so does twin.shop") {
		t.Errorf("got %+v", steps)
	}
	literal := snapshot(t, service(t, "web", []string{"192.0.2.1:80"}, "10.0.0.1:80"), service(t, "x", []string{"web:80"}, "10.0.0.1:80"))
	if steps := Explain(literal, "192.0.2.1", o); !strings.Contains(steps[7].Evidence, "no name of its own") {
		t.Errorf("got %+v", steps)
	}
}

func TestStatusesTellSharesAndWhyTheyAreNotTheWeights(t *testing.T) {
	s, o := prefers(t, api.PreferNode, "", 0)
	s.Services[0].MaxConnections, s.Services[0].Edge = 9, &api.Edge{}
	s.Services[0].SlowStart = api.Duration(time.Minute)
	o.Now = time.Unix(1000, 0)
	o.UpSince = func(_ string, _ api.Protocol, b netip.AddrPort) time.Time {
		if b.Addr().As4()[3] == 2 {
			return o.Now.Add(-20 * time.Second)
		}
		return time.Time{}
	}
	table := compile(t, s, o)
	v := Statuses(s, StatusOptions{State: o.State, Now: o.Now, UpSince: o.UpSince, Table: table})[0]
	if v.MaxConnections != 9 || v.Edge == nil || v.Prefer != api.PreferNode {
		t.Errorf("got %+v", v)
	}
	for i, want := range []struct {
		share float64
		note  string
	}{
		{0, "on this node: 70% of connections go there"},
		{70, "on this node: 70% of connections go there"},
		{8.57, "starts slowly, at 40% of its share; in this zone: 30% of connections go there"},
		{21.43, "in this zone: 30% of connections go there"},
		{0, "far: 0% of connections go there"},
	} {
		if got := v.Backends[i]; got.Note != want.note || got.Share < want.share-.01 || got.Share > want.share+.01 {
			t.Errorf("backend %d: got %.2f%% %q, want %.2f%% %q", i, got.Share, got.Note, want.share, want.note)
		}
	}
	if v.Backends[7].Node != "b1" {
		t.Errorf("the node by the address: got %q", v.Backends[7].Node)
	}
	open := service(t, "open", []string{"open:80"}, "10.0.0.0:80")
	open.FailOpen = true
	got := Statuses(snapshot(t, open), StatusOptions{State: o.State})[0].Backends[0]
	if got.State != api.Up || got.Reason != "no answer; "+failOpenReason {
		t.Errorf("got %+v", got)
	}
	if find(dataplane.Table{}, "x") != nil {
		t.Error("found what is not there")
	}
}

package vip

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

func parseVIP(t *testing.T, text string) api.VIP {
	t.Helper()
	v, err := api.ParseVIP(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// service makes a TCP service; its name may hold the namespace after a dot.
func service(t *testing.T, key string, vips []string, backends ...string) api.Service {
	t.Helper()
	name, namespace, _ := strings.Cut(key, ".")
	s := api.Service{Name: name, Namespace: namespace}
	for _, v := range vips {
		s.VIPs = append(s.VIPs, parseVIP(t, v))
	}
	for _, b := range backends {
		s.Backends = append(s.Backends, api.Backend{Address: netip.MustParseAddrPort(b)})
	}
	return s
}

// snapshot of services in their order, with what they are allotted.
func snapshot(t *testing.T, services ...api.Service) *api.Snapshot {
	t.Helper()
	s := &api.Snapshot{Node: api.Node{Name: "a1", Addresses: []netip.Addr{netip.MustParseAddr("10.80.0.11")}}, Services: services}
	s.Nodes = []api.Node{s.Node, {Name: "a2", Addresses: []netip.Addr{netip.MustParseAddr("10.80.0.12")}}}
	var err error
	if s.VIPs, err = Allot(nil, services, range4, range6); err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	range4 = netip.MustParsePrefix("198.18.0.0/15")
	range6 = netip.MustParsePrefix("fd77:6569:7200::/112")
)

func compile(t *testing.T, s *api.Snapshot, o Options) dataplane.Table {
	t.Helper()
	table, skipped := Compile(s, o)
	if len(skipped) > 0 {
		t.Fatalf("skipped: %+v", skipped)
	}
	return table
}

func TestAServiceBecomesOneForEachAddressFamily(t *testing.T) {
	web := service(t, "web.shop", []string{"web:443", "web:80", "192.0.2.1:80"}, "[fd00::2]:8080", "10.0.0.2:8080", "10.0.0.1:8080")
	web.Affinity = api.Duration(time.Minute)
	s := snapshot(t, web)
	table := compile(t, s, Options{Ranges: []netip.Prefix{range4, range6}})

	a := s.VIPs["web.shop"]
	want := dataplane.Table{Ranges: []netip.Prefix{range4, range6}, Services: []*dataplane.Service{
		{
			Name: "web.shop/tcp/4", Protocol: api.TCP, Balance: api.Random, Affinity: time.Minute,
			Frontends: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80"), netip.AddrPortFrom(a.V4, 80), netip.AddrPortFrom(a.V4, 443)},
			Backends: []dataplane.Backend{
				{Address: netip.MustParseAddrPort("10.0.0.1:8080"), Weight: 1, State: api.Up},
				{Address: netip.MustParseAddrPort("10.0.0.2:8080"), Weight: 1, State: api.Up},
			},
			Slots: []uint32{0, 1},
		}, {
			Name: "web.shop/tcp/6", Protocol: api.TCP, Balance: api.Random, Affinity: time.Minute,
			Frontends: []netip.AddrPort{netip.AddrPortFrom(a.V6, 80), netip.AddrPortFrom(a.V6, 443)},
			Backends:  []dataplane.Backend{{Address: netip.MustParseAddrPort("[fd00::2]:8080"), Weight: 1, State: api.Up}},
			Slots:     []uint32{0},
		},
	}}
	if !reflect.DeepEqual(table, want) {
		t.Errorf("got  %+v\nwant %+v", table, want)
	}
}

func TestAServiceWithoutBackendsRefuses(t *testing.T) {
	table := compile(t, snapshot(t, service(t, "empty", []string{"empty:80"})), Options{})
	if len(table.Services) != 1 || len(table.Services[0].Frontends) != 1 || table.Services[0].Slots != nil {
		t.Errorf("got %+v, want one frontend without slots", table.Services)
	}
}

func TestABackendHasTheWorseOfWantedAndObservedState(t *testing.T) {
	tests := []struct {
		wanted, observed, want api.BackendState
		reason                 string
	}{
		{"", api.Up, api.Up, ""},
		{api.Up, api.Up, api.Up, ""},
		{api.Up, api.Down, api.Down, "no answer"},
		{api.Up, api.Draining, api.Draining, "no answer"},
		{api.Draining, api.Up, api.Draining, "set draining in its document"},
		{api.Draining, api.Down, api.Down, "no answer"},
		{api.Down, api.Up, api.Down, "set down in its document"},
		{api.Down, api.Down, api.Down, "set down in its document"},
	}
	for _, test := range tests {
		s := snapshot(t, service(t, "web.shop", []string{"web:80"}, "10.0.0.1:80"))
		s.Services[0].Backends[0].State = test.wanted
		observe := func(key string, protocol api.Protocol, b netip.AddrPort) (api.BackendState, string) {
			if key != "web.shop" || protocol != api.TCP || b.String() != "10.0.0.1:80" {
				t.Errorf("asked for %s %s %s", key, protocol, b)
			}
			if test.observed == api.Up {
				return api.Up, ""
			}
			return test.observed, "no answer"
		}
		d := compile(t, s, Options{State: observe}).Services[0]
		if got := d.Backends[0].State; got != test.want {
			t.Errorf("%s and %s: got %s, want %s", test.wanted, test.observed, got, test.want)
		}
		if got, want := len(d.Slots) > 0, test.want == api.Up; got != want {
			t.Errorf("%s and %s: has slots is %v, want %v", test.wanted, test.observed, got, want)
		}
		status := Statuses(s, StatusOptions{State: observe})[0].Backends[0]
		if status.State != test.want || status.Reason != test.reason {
			t.Errorf("%s and %s: status is %s (%s), want %s (%s)", test.wanted, test.observed, status.State, status.Reason, test.want, test.reason)
		}
	}
}

func TestAConflictIsReportedWithBothServicesAndTheRestIsServed(t *testing.T) {
	udp := service(t, "c.shop", []string{"192.0.2.1:80"}, "10.0.0.3:80")
	udp.Protocol = api.UDP
	s := snapshot(t,
		service(t, "a.shop", []string{"192.0.2.1:80"}, "10.0.0.1:80"),
		service(t, "b.shop", []string{"192.0.2.1:80", "192.0.2.1:81", "10.80.0.12:80", "10.80.0.11:80"}, "10.0.0.2:80"),
		udp,
		service(t, "d.other", []string{"web:80"}), service(t, "e.other", []string{"web:80", "web:81"}),
	)
	table, skipped := Compile(s, Options{})
	web := s.VIPs["web.other"].V4.String()
	want := []Skipped{
		{"b.shop", api.TCP, "vips[0]", "192.0.2.1:80 tcp is served by a.shop already"},
		{"b.shop", api.TCP, "vips[2]", "10.80.0.12:80 is the address of the node a2"},
		{"b.shop", api.TCP, "vips[3]", "10.80.0.11:80 is the address of the node a1"},
		{"e.other", api.TCP, "vips[0]", web + ":80 tcp is served by d.other already"},
	}
	if !slices.Equal(skipped, want) {
		t.Errorf("got  %+v\nwant %+v", skipped, want)
	}
	var served []string
	for _, d := range table.Services {
		served = append(served, fmt.Sprint(d.Name, d.Frontends))
	}
	wanted := []string{"a.shop/tcp/4[192.0.2.1:80]", "b.shop/tcp/4[192.0.2.1:81]", "c.shop/udp/4[192.0.2.1:80]",
		"d.other/tcp/4[" + web + ":80]", "e.other/tcp/4[" + web + ":81]"}
	if !slices.Equal(served, wanted) {
		t.Errorf("got  %v\nwant %v", served, wanted)
	}
}

func TestANamedVIPWithoutAnAddressIsReported(t *testing.T) {
	s := snapshot(t, service(t, "web.shop", []string{"web:80"}, "[fd00::1]:80"))
	s.VIPs = map[string]api.VIPAddresses{"web.shop": {V4: netip.MustParseAddr("198.18.0.1")}}
	table, skipped := Compile(s, Options{})
	if len(table.Services) != 0 || len(skipped) != 1 || !strings.Contains(skipped[0].Reason, "web:80 has no address") {
		t.Errorf("got %+v and %+v", table.Services, skipped)
	}
}

func TestABackendWrittenTwiceIsOne(t *testing.T) {
	s := snapshot(t, service(t, "web", []string{"web:80"}, "10.0.0.1:80", "[::ffff:10.0.0.1]:80"))
	if got := compile(t, s, Options{}).Services[0]; len(got.Backends) != 1 || len(got.Slots) != 1 {
		t.Errorf("got %+v, want one backend", got)
	}
}

func TestCompileTellsTheSameWhateverTheOrderOfBackends(t *testing.T) {
	web := service(t, "web", []string{"web:80"}, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
	for _, balance := range []api.Balance{api.Random, api.Maglev} {
		web.Balance = balance
		before := compile(t, snapshot(t, web), Options{})
		turned := web
		turned.Backends = slices.Clone(web.Backends)
		slices.Reverse(turned.Backends)
		if after := compile(t, snapshot(t, turned), Options{}); !reflect.DeepEqual(before, after) {
			t.Errorf("%s: got %+v, want %+v", balance, after, before)
		}
	}
}

func TestStatusesJoinCountersOfBothFamilies(t *testing.T) {
	web := service(t, "web.shop", []string{"web:80", "www:443", "192.0.2.1:80"}, "10.0.0.1:80", "[fd00::1]:80", "[::ffff:10.0.0.2]:80")
	web.Backends[0].Node = "a1"
	old := service(t, "old", []string{"192.0.2.9:80"})
	s := snapshot(t, old, web)
	counters := dataplane.Counters{Services: map[string]dataplane.ServiceCounters{
		"web.shop/tcp/4": {Connections: 7, Refused: 1, Backends: map[netip.AddrPort]dataplane.BackendCounters{
			netip.MustParseAddrPort("10.0.0.1:80"): {Connections: 4, Open: 2, Failures: 1}, netip.MustParseAddrPort("10.0.0.2:80"): {Connections: 3, Reset: 6},
		}},
		"web.shop/tcp/6": {Connections: 5, Refused: 2, Limited: 3, Backends: map[netip.AddrPort]dataplane.BackendCounters{netip.MustParseAddrPort("[fd00::1]:80"): {Connections: 5, Open: 4}}},
	}}
	all := Statuses(s, StatusOptions{Domain: "weir.internal", Counters: counters, Programmed: func(key string, _ api.Protocol) bool { return key == "web.shop" }})
	if len(all) != 2 || all[0].Name != "old" || all[0].Namespace != "default" || all[0].Programmed || all[0].Backends == nil {
		t.Fatalf("got %+v", all)
	}
	if got, want := all[0].DNSNames, []string{"old.default.vip.weir.internal"}; !slices.Equal(got, want) {
		t.Errorf("names of a literal VIP: got %v, want %v", got, want)
	}
	v := all[1]
	if v.Connections != 12 || v.Refused != 3 || v.Limited != 3 || v.Open != 6 || !v.Programmed || v.Protocol != api.TCP || v.Balance != api.Random {
		t.Errorf("got %+v", v)
	}
	if got, want := v.DNSNames, []string{"web.shop.vip.weir.internal", "www.shop.vip.weir.internal"}; !slices.Equal(got, want) {
		t.Errorf("names: got %v, want %v", got, want)
	}
	if len(v.Addresses) != 5 {
		t.Errorf("addresses: got %v, want both families of two names and a literal", v.Addresses)
	}
	if a, b := v.Backends[0], v.Backends[2]; a.Open != 2 || a.Failures != 1 || b.Reset != 6 {
		t.Errorf("backends: got %+v and %+v", a, b)
	}
	got := fmt.Sprintf("%d %d %d %s %d", v.Backends[0].Connections, v.Backends[1].Connections, v.Backends[2].Connections, v.Backends[0].Node, v.Backends[0].Weight)
	if got != "4 5 3 a1 1" {
		t.Errorf("backends: got %s, want 4 5 3 a1 1", got)
	}
}

package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// noon is when the tests run.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// agent answers like a node's agent, with fixed values.
type agent struct {
	status api.Status
	vips   []api.VIPStatus
	asked  string // the last request
}

// start serves on a unix socket and returns its path, which is short: a
// socket's address has 108 bytes, and a test's own folder may need more.
func (a *agent) start(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "weir")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: a.handler()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
		_ = os.RemoveAll(folder)
	})
	return path
}

func (a *agent) handler() http.Handler {
	mux := http.NewServeMux()
	for path, answer := range map[string]func(*http.Request) any{
		client.PathStatus:   func(*http.Request) any { return a.status },
		client.PathVIPs:     func(*http.Request) any { return a.vips },
		client.PathDNSQuery: func(r *http.Request) any { return answer(r.FormValue("name"), r.FormValue("type")) },
		client.PathZonesExplain: func(r *http.Request) any {
			return explanation(r.FormValue("from"), r.FormValue("to"), r.FormValue("port"))
		},
		client.PathVIPExplain:  func(r *http.Request) any { return steps(r.FormValue("name")) },
		client.PathVIPTrace:    func(r *http.Request) any { return trace(r.FormValue("client")) },
		client.PathConnections: func(*http.Request) any { return conns() },
		client.PathDrain:       func(r *http.Request) any { return drained(r) },
		client.PathDNSCache: func(*http.Request) any {
			return []api.DNSCacheEntry{
				{Name: "example.com.", Type: "A", Rcode: "NOERROR", Answer: []string{"example.com. 300 IN A 192.0.2.1"}, Upstream: "192.0.2.53:53", Age: 12, TTL: 288, Hits: 7},
				{Name: "gone.example.", Type: "*", Rcode: "NXDOMAIN", Upstream: "192.0.2.53:53", Age: 70, TTL: -10},
			}
		},
		client.PathDNSExplain: func(r *http.Request) any {
			return api.DNSExplanation{
				Name: r.FormValue("name") + ".", Status: "exists", Zone: "weir.internal.",
				Records: []api.DNSExplainedRecord{{Record: "web.shop.weir.internal.\t5\tIN\tA\t10.80.0.11", Source: "service web.shop"}},
				LeftOut: []api.DNSExplainedRecord{{Record: "web.shop.weir.internal.\t5\tIN\tA\t10.80.0.12", Source: "service web.shop", Reason: "its backend is down"}},
			}
		},
		client.PathDNSTop: func(*http.Request) any {
			return []api.DNSTopName{{Name: "web.shop.vip.weir.internal.", Type: "A", Queries: 4200}}
		},
		client.PathDNSUpstreams: func(*http.Request) any {
			return []api.DNSUpstream{
				{Upstream: "192.0.2.53:53", Zones: []string{"."}, RoundTrip: api.Duration(3 * time.Millisecond), Queries: 100, Hedges: 2},
				{Upstream: "tls://192.0.2.54:853", Zones: []string{"corp.local."}, Queries: 9, Failed: 9, Down: true},
			}
		},
		client.PathDNSTrace: func(r *http.Request) any {
			return api.DNSTrace{
				Name: r.FormValue("name") + ".", Type: r.FormValue("type"),
				Steps: []api.DNSTraceStep{
					{Step: "cluster's names", Verdict: "it is in none of the cluster's zones"},
					{Step: "cache", Verdict: "nothing is kept"},
					{Step: "forward zone", Verdict: ". is the longest match: 192.0.2.53:53, 192.0.2.54:53, in this order"},
				},
				Upstreams: []api.DNSTraceUpstream{
					{Upstream: "192.0.2.53:53", Protocol: "udp", Took: api.Duration(4 * time.Millisecond), Usual: api.Duration(3 * time.Millisecond), Rcode: "NOERROR", Answer: []string{"example.com.\t300\tIN\tA\t192.0.2.1"}, Verdict: "good"},
					{Upstream: "192.0.2.54:53", Protocol: "udp", Verdict: "no answer within 3s"},
				},
				Answer: api.DNSAnswer{Name: "example.com.", Type: "A", Rcode: "NOERROR", Answer: []string{"example.com.\t300\tIN\tA\t192.0.2.1"}, Source: "192.0.2.53:53", Took: api.Duration(5 * time.Millisecond)},
			}
		},
		client.PathDNSFlush: func(*http.Request) any { return api.DNSFlushed{Entries: 2} },
	} {
		method := http.MethodGet
		if path == client.PathDrain || path == client.PathDNSFlush {
			method = http.MethodPost
		}
		mux.HandleFunc(method+" "+path, func(w http.ResponseWriter, r *http.Request) {
			a.asked = r.URL.RequestURI()
			value := answer(r)
			if p, wrong := value.(client.Problem); wrong {
				w.Header().Set("Content-Type", client.ProblemType)
				w.WriteHeader(p.Status)
			}
			_ = json.NewEncoder(w).Encode(value)
		})
	}
	return mux
}

func addrPorts(texts ...string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, text := range texts {
		all = append(all, netip.MustParseAddrPort(text))
	}
	return all
}

// healthy is the status of a node that is as wanted.
func healthy() api.Status {
	return api.Status{
		Node: api.Node{
			Name: "a1", Role: "agent", Zone: "private", Attributes: map[string]string{"rack": "r1"},
			Addresses: []netip.Addr{netip.MustParseAddr("10.80.0.11"), netip.MustParseAddr("fd00::11")},
		},
		Version: "v0.1.0", Started: noon.Add(-75 * time.Minute), Revision: 41, Wanted: 41, Source: "files",
		Components: []api.ComponentStatus{
			{Name: "zones", Backend: "nftables", Revision: 41, Applied: noon.Add(-12 * time.Second), Detail: "3 rules in 4 zones"},
			{Name: "vip", Backend: "ebpf", Revision: 41, Repaired: 2, Applied: noon.Add(-12 * time.Second), Detail: "2 services, 3 of 4 backends up"},
			{Name: "dns", Revision: 41},
		},
	}
}

// broken is the status of a node with all that may go wrong.
func broken() api.Status {
	s := healthy()
	s.Wanted, s.Components[0].Revision, s.Revision = 42, 42, 41
	s.Components[1].Error = "set the table:\nprogram service web.shop/tcp/4: no space left on device"
	s.Refused = []api.Refusal{
		{File: "/etc/weir/state.d/web.yaml", Line: 7, Column: 12, Field: "backends[1].address", Reason: `"10.80.0" is not ip:port`, Since: noon.Add(-3 * time.Minute)},
		{File: "/etc/weir/state.d/policy.yaml", Line: 2, Reason: "did not find expected ',' or ']'", Since: noon.Add(-50 * time.Hour)},
	}
	return s
}

func services() []api.VIPStatus {
	return []api.VIPStatus{
		{
			Name: "web", Namespace: "shop", Protocol: api.TCP, Balance: api.Maglev, Affinity: api.Duration(10 * time.Minute),
			DNSNames: []string{"web.shop.vip.weir.internal"}, VIPs: []api.VIP{{Name: "web", Port: 80}, {Addr: netip.MustParseAddr("192.0.2.1"), Port: 80}},
			Addresses: addrPorts("198.18.3.7:80", "[fd77:6569:7200::9]:80", "192.0.2.1:80"), Programmed: true,
			Connections: 1234, Refused: 5, Open: 7, Limited: 2, MaxConnections: 500, Prefer: api.PreferZone, Edge: &api.Edge{Allow: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}},
			Backends: []api.BackendStatus{
				{Address: netip.MustParseAddrPort("10.80.0.11:8080"), Node: "a1", Weight: 1, State: api.Up, Share: 100, Connections: 1200, Open: 5, Failures: 3},
				{Address: netip.MustParseAddrPort("10.80.0.12:8080"), Node: "a2", Weight: 10, State: api.Draining, Reason: "set draining in its document", Connections: 34, Open: 2, Reset: 1},
				{Address: netip.MustParseAddrPort("[fd00::13]:8080"), Weight: 1, State: api.Down, Reason: "GET /healthz answered 503 Service Unavailable"},
			},
		},
		{Name: "dns", Namespace: "default", Protocol: api.TCP, Balance: api.Random, VIPs: []api.VIP{{Name: "dns", Port: 53}}, Addresses: addrPorts("198.18.0.53:53"), Backends: []api.BackendStatus{}},
		{Name: "dns", Namespace: "default", Protocol: api.UDP, Balance: api.Random, VIPs: []api.VIP{{Name: "dns", Port: 53}}, Addresses: addrPorts("198.18.0.53:53"), Programmed: true, Backends: []api.BackendStatus{}},
	}
}

func steps(name string) []api.VIPStep {
	all := []api.VIPStep{{Step: "name", OK: true, Evidence: name + " is the service web.shop"}, {Step: "health", OK: true, Evidence: "2 of 3 backends are up"}}
	if name == "gone.shop" {
		all[1] = api.VIPStep{Step: "service", Evidence: "there is no service gone.shop", Next: "write its document into a folder of state:"}
	}
	return all
}

func trace(from string) api.VIPTrace {
	return api.VIPTrace{
		Client: from, VIP: netip.MustParseAddrPort("198.18.3.7:80"), Protocol: api.TCP, Service: "web.shop/tcp/4", Balance: api.Random,
		Backends: []api.TraceShare{{Address: netip.MustParseAddrPort("10.80.0.11:8080"), Share: 66.7}, {Address: netip.MustParseAddrPort("10.80.0.12:8080"), Share: 33.3}},
		Reason:   "random: any slot with the same chance",
	}
}

func conns() []api.Connection {
	return []api.Connection{
		{Protocol: api.UDP, VIP: netip.MustParseAddrPort("198.18.0.53:53"), Backend: netip.MustParseAddrPort("10.80.0.12:53")},
		{Service: "web.shop", Protocol: api.TCP, VIP: netip.MustParseAddrPort("198.18.3.7:80"), Backend: netip.MustParseAddrPort("10.80.0.11:8080"),
			Client: netip.MustParseAddrPort("10.80.0.13:40312"), State: "established", Process: 4711, Command: "curl"},
	}
}

func drained(r *http.Request) any {
	var d api.Drain
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil || d.Service != "web.shop" || d.Protocol != api.TCP {
		return client.Problem{Title: "Bad Request", Status: 400, Detail: "drain: not what was meant"}
	}
	v := services()[0]
	v.Backends[0].State, v.Backends[0].Reason = api.Draining, "drained by hand"
	if d.Undo {
		v.Backends[0].State, v.Backends[0].Reason = api.Up, ""
	}
	return v
}

func answer(name, recordType string) any {
	a := api.DNSAnswer{Name: name + ".", Type: recordType, Rcode: "NOERROR", Source: "cluster", Took: api.Duration(31 * time.Microsecond)}
	switch {
	case recordType == "NONSENSE":
		return client.Problem{Type: "about:blank", Title: "Bad Request", Status: 400, Detail: `"NONSENSE" is no type of DNS record`}
	case recordType == "SRV":
		a.Answer = []string{name + ".\t5\tIN\tSRV\t0 1 8080 x1.web.shop.weir.internal.", name + ". 5 IN SRV 0 1 8080 x22.web.shop.weir.internal."}
		a.Additional = []string{"x1.web.shop.weir.internal.\t5\tIN\tA\t10.80.0.11"}
	case name == "gone.example":
		a.Rcode, a.Source = "NXDOMAIN", "192.0.2.53:53"
		a.Authority = []string{"example.\t900\tIN\tSOA\tns.example. admin.example. 1 2 3 4 5"}
	default:
		a.Answer, a.Source = []string{name + ".\t5\tIN\t" + recordType + "\t198.18.3.7"}, "cache"
	}
	return a
}

func explanation(from, to, port string) any {
	r, err := api.ParsePortRange(port)
	if err != nil || from == "nowhere" {
		return client.Problem{Type: "about:blank", Title: "Bad Request", Status: 400, Detail: "explain flow from " + from + ": it is no address, node or zone"}
	}
	x := api.ZoneExplanation{From: from, To: to, Port: r, FromZones: []string{}, ToZones: []string{"private"}, Verdict: api.Deny,
		Reason: "no rule allows it from outside every zone to private, and what no rule allows is closed", Nodes: []string{"a1", "a2"}}
	if from == "public" {
		x.FromZones, x.ToZones, x.Verdict, x.Rule, x.Reason = []string{"public"}, []string{"private", "db"}, api.Allow, "inner", `rule "inner" allows it`
	}
	return x
}

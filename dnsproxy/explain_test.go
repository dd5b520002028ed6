package dnsproxy

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
)

func TestExplainNamesTheSourceOfEachAnswer(t *testing.T) {
	o := taskOptions()
	o.Programmed = func(service string, _ api.Protocol) bool { return service != "empty.shop" }
	o.Up = func(s api.Service, b api.Backend) bool { return b.Address.Port() != 8081 }
	up := newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.7"))
	s := fleet()
	s.Records = append(s.Records, api.Record{Name: "host.default", Type: api.RecordA, Data: []string{"10.9.9.9"}})
	p := proxyOf(t, compile(t, s, o), up.at)
	resolve(t, p, "example.com.", dns.TypeA)
	for name, want := range map[string][]string{
		"web.shop.weir.internal": {`"status":"exists"`, `"zone":"weir.internal."`, `A 10.80.0.11","source":"service web.shop"}`,
			`A 10.80.0.12","source":"service web.shop","why":"the backend is not healthy"`, `A 10.80.0.13","source":"service web.shop","why":"the backend is declared draining"`},
		"empty.shop.vip.mesos.":         {`"status":"missing"`, `A 198.18.0.9","source":"service empty.shop","why":"the kernel does not serve`},
		"anything.apps.mesos":           {`"status":"wildcard"`, `"entry":"*.apps.mesos."`, `"source":"record *.apps (A)"`},
		"myapp.sub.outer.mesos":         {`A 10.81.0.1","source":"task outer_sub_myapp.1"`},
		"host.marathon.mesos":           {`A 10.80.0.11","source":"task host.1"`, `A 10.80.0.31","source":"task host.2","why":"the task host.2 fails its health check"`},
		"host.default.mesos":            {`A 10.9.9.9","source":"record host.default (A)"`, `A 10.80.0.11","source":"task host.1","why":"another source's`},
		"web.shop.dclb.thisdcos.global": {`"entry":"web.shop.l4lb.thisdcos.directory."`, `A 198.18.0.10","source":"service web.shop"`},
		"11.0.80.10.in-addr.arpa":       {`PTR a1.node.weir.internal.","source":"node a1"}`, `"why":"the address has one name`},
		"nothing.weir.internal":         {`"status":"missing","zone":"weir.internal."`},
		"example.com":                   {`"status":"outside"`, `"forward_zone":"."`, up.at.String(), `"cache":[{"name":"example.com."`},
		"a.onion":                       {`"reason":"the name has a meaning of its own`},
	} {
		e, err := p.Explain(name)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := json.Marshal(e)
		for _, part := range want {
			if !strings.Contains(string(b), part) {
				t.Errorf("%s: got %s, want %s in it", name, b, part)
			}
		}
	}
	if _, err := p.Explain("a..b"); err == nil {
		t.Error("a name that cannot be is explained")
	}
	if e, _ := proxyOf(t, compile(t, fleet(), options())).Explain("example.com"); !strings.Contains(e.Reason, "refused") {
		t.Errorf("without upstreams: got %v", e)
	}
}

func TestHTTPInterfaceOfMesosDNS(t *testing.T) {
	up := newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.7"))
	p := proxyOf(t, compile(t, fleet(), taskOptions()), up.at)
	server := httptest.NewServer(http.StripPrefix("/mesos_dns", p.MesosDNS()))
	defer server.Close()
	get := func(path string) string {
		r, err := http.Get(server.URL + "/mesos_dns" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		var v json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&v); err != nil || r.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("%s: status %d, %v", path, r.StatusCode, err)
		}
		return string(v)
	}
	for path, want := range map[string]string{
		"/v1/hosts/host.marathon.mesos":             `[{"host":"host.marathon.mesos.","ip":"10.80.0.11"},{"host":"host.marathon.mesos.","ip":"fd00::11"}]`,
		"/v1/hosts/Host.marathon.mesos.":            `[{"host":"host.marathon.mesos.","ip":"10.80.0.11"},{"host":"host.marathon.mesos.","ip":"fd00::11"}]`,
		"/v1/hosts/nothing.mesos":                   `[{"host":"","ip":""}]`,
		"/v1/hosts/example.com":                     `[{"host":"","ip":""}]`,
		"/v1/services/_mapped._tcp.marathon.mesos":  `[{"service":"_mapped._tcp.marathon.mesos.","host":"` + distinct("mapped", "mapped.1") + `.marathon.mesos.","ip":"10.81.0.3","port":"80"}]`,
		"/v1/services/_nothing._tcp.marathon.mesos": `[{"service":"","host":"","ip":"","port":""}]`,
	} {
		if got := get(path); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	for path, want := range map[string][]string{
		"/v1/version":   {`"Service":"Mesos-DNS"`, `"Version":`, `"URL":`},
		"/v1/config":    {`"Domain":"mesos"`, `"TTL":5`, `"SOAMname":"ns.mesos."`, up.at.String()},
		"/v1/enumerate": {`{"frameworks":[{"tasks":[{"name":"broker-0","id":"broker-0.1","records":[{"name":"`, `"name":"kafka"}`, `{"name":"host.marathon.mesos.","host":"10.80.0.11","rtype":"A"}`},
		"/v1/axfr":      {`"TTL":5`, `"Serial":41`, `"Domain":"mesos"`, `"Records":{"As":{`, `"host.marathon.mesos.":["10.80.0.11"]`, `"_leader._tcp.mesos.":["leader.mesos.:8443"]`},
	} {
		got := get(path)
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: got %s, want %s in it", path, got, part)
			}
		}
	}
	p.Set(nil)
	if r, err := http.Get(server.URL + "/mesos_dns/v1/version"); err != nil || r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("before the first table: got %v, %v", r, err)
	}
}

func TestMetricsOfAnswers(t *testing.T) {
	reg := prometheus.NewRegistry()
	p, err := New(ServerOptions{Listen: anywhere().Listen, Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(compile(t, fleet(), options()))
	at := running(t, p)
	for _, name := range []string{"web.shop.vip.mesos.", "nothing.mesos.", "example.com."} {
		for _, network := range []string{"udp", "tcp"} {
			if _, _, err := (&dns.Client{Net: network}).Exchange(new(dns.Msg).SetQuestion(name, dns.TypeAAAA), at.String()); err != nil {
				t.Fatal(err)
			}
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			key := f.GetName()
			for _, l := range m.Label {
				key += " " + l.GetName() + "=" + l.GetValue()
			}
			if h := m.Histogram; h != nil {
				got[key] = float64(h.GetSampleCount())
				continue
			}
			got[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for key, want := range map[string]float64{
		"weir_dns_queries_total proto=udp rcode=noerror source=cluster":   1,
		"weir_dns_queries_total proto=tcp rcode=nxdomain source=cluster":  1,
		"weir_dns_zone_queries_total rcode=noerror type=AAAA zone=mesos":  2,
		"weir_dns_zone_queries_total rcode=nxdomain type=AAAA zone=mesos": 2,
		"weir_dns_zone_queries_total rcode=refused type=AAAA zone=.":      2,
		"weir_dns_query_duration_seconds source=local":                    6,
		"weir_dns_query_duration_seconds source=upstream":                 0,
		"weir_dns_table_serial": 41,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", key, v, ok, want)
		}
	}
}

package dnsproxy

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

// dump is every record of a table as text, sorted.
func dump(t *testing.T, table *Table) string {
	p := proxyOf(t, table)
	var lines []string
	for at := range table.all() {
		name := readable(string(at.name())) + "."
		if at.shown == 0 {
			lines = append(lines, name+" (empty)")
		}
		for _, set := range at.shownSets() {
			m := new(dns.Msg).SetQuestion(name, set.rtype)
			packet, _ := m.Pack()
			w := workerOf(p)
			w.from.tcp = true
			out := make([]byte, tcpSize)
			n, _ := w.serve(packet, out, 0)
			for _, rr := range unpack(t, out[:n]).Answer {
				if rr.Header().Name == name {
					lines = append(lines, strings.ReplaceAll(rr.String(), "\t", " "))
				}
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n") + "\n"
}

func TestEveryNameOfTheFleet(t *testing.T) {
	got := dump(t, compile(t, fleet(), options()))
	const file = "testdata/fleet.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the names differ from %s; got:\n%s", file, got)
	}
}

func TestVIPNameWaitsUntilProgrammedAndThenStays(t *testing.T) {
	o := options()
	programmed := false
	o.Programmed = func(service string, p api.Protocol) bool { return programmed || service != "web.shop" || p != api.TCP }
	name := "web.shop.vip.weir.internal."
	first := compile(t, fleet(), o)
	if m := ask(t, proxyOf(t, first), name, dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("before it is programmed: got %v, want NXDOMAIN", m)
	}
	if m := ask(t, proxyOf(t, first), "10.0.18.198.in-addr.arpa.", dns.TypePTR); len(m.Answer) != 0 {
		t.Errorf("its address has a name already: %v", m)
	}
	programmed, o.Previous = true, first
	second := compile(t, fleet(), o)
	programmed, o.Previous = false, second
	third := compile(t, fleet(), o)
	for i, table := range []*Table{second, third} {
		if m := ask(t, proxyOf(t, table), name, dns.TypeA); len(m.Answer) != 1 {
			t.Errorf("table %d: got %v, want an address", i, m)
		}
	}
}

func TestServiceAnswersHealthyBackendsOnly(t *testing.T) {
	o := options()
	o.Up = func(s api.Service, b api.Backend) bool { return b.Address.Addr() != netip.MustParseAddr("10.80.0.12") }
	p := proxyOf(t, compile(t, fleet(), o))
	got := texts(ask(t, p, "web.shop.weir.internal.", dns.TypeA).Answer)
	if want := []string{"web.shop.weir.internal. A 10.80.0.11"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	o.Up = func(api.Service, api.Backend) bool { return false }
	p = proxyOf(t, compile(t, fleet(), o))
	for _, name := range []string{"web.shop.weir.internal.", "_web._tcp.shop.weir.internal."} {
		if m := ask(t, p, name, dns.TypeSRV); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
			t.Errorf("%s without a healthy backend: got %v, want NODATA", name, m)
		}
	}
}

func TestServiceRecordsCarryTheirTargetsAddresses(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	for name, want := range map[string][]string{
		"_web._tcp.shop.weir.internal.":        {"10-80-0-11.web.shop.weir.internal. A 10.80.0.11", "10-80-0-12.web.shop.weir.internal. A 10.80.0.12"},
		"_pay._tcp.shop.vip.mesos.":            {"pay.shop.vip.mesos. A 198.18.0.11", "pay.shop.vip.mesos. AAAA fd77:6569:7200::11"},
		"_pay._tcp.eu.shop.vip.weir.internal.": {"pay.shop.vip.weir.internal. A 198.18.0.11", "pay.shop.vip.weir.internal. AAAA fd77:6569:7200::11"},
		"_ldap._tcp.weir.internal.":            {"dir.weir.internal. A 10.80.0.40", "dir.weir.internal. A 10.80.0.41"},
	} {
		m := ask(t, p, name, dns.TypeSRV, edns(1232))
		got := texts(m.Extra)
		slices.Sort(got)
		if len(m.Answer) != 2 || !slices.Equal(got, want) {
			t.Errorf("%s: %d answers, additional %v, want 2 and %v", name, len(m.Answer), got, want)
		}
	}
}

func TestConflictsNameTheDocument(t *testing.T) {
	for _, c := range []struct {
		want   string
		record api.Record
	}{
		{"record web.shop (CNAME): a CNAME has its name for itself", api.Record{Name: "web.shop", Type: api.RecordCNAME, Data: []string{"dir"}}},
		{"record web.shop.vip (A): the name web.shop.vip.weir.internal has A records of vip web.shop already", api.Record{Name: "web.shop.vip", Type: api.RecordA, Data: []string{"10.0.0.1"}}},
		{"record alias (TXT): a CNAME has its name for itself", api.Record{Name: "alias", Type: api.RecordTXT, Data: []string{"x"}}},
		{"record dir.weir.internal. (A): the name dir.weir.internal has A records of record dir (A)", api.Record{Name: "dir.weir.internal.", Type: api.RecordA, Data: []string{"10.0.0.1"}}},
		{"record weir.internal. (CNAME): a CNAME has its name for itself", api.Record{Name: "weir.internal.", Type: api.RecordCNAME, Data: []string{"dir"}}},
		{"record www.example.com. (A): the name lies in none", api.Record{Name: "www.example.com.", Type: api.RecordA, Data: []string{"10.0.0.1"}}},
		{"record loop (CNAME): the CNAME at loop.weir.internal leads", api.Record{Name: "loop", Type: api.RecordCNAME, Data: []string{"loop"}}},
		{"longer than the 253 characters", api.Record{Name: strings.Repeat("a234567890.", 22) + "aaaaaaa", Type: api.RecordA, Data: []string{"10.0.0.1"}}},
	} {
		s := fleet()
		s.Records = append(s.Records, c.record)
		if _, err := Compile(s, options()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	s := fleet()
	s.Services = append(s.Services, api.Service{Name: "a1", Namespace: "node", VIPs: vips("198.18.1.1:1"), Backends: []api.Backend{backend("10.0.0.1:1")}})
	want := "service a1.node: the name a1.node.weir.internal has A records of node a1 already"
	if _, err := Compile(s, options()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestDomainsThatCannotBe(t *testing.T) {
	for _, o := range []Options{
		{}, {Domain: "a..b"}, {Domain: "weir.internal", Aliases: []string{"internal"}}, {Domain: strings.Repeat("x", 64)},
	} {
		if _, err := Compile(fleet(), o); err == nil || !strings.Contains(err.Error(), "read domain") {
			t.Errorf("domain %q, aliases %q: got %v", o.Domain, o.Aliases, err)
		}
	}
}

func TestLargeTableAnswersEveryName(t *testing.T) {
	s := &api.Snapshot{Revision: 1}
	for i := range 5000 {
		s.Records = append(s.Records, api.Record{Name: fmt.Sprintf("n%d", i), Type: api.RecordA, Data: []string{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String()}})
	}
	p := proxyOf(t, compile(t, s, Options{Domain: "weir.internal"}))
	for i := range 5000 {
		m := ask(t, p, fmt.Sprintf("n%d.weir.internal.", i), dns.TypeA)
		if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A[2] != byte(i>>8) || m.Answer[0].(*dns.A).A[3] != byte(i) {
			t.Fatalf("name %d: got %v", i, m)
		}
	}
}

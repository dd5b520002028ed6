package dnsproxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// nothing denies every name.
func nothing(t testing.TB) *fakeUpstream {
	return newUpstream(t, answering(dns.RcodeNameError, "example. 900 IN SOA ns.example. root.example. 1 2 3 4 60"))
}

func TestDenialHoldsForEveryTypeAndAllBelow(t *testing.T) {
	up, corp := nothing(t), says(t, "192.0.2.9")
	p := proxyOf(t, compile(t, fleet(), options()))
	if err := p.SetForwarding(Forwarding{Zones: []ForwardZone{{".", upstreams(up)}, {"corp.nothing.example", upstreams(corp)}}}); err != nil {
		t.Fatal(err)
	}
	resolve(t, p, "nothing.example.", dns.TypeA)
	for name, qtype := range map[string]uint16{"nothing.example.": dns.TypeAAAA, "NOTHING.example.": dns.TypeTXT, "below.nothing.example.": dns.TypeA, "far.below.nothing.example.": dns.TypeMX} {
		m := resolve(t, p, name, qtype, edns(1232))
		if m.Rcode != dns.RcodeNameError || len(m.Ns) != 1 || m.Ns[0].Header().Name != "example." {
			t.Errorf("%s: got %v", name, m)
		}
	}
	if n := up.queries.Load(); n != 1 {
		t.Errorf("%d queries, want 1 (RFC 8020)", n)
	}
	// Neither beside it, nor with DO (which wants proof), nor in another's zone.
	resolve(t, p, "x-nothing.example.", dns.TypeA)
	resolve(t, p, "example.", dns.TypeA)
	resolve(t, p, "below.nothing.example.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, true) })
	if n := up.queries.Load(); n != 4 {
		t.Errorf("%d queries, want 4", n)
	}
	if got := first(resolve(t, p, "www.corp.nothing.example.", dns.TypeA)); got != "192.0.2.9" {
		t.Errorf("in a forward zone below: got %s", got)
	}
	later(p, 61*time.Second)
	if resolve(t, p, "below.nothing.example.", dns.TypeA); up.queries.Load() != 5 {
		t.Error("the denial outlives its SOA")
	}
}

func TestNameThatAppearsIsNoLongerDenied(t *testing.T) {
	exists := make(chan bool, 1)
	exists <- false
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		is := <-exists
		exists <- is
		if is && r.Question[0].Qtype == dns.TypeA {
			answering(dns.RcodeSuccess, "%s 600 IN A 192.0.2.1")(w, r)
			return
		}
		rcode := dns.RcodeNameError
		if is {
			rcode = dns.RcodeSuccess
		}
		answering(rcode, "example. 900 IN SOA ns.example. root.example. 1 2 3 4 60")(w, r)
	})
	p := cluster(t, up)
	resolve(t, p, "new.example.", dns.TypeA)
	<-exists
	exists <- true
	later(p, 61*time.Second)
	if m := resolve(t, p, "new.example.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("got %v", m)
	}
	if m := resolve(t, p, "new.example.", dns.TypeAAAA); m.Rcode != dns.RcodeSuccess {
		t.Errorf("got %v, want NODATA", m)
	}
	entries, _ := p.Dump("new.example", 0)
	if len(entries) != 2 {
		t.Errorf("kept: %+v", entries)
	}
}

// TestSearchListCostsUpstreamsNothing walks a search list as resolvers do with
// ndots:5: every suffix before the name as it is, A and AAAA each.
func TestSearchListCostsUpstreamsNothing(t *testing.T) {
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if strings.HasSuffix(strings.ToLower(r.Question[0].Name), "corp.example.") {
			answering(dns.RcodeNameError, "corp.example. 900 IN SOA ns.example. root.example. 1 2 3 4 60")(w, r)
			return
		}
		address := "%s 60 IN A 192.0.2.1"
		if r.Question[0].Qtype == dns.TypeAAAA {
			address = "%s 60 IN AAAA 2001:db8::1"
		}
		answering(dns.RcodeSuccess, address)(w, r)
	})
	p := cluster(t, up)
	for range 3 {
		for _, suffix := range []string{"shop.weir.internal.", "vip.weir.internal.", "weir.internal.", "mesos.", "corp.example.", ""} {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
				resolve(t, p, "api.github.com."+suffix, qtype)
			}
		}
	}
	// Of 36 questions: one for corp.example, and A and AAAA of the name itself.
	if n := up.queries.Load(); n != 3 {
		t.Errorf("the upstream saw %d of 36 questions, want those three", n)
	}
}

func TestOversizedCachedAnswersAreCut(t *testing.T) {
	var records []string
	for i := range 60 {
		records = append(records, fmt.Sprintf("%%s 60 IN A 192.0.2.%d", i))
	}
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if !isTCP(w) {
			m := new(dns.Msg).SetReply(r)
			m.Truncated = true
			w.WriteMsg(m)
			return
		}
		answering(dns.RcodeSuccess, records...)(w, r)
	})
	p := cluster(t, up)
	resolve(t, p, "big.example.", dns.TypeA)
	for size, cut := range map[uint16]bool{0: true, 512: true, 900: true, 1232: false, 4096: false} {
		q := new(dns.Msg).SetQuestion("big.example.", dns.TypeA)
		if size > 0 {
			q.SetEdns0(size, false)
		}
		packet, _ := q.Pack()
		wire := raw(p, packet)
		if m := unpack(t, wire); m.Truncated != cut || len(wire) > max(512, int(size)) || !cut && len(m.Answer) != 60 {
			t.Errorf("EDNS size %d: %d bytes, TC %v, %d answers", size, len(wire), m.Truncated, len(m.Answer))
		}
	}
}

func TestCacheIsShownAndFlushed(t *testing.T) {
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if strings.HasPrefix(strings.ToLower(r.Question[0].Name), "no.") {
			answering(dns.RcodeNameError, "example. 900 IN SOA ns.example. root.example. 1 2 3 4 60")(w, r)
			return
		}
		address := "%s 60 IN A 192.0.2.1"
		if r.Question[0].Qtype == dns.TypeAAAA {
			address = "%s 60 IN AAAA 2001:db8::1"
		}
		answering(dns.RcodeSuccess, address)(w, r)
	})
	p := cluster(t, up)
	for range 3 {
		resolve(t, p, "a.x.example.", dns.TypeA)
	}
	resolve(t, p, "b.x.example.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, true); m.CheckingDisabled = true })
	resolve(t, p, "no.y.example.", dns.TypeTXT)
	resolve(t, p, "xx.example.", dns.TypeA)
	later(p, 10*time.Second)
	all, err := p.Dump(".", 0)
	if err != nil || len(all) != 4 {
		t.Fatalf("got %+v, %v", all, err)
	}
	a := all[0]
	if a.Name != "a.x.example." || a.Type != "A" || a.Rcode != "NOERROR" || !slices.Equal(a.Answer, []string{"a.x.example. 60 IN A 192.0.2.1"}) ||
		a.Upstream != up.at.String() || a.Age != 10 || a.TTL < 49 || a.TTL > 50 || a.Hits != 2 || a.Bytes < 50 || a.Secure {
		t.Errorf("got %+v", a)
	}
	for _, e := range all[1:] {
		switch e.Name {
		case "b.x.example.":
			if !e.Secure || !e.Unchecked {
				t.Errorf("got %+v", e)
			}
		case "no.y.example.":
			if e.Type != "*" || e.Rcode != "NXDOMAIN" || e.Answer != nil {
				t.Errorf("got %+v", e)
			}
		}
	}
	if one, _ := p.Dump("example", 1); len(one) != 1 || one[0].Name != "a.x.example." {
		t.Errorf("of at most one: got %+v", one)
	}
	for _, c := range []struct {
		name string
		want int
	}{{"x.example", 2}, {"X.example.", 0}, {"y.example", 1}, {".", 1}, {".", 0}} {
		if n, err := p.Flush(c.name); err != nil || n != c.want {
			t.Errorf("flush %s: %d, %v; want %d", c.name, n, err, c.want)
		}
	}
	if items, bytes := p.cache.size(); items != 0 || bytes != 0 {
		t.Errorf("%d items of %d bytes are left", items, bytes)
	}
	if _, err := p.Flush("a..b"); err == nil {
		t.Error("a..b is flushed")
	}
}

func TestTopNames(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	w, out := workerOf(p), make([]byte, udpSize)
	hot, _ := new(dns.Msg).SetQuestion("web.shop.vip.weir.internal.", dns.TypeA).Pack()
	const questions = 60_000
	for i := range questions {
		w.serve(hot, out, p.now())
		if i%10 == 0 {
			rare, _ := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.mesos.", i), dns.TypeAAAA).Pack()
			w.serve(rare, out, p.now())
		}
	}
	top := p.Top(3)
	if len(top) != 3 || top[0].Name != "web.shop.vip.weir.internal." || top[0].Type != "A" || top[0].Queries < questions*7/10 || top[0].Queries > questions*13/10 || top[1].Queries > questions/10 {
		t.Errorf("got %+v", top)
	}
}

func TestFloodOfNamesLeavesMemoryFlat(t *testing.T) {
	p, err := New(ServerOptions{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5353")}, CacheEntries: 1000, CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	now := p.now()
	for i := range 20_000 {
		var q query
		packet, _ := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.example.", i), dns.TypeA).Pack()
		q.parse(packet)
		c := &cached{denies: true, floating: true, wire: make([]byte, 80), rcode: dns.RcodeNameError, expires: now + 1e12}
		p.cache.keep(&q, c)
		if got, _ := p.cache.find(&q, 1, now); got != c {
			t.Fatal("not found")
		}
	}
	if items, bytes := p.cache.size(); items > 1000 || bytes > 1<<20 {
		t.Errorf("%d items of %d bytes", items, bytes)
	}
}

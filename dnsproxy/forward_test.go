package dnsproxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// resolve asks a proxy and waits for its upstreams.
func resolve(t testing.TB, p *Proxy, name string, qtype uint16, change ...func(*dns.Msg)) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	for _, c := range change {
		c(m)
	}
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	wire, _, err := p.ask(context.Background(), packet)
	if err != nil {
		t.Fatal(err)
	}
	answer := unpack(t, wire)
	if answer.Id != m.Id || !answer.Response || len(answer.Question) != 1 || answer.Question[0] != m.Question[0] {
		t.Fatalf("the answer is to another question: %v", answer)
	}
	return answer
}

// later moves a proxy's clock.
func later(p *Proxy, d time.Duration) {
	offset, _ := offsets.Load(p)
	offset.(*atomic.Int64).Add(int64(d))
}

// offsets of the clocks of proxies, by *Proxy.
var offsets sync.Map

func cluster(t testing.TB, upstreams ...*fakeUpstream) *Proxy {
	var at []netip.AddrPort
	for _, u := range upstreams {
		at = append(at, u.at)
	}
	return proxyOf(t, compile(t, fleet(), options()), at...)
}

func TestClusterNamesNeverLeave(t *testing.T) {
	up := newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1"))
	p := cluster(t, up)
	for _, name := range []string{"web.shop.vip.weir.internal.", "nothing.weir.internal.", "www.example.com.mesos.", "weir.internal.", "shop.mesos.", "x.11.0.80.10.in-addr.arpa."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeMX, dns.TypeANY, dns.TypeDS, dns.TypeAXFR} {
			resolve(t, p, name, qtype)
		}
	}
	if n := up.queries.Load(); n != 0 {
		t.Errorf("the upstream saw %d queries", n)
	}
	if resolve(t, p, "1.2.0.192.in-addr.arpa.", dns.TypePTR); up.queries.Load() != 1 {
		t.Error("a foreign reverse name is not forwarded")
	}
}

func TestCacheCountsDownTTLs(t *testing.T) {
	up := newUpstream(t, answering(dns.RcodeSuccess, "%s 100 IN CNAME real.example.", "real.example. 60 IN A 192.0.2.1", "forged.example. 60 IN A 192.0.2.66"))
	p := cluster(t, up)
	m := resolve(t, p, "Www.Example.com.", dns.TypeA, edns(1232))
	if len(m.Answer) != 2 || m.Authoritative || !m.RecursionAvailable || m.IsEdns0() == nil {
		t.Fatalf("got %v, want the alias and its address alone", m)
	}
	later(p, 20*time.Second)
	m = resolve(t, p, "www.example.COM.", dns.TypeA)
	if m.Answer[0].Header().Ttl != 80 || m.Answer[1].Header().Ttl != 40 || m.IsEdns0() != nil || up.queries.Load() != 1 {
		t.Errorf("after 20 s: got %v after %d queries", m, up.queries.Load())
	}
	later(p, 41*time.Second)
	if m = resolve(t, p, "www.example.com.", dns.TypeA); m.Answer[1].Header().Ttl != 60 || up.queries.Load() != 2 {
		t.Errorf("after 61 s: got %v after %d queries, want a fresh one", m, up.queries.Load())
	}
}

func TestNegativeAnswersAreKeptAsTheSOASays(t *testing.T) {
	for name, rcode := range map[string]int{"NXDOMAIN": dns.RcodeNameError, "NODATA": dns.RcodeSuccess} {
		up := newUpstream(t, answering(rcode, "example. 900 IN SOA ns.example. root.example. 1 2 3 4 30"))
		p := cluster(t, up)
		resolve(t, p, "no.example.", dns.TypeA)
		later(p, 29*time.Second)
		if m := resolve(t, p, "no.example.", dns.TypeA); m.Rcode != rcode || len(m.Ns) != 1 || m.Ns[0].Header().Ttl != 871 || up.queries.Load() != 1 {
			t.Errorf("%s after 29 s: got %v after %d queries", name, m, up.queries.Load())
		}
		later(p, 2*time.Second)
		if resolve(t, p, "no.example.", dns.TypeA); up.queries.Load() != 2 {
			t.Errorf("%s after 31 s: %d queries, want 2", name, up.queries.Load())
		}
	}
	up := newUpstream(t, answering(dns.RcodeNameError)) // without an SOA it must not be kept
	p := cluster(t, up)
	resolve(t, p, "no.example.", dns.TypeA)
	if resolve(t, p, "no.example.", dns.TypeA); up.queries.Load() != 2 {
		t.Errorf("without SOA: %d queries, want 2", up.queries.Load())
	}
}

func TestGoodAnswerBeatsFastFailure(t *testing.T) {
	for _, rcode := range []int{dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented} {
		bad, good := newUpstream(t, answering(rcode)), newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1"))
		if m := resolve(t, cluster(t, bad, good), "example.com.", dns.TypeA); len(m.Answer) != 1 {
			t.Errorf("after %s: got %v", dns.RcodeToString[rcode], m)
		}
	}
}

func TestSilentUpstreamIsPassedAndThenAvoided(t *testing.T) {
	dead, good := newUpstream(t, silent), newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1"))
	p := cluster(t, dead, good)
	if m := resolve(t, p, "a.example.", dns.TypeA); len(m.Answer) != 1 {
		t.Fatalf("got %v", m)
	}
	resolve(t, p, "b.example.", dns.TypeA)
	if n := dead.queries.Load(); n != 1 {
		t.Errorf("by the second question the silent one was asked %d times, want 1", n)
	}
	later(p, time.Hour)
	resolve(t, p, "c.example.", dns.TypeA)
	if resolve(t, p, "d.example.", dns.TypeA); dead.queries.Load() < 2 {
		t.Error("the silent one is never tried again")
	}
}

func TestLateAnswerStillWins(t *testing.T) {
	slow := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		time.Sleep(150 * time.Millisecond)
		answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1")(w, r)
	})
	bad := newUpstream(t, answering(dns.RcodeServerFailure))
	if m := resolve(t, cluster(t, slow, bad), "example.com.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("got %v", m)
	}
}

func TestAllUpstreamsFail(t *testing.T) {
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	refused := &fakeUpstream{at: closed.LocalAddr().(*net.UDPAddr).AddrPort()}
	p := cluster(t, newUpstream(t, answering(dns.RcodeServerFailure)), newUpstream(t, silent), refused)
	m := resolve(t, p, "example.com.", dns.TypeA, edns(1232))
	if m.Rcode != dns.RcodeServerFailure || len(m.Answer) != 0 {
		t.Errorf("got %v, want SERVFAIL", m)
	}
	if m := ask(t, p, "example.com.", dns.TypeA, edns(1232)); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("asked again at once: got %v, want the kept failure", m)
	}
}

func TestOldAnswersServeWhileNoUpstreamDoes(t *testing.T) {
	broken := false
	var mu sync.Mutex
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		mu.Lock()
		defer mu.Unlock()
		rcode := dns.RcodeSuccess
		if broken {
			rcode = dns.RcodeServerFailure
		}
		if broken {
			answering(rcode)(w, r)
			return
		}
		answering(rcode, "%s 60 IN A 192.0.2.1")(w, r)
	})
	p := cluster(t, up)
	p.flights.staleFor = time.Hour
	resolve(t, p, "example.com.", dns.TypeA)
	mu.Lock()
	broken = true
	mu.Unlock()
	later(p, 30*time.Minute)
	for i := range 2 {
		if m := resolve(t, p, "example.com.", dns.TypeA); len(m.Answer) != 1 || m.Answer[0].Header().Ttl != staleTTL {
			t.Errorf("stale answer %d: got %v, want a TTL of %d", i, m, staleTTL)
		}
	}
	if n := up.queries.Load(); n != 2 {
		t.Errorf("%d queries, want 2: a failing upstream is asked again after %s", n, staleRecheck)
	}
	later(p, 31*time.Minute)
	if m := resolve(t, p, "example.com.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("more than an hour past its end: got %v, want SERVFAIL", m)
	}
}

func TestEqualQuestionsFlyOnce(t *testing.T) {
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		time.Sleep(30 * time.Millisecond)
		answering(dns.RcodeSuccess, "%s 0 IN A 192.0.2.1")(w, r)
	})
	p := cluster(t, up)
	var wg sync.WaitGroup
	for i := range 20 {
		name := "example.com."
		if i%2 == 0 {
			name = "EXAMPLE.com."
		}
		wg.Go(func() {
			if m := resolve(t, p, name, dns.TypeA); len(m.Answer) != 1 || m.Question[0].Name != name {
				t.Errorf("got %v", m)
			}
		})
	}
	wg.Wait()
	if n := up.queries.Load(); n != 1 {
		t.Errorf("%d queries, want 1", n)
	}
	if resolve(t, p, "example.com.", dns.TypeA); up.queries.Load() != 2 {
		t.Error("an answer with a TTL of 0 is kept")
	}
}

func TestCutAnswerIsFetchedOverTCP(t *testing.T) {
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
			m := new(dns.Msg).SetReply(r)
			m.Truncated = true
			w.WriteMsg(m)
			return
		}
		var records []string
		for i := range 100 {
			records = append(records, fmt.Sprintf("%%s 60 IN A 192.0.2.%d", i))
		}
		answering(dns.RcodeSuccess, records...)(w, r)
	})
	p := cluster(t, up)
	if m := resolve(t, p, "big.example.", dns.TypeA); len(m.Answer) != 100 || m.Truncated {
		t.Errorf("got %d answers, TC %v", len(m.Answer), m.Truncated)
	}
	if m := ask(t, p, "big.example.", dns.TypeA); !m.Truncated || len(m.Answer) != 0 {
		t.Errorf("over UDP: got %v, want TC", m)
	}
}

func TestForgedRepliesAreIgnored(t *testing.T) {
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		for _, forge := range []func(*dns.Msg){
			func(m *dns.Msg) { m.Id++ },
			func(m *dns.Msg) { m.Question[0].Name = "evil.example." },
			func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
			func(m *dns.Msg) { m.Response = false },
			func(m *dns.Msg) { m.Question = nil },
		} {
			m := new(dns.Msg).SetReply(r)
			rr, _ := dns.NewRR(r.Question[0].Name + " 60 IN A 192.0.2.66")
			m.Answer = append(m.Answer, rr)
			forge(m)
			w.WriteMsg(m)
		}
		w.Write([]byte{1, 2, 3})
		answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1")(w, r)
	})
	m := resolve(t, cluster(t, up), "example.com.", dns.TypeA)
	if got := texts(m.Answer); !slices.Equal(got, []string{"example.com. A 192.0.2.1"}) {
		t.Errorf("got %v", got)
	}
}

func TestServerWithoutEDNS(t *testing.T) {
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if r.IsEdns0() != nil {
			m := new(dns.Msg).SetRcode(r, dns.RcodeFormatError)
			w.WriteMsg(m)
			return
		}
		answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1")(w, r)
	})
	if m := resolve(t, cluster(t, up), "example.com.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("got %v", m)
	}
}

func TestUnknownTypesAndDNSSECPass(t *testing.T) {
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		records := []string{`%s 60 IN TYPE65400 \# 3 010203`}
		if r.IsEdns0().Do() && r.CheckingDisabled {
			records = append(records, "%s 60 IN RRSIG TYPE65400 8 2 60 20300101000000 20200101000000 1 example.com. AAAA")
		}
		answering(dns.RcodeSuccess, records...)(w, r)
	})
	p := cluster(t, up)
	if m := resolve(t, p, "example.com.", 65400); len(m.Answer) != 1 || !strings.Contains(m.Answer[0].String(), "010203") {
		t.Errorf("got %v", m)
	}
	secure := func(m *dns.Msg) { m.SetEdns0(1232, true); m.CheckingDisabled = true }
	if m := resolve(t, p, "example.com.", 65400, secure); len(m.Answer) != 2 || !m.IsEdns0().Do() || !m.CheckingDisabled {
		t.Errorf("with DO and CD: got %v", m)
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(10*cacheShards, 1<<20)
	for i := range 5000 {
		c.put(fmt.Append(nil, "key", i), &cached{wire: make([]byte, 100)})
		c.get([]byte("key7")) // asked all the time, so it stays
	}
	if n, bytes := c.size(); n > 10*cacheShards || n < 6*cacheShards || bytes > 1<<20 {
		t.Errorf("%d items of %d bytes, want at most 640", n, bytes)
	}
	if c.get([]byte("key7")) == nil {
		t.Error("the hottest item was evicted")
	}
	c = newCache(1<<20, cacheShards*10_000)
	for i := range 5000 {
		c.put(fmt.Append(nil, "key", i), &cached{wire: make([]byte, i%2000)})
		c.put(fmt.Append(nil, "key", i), &cached{wire: make([]byte, i%1000)})
	}
	if n, bytes := c.size(); bytes > cacheShards*10_000 || n == 0 {
		t.Errorf("%d items of %d bytes, want at most 640,000", n, bytes)
	}
	total := 0
	for i := range c.shards {
		for _, item := range c.shards[i].items {
			total += item.size()
		}
	}
	if _, bytes := c.size(); total != bytes {
		t.Errorf("counted %d bytes, but they are %d", bytes, total)
	}
}

func TestMissesAreBounded(t *testing.T) {
	p := cluster(t, newUpstream(t, silent))
	const most = 100
	p.flights.limit, p.flights.most = 2*time.Second, most
	var wg sync.WaitGroup
	var mu sync.Mutex
	answers := 0
	for i := range most + 50 {
		packet, _ := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.example.", i), dns.TypeA).Pack()
		w := workerOf(p)
		if _, miss := w.serve(packet, make([]byte, udpSize), p.now()); !miss {
			t.Fatal("no miss")
		}
		wg.Add(1)
		w.submit(func(answer []byte) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			if m := unpack(t, answer); m.Rcode == dns.RcodeServerFailure {
				answers++
			}
		})
	}
	wg.Wait()
	if n := p.flights.overload.Load(); n != 50 || answers != most+50 {
		t.Errorf("%d turned away, %d of %d answered with SERVFAIL", n, answers, most+50)
	}
}

func TestCachedHitAllocatesNothing(t *testing.T) {
	p := cluster(t, newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1")))
	resolve(t, p, "example.com.", dns.TypeA)
	w, out := workerOf(p), make([]byte, udpSize)
	packet, _ := new(dns.Msg).SetQuestion("example.com.", dns.TypeA).Pack()
	if n := testing.AllocsPerRun(200, func() { w.serve(packet, out, p.now()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestForwardingThroughTheSockets(t *testing.T) {
	up := newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1"))
	at := running(t, cluster(t, up)).String()
	for range 2 {
		m, _, err := (&dns.Client{}).Exchange(new(dns.Msg).SetQuestion("example.com.", dns.TypeA), at)
		if err != nil || len(m.Answer) != 1 {
			t.Errorf("got %v, %v", m, err)
		}
	}
}

func TestRunEndsWhileQuestionsWait(t *testing.T) {
	p := cluster(t, newUpstream(t, silent))
	p.flights.limit = time.Minute
	at := running(t, p).String() // its clean-up fails when Run does not end
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(frame(1, "example.com."))
	time.Sleep(20 * time.Millisecond)
}

func TestAliasToAnothersNameIsFollowed(t *testing.T) {
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if r.Question[0].Qtype == dns.TypeA {
			answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1", "%s 60 IN A 192.0.2.2")(w, r)
		} else {
			answering(dns.RcodeNameError, "com. 60 IN SOA ns.example. root.example. 1 2 3 4 30")(w, r)
		}
	})
	p := cluster(t, up)
	for range 2 {
		m := resolve(t, p, "Outside.mesos.", dns.TypeA, edns(1232))
		want := []string{"Outside.mesos. CNAME example.com.", "example.com. A 192.0.2.1", "example.com. A 192.0.2.2"}
		if got := texts(m.Answer); !slices.Equal(got, want) || m.IsEdns0() == nil {
			t.Errorf("got %v, want %v", m, want)
		}
	}
	if m := resolve(t, p, "outside.mesos.", dns.TypeMX); m.Rcode != dns.RcodeNameError || len(m.Answer) != 1 || len(m.Ns) != 1 {
		t.Errorf("to a name that is not there: got %v", m)
	}
	if n := up.queries.Load(); n != 2 {
		t.Errorf("%d queries, want 2", n)
	}
	at := running(t, p).String()
	if m, _, err := (&dns.Client{}).Exchange(new(dns.Msg).SetQuestion("outside.mesos.", dns.TypeA), at); err != nil || len(m.Answer) != 3 {
		t.Errorf("through the socket: got %v, %v", m, err)
	}
	p = cluster(t, newUpstream(t, answering(dns.RcodeServerFailure)))
	if m := resolve(t, p, "outside.mesos.", dns.TypeA); m.Rcode != dns.RcodeServerFailure || len(m.Answer) != 1 {
		t.Errorf("without an answer: got %v", m)
	}
}

func TestNameThatBecomesOursIsNotForwarded(t *testing.T) {
	up := newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1"))
	p := cluster(t, up)
	w := workerOf(p)
	packet, _ := new(dns.Msg).SetQuestion("web.shop.vip.later.example.", dns.TypeA).Pack()
	if _, miss := w.serve(packet, make([]byte, udpSize), p.now()); !miss {
		t.Fatal("no miss")
	}
	o := options()
	o.Aliases = []string{"mesos", "later.example"}
	p.Set(compile(t, fleet(), o))
	answered := make(chan []byte, 1)
	w.submit(func(answer []byte) { answered <- answer })
	if m := unpack(t, <-answered); len(m.Answer) != 1 || !m.Authoritative || up.queries.Load() != 0 {
		t.Errorf("got %v after %d queries", m, up.queries.Load())
	}
}

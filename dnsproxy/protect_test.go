package dnsproxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
)

// as lets a worker serve a datagram from an address.
func as(w *worker, a string) {
	addr := netip.MustParseAddr(a)
	raw := &unix.RawSockaddrInet6{}
	if addr.Is4() {
		bytes4 := addr.As4()
		raw.Family = unix.AF_INET
		raw.Flowinfo = binary.NativeEndian.Uint32(bytes4[:]) // where struct sockaddr_in has the address
	} else {
		raw.Family, raw.Addr = unix.AF_INET6, addr.As16()
	}
	w.from = client{sender: raw}
}

func TestAnswersToStrangersAreLimited(t *testing.T) {
	p := cluster(t, says(t, "192.0.2.1"))
	resolve(t, p, "example.com.", dns.TypeA)
	ask := func(from, name string) (sent, cut, dropped int) {
		w, out := workerOf(p), make([]byte, udpSize)
		packet, _ := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		for i := range 200 {
			if as(w, from); i%2 == 1 && strings.HasPrefix(from, "203.0.113.") {
				as(w, "203.0.113.77") // the same network
			}
			n, miss := w.serve(packet, out, p.now())
			switch {
			case miss || n == 0:
				dropped++
			case unpack(t, out[:n]).Truncated:
				cut++
			default:
				sent++
			}
		}
		return
	}
	for from, limited := range map[string]bool{
		"203.0.113.5": true, "2001:db8:1:2::3": true, "127.0.0.1": false, "10.1.2.3": false, "169.254.53.53": false, "fd00::1": false, "fe80::1": false, "100.64.1.1": false,
	} {
		sent, cut, dropped := ask(from, "example.com.")
		if limited && (sent < 20 || sent > 30 || cut < 80 || dropped < 80) || !limited && sent != 200 {
			t.Errorf("%s: %d sent, %d cut, %d dropped", from, sent, cut, dropped)
		}
	}
	if sent, _, _ := ask("203.0.114.5", "web.shop.vip.mesos."); sent != 200 {
		t.Errorf("of the cluster's own names %d of 200 are answered", sent)
	}
	if p.limit.slipped.Load() == 0 || p.limit.dropped.Load() == 0 {
		t.Error("nothing is counted")
	}
	later(p, time.Second)
	if sent, _, _ := ask("203.0.113.5", "example.com."); sent < 20 {
		t.Errorf("a second later %d are sent", sent)
	}
	// Over TCP the client has proved its address.
	w := workerOf(p)
	w.from = client{tcp: true, peer: netip.MustParseAddr("203.0.113.5")}
	packet, _ := new(dns.Msg).SetQuestion("example.com.", dns.TypeA).Pack()
	for range 100 {
		if n, _ := w.serve(packet, make([]byte, tcpSize), p.now()); n == 0 {
			t.Fatal("no answer over TCP")
		}
	}
}

func TestOneClientCannotTakeAllPlaces(t *testing.T) {
	p := cluster(t, newUpstream(t, silent))
	const most = 60
	p.flights.limit, p.flights.perOne = 2*time.Second, most
	var wg sync.WaitGroup
	var failed sync.Map
	ask := func(from, name string) {
		packet, _ := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		w := workerOf(p)
		as(w, from)
		if _, miss := w.serve(packet, make([]byte, udpSize), p.now()); !miss {
			t.Fatal("no miss")
		}
		wg.Add(1)
		start := time.Now()
		w.submit(func([]byte) {
			if time.Since(start) < 500*time.Millisecond {
				failed.Store(from+name, true)
			}
			wg.Done()
		})
	}
	for i := range most + 100 {
		ask("10.0.0.1", fmt.Sprintf("n%d.example.", i))
	}
	ask("10.0.0.2", "other.example.")
	wg.Wait()
	n := 0
	failed.Range(func(key, _ any) bool {
		if n++; !strings.HasPrefix(key.(string), "10.0.0.1n") {
			t.Errorf("%s was turned away", key)
		}
		return true
	})
	if p.flights.overload.Load() != 100 || n < 100 {
		t.Errorf("%d turned away, want 100", p.flights.overload.Load())
	}
	p.flights.mu.Lock()
	defer p.flights.mu.Unlock()
	if len(p.flights.clients) != 0 || len(p.flights.flying) != 0 {
		t.Errorf("%d clients and %d flights are left", len(p.flights.clients), len(p.flights.flying))
	}
}

func TestFloodLeavesGoroutinesFlat(t *testing.T) {
	hole, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	p := cluster(t, &fakeUpstream{at: hole.LocalAddr().(*net.UDPAddr).AddrPort()})
	p.flights.limit = 200 * time.Millisecond
	at := running(t, p)
	conn, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before, worst := runtime.NumGoroutine(), 0
	for i := range 8_000 {
		packet, _ := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.example.", i), dns.TypeA).Pack()
		conn.Write(packet)
		if i%500 == 0 {
			worst = max(worst, runtime.NumGoroutine())
		}
	}
	// A timer that fires is a goroutine for a moment; no question has more.
	if worst-before > p.flights.most+100 {
		t.Errorf("%d goroutines during the flood, %d before", worst, before)
	}
	deadline := time.Now().Add(15 * time.Second)
	for p.flights.size() > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d questions still wait", p.flights.size())
		}
		time.Sleep(10 * time.Millisecond)
	}
	for runtime.NumGoroutine() > before+50 { // the sockets to the upstream
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left of the flood, %d before", runtime.NumGoroutine(), before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestSlowReaderDelaysNobodyElse(t *testing.T) {
	var text []string
	for i := range 60 {
		text = append(text, fmt.Sprintf("%%s 60 IN A 192.0.2.%d", i))
	}
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) { answering(dns.RcodeSuccess, text...)(w, r) })
	p := cluster(t, up)
	p.forward.attempt, p.flights.limit = time.Second, 4*time.Second
	at := running(t, p)
	slow, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	slow.(*net.TCPConn).SetReadBuffer(1)
	go func() { // asks and never reads
		for i := range 20_000 {
			if _, err := slow.Write(frame(uint16(i), fmt.Sprintf("n%d.example.", i%200))); err != nil {
				return
			}
		}
	}()
	time.Sleep(50 * time.Millisecond)
	for i := range 20 {
		start := time.Now()
		m, _, err := (&dns.Client{Net: "tcp", Timeout: 5 * time.Second}).Exchange(new(dns.Msg).SetQuestion(fmt.Sprintf("other%d.example.", i), dns.TypeA), at.String())
		if err != nil || len(m.Answer) != 60 {
			t.Fatalf("another client after %s: got %v, %v", time.Since(start), m, err)
		}
	}
}

func TestIdleConnectionsMakeRoom(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	p.options.MaxConns = 4
	at := running(t, p).String()
	for range 4 {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write(frame(7, "mesos.")[:9]) // and no more: a slow client
	}
	ask := func() error {
		_, _, err := (&dns.Client{Net: "tcp", Timeout: 500 * time.Millisecond}).Exchange(new(dns.Msg).SetQuestion("mesos.", dns.TypeNS), at)
		return err
	}
	time.Sleep(makeRoomAfter + 200*time.Millisecond)
	if err := ask(); err != nil {
		t.Errorf("four slow clients keep others out: %v", err)
	}
}

func TestFrameThatIsTooLongEndsTheConnection(t *testing.T) {
	at := running(t, proxyOf(t, compile(t, fleet(), options()))).String()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	conn.Write(append([]byte{0x20, 0}, make([]byte, 100)...))
	if n, err := conn.Read(make([]byte, 10)); err == nil {
		t.Errorf("got %d bytes", n)
	}
}

func TestZoneTransfer(t *testing.T) {
	s := fleet()
	for i := range 2000 {
		s.Records = append(s.Records, api.Record{Name: fmt.Sprintf("host%d.rack", i), Type: api.RecordA, Data: []string{"10.0.0.1"}})
	}
	p := proxyOf(t, compile(t, s, options()))
	at := running(t, p).String()
	fetch := func(zone string) ([]dns.RR, error) {
		transfer := &dns.Transfer{}
		ch, err := transfer.In(new(dns.Msg).SetAxfr(zone), at)
		if err != nil {
			return nil, err
		}
		var all []dns.RR
		for e := range ch {
			if e.Error != nil {
				return nil, e.Error
			}
			all = append(all, e.RR...)
		}
		return all, nil
	}
	if all, err := fetch("mesos."); err == nil {
		t.Errorf("nobody is allowed, but %d records came", len(all))
	}
	if err := p.SetForwarding(Forwarding{Transfer: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}); err != nil {
		t.Fatal(err)
	}
	all, err := fetch("mesos.")
	if err != nil {
		t.Fatal(err)
	}
	if all[0].Header().Rrtype != dns.TypeSOA || all[len(all)-1].Header().Rrtype != dns.TypeSOA || all[0].(*dns.SOA).Serial != 41 {
		t.Error("the zone does not begin and end with its SOA")
	}
	var got []string
	for _, rr := range all[1 : len(all)-1] {
		got = append(got, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	var want []string
	for line := range strings.Lines(dump(t, p.Table())) {
		if line = strings.TrimSpace(line); strings.HasSuffix(strings.Fields(line)[0], "mesos.") && !strings.Contains(line, "(empty)") {
			want = append(want, line)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d records came, want %d", len(got), len(want))
	}
	for zone, rcode := range map[string]int{"shop.mesos.": dns.RcodeNotAuth, "example.": dns.RcodeNotAuth} {
		m, _, err := (&dns.Client{Net: "tcp"}).Exchange(new(dns.Msg).SetAxfr(zone), at)
		if err != nil || m.Rcode != rcode {
			t.Errorf("%s: got %v, %v", zone, m, err)
		}
	}
	if m, _, err := (&dns.Client{}).Exchange(new(dns.Msg).SetAxfr("mesos."), at); err != nil || m.Rcode != dns.RcodeRefused {
		t.Errorf("over UDP: got %v, %v", m, err)
	}
}

func TestSpecialNamesStayHere(t *testing.T) {
	up := says(t, "192.0.2.1")
	p := cluster(t, up)
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode int
		want  string
	}{
		{"localhost.", dns.TypeA, 0, "127.0.0.1"}, {"a.LocalHost.", dns.TypeA, 0, "127.0.0.1"}, {"localhost.", dns.TypeAAAA, 0, "::1"}, {"localhost.", dns.TypeMX, 0, ""},
		{"x.invalid.", dns.TypeA, dns.RcodeNameError, ""}, {"abc.onion.", dns.TypeA, dns.RcodeNameError, ""},
	} {
		m := ask(t, p, c.name, c.qtype, edns(1232))
		if m.Rcode != c.rcode || (len(m.Answer) == 1) != (c.want != "") || c.want != "" && !strings.HasSuffix(m.Answer[0].String(), "\t"+c.want) {
			t.Errorf("%s: got %v", c.name, m)
		}
		if c.want == "" && (len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA) {
			t.Errorf("%s: got %v, want an SOA", c.name, m)
		}
	}
	if n := up.queries.Load(); n != 0 {
		t.Errorf("the upstream saw %d of them", n)
	}
	if got := first(resolve(t, p, "notlocalhost.", dns.TypeA)); got != "192.0.2.1" {
		t.Errorf("got %s", got)
	}
}

func TestQuestionsWithoutRDAreNotForwarded(t *testing.T) {
	up := says(t, "192.0.2.1")
	p := cluster(t, up)
	resolve(t, p, "example.com.", dns.TypeA)
	noRD := func(m *dns.Msg) { m.RecursionDesired = false }
	if m := resolve(t, p, "example.com.", dns.TypeA, noRD); m.Rcode != dns.RcodeRefused {
		t.Errorf("got %v: the cache can be spied on", m)
	}
	if m := resolve(t, p, "web.shop.vip.mesos.", dns.TypeA, noRD); len(m.Answer) != 1 {
		t.Errorf("got %v", m)
	}
}

func TestVersionIsToldWhenAsked(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	chaos := func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }
	for _, version := range []string{"", "weir 0.3"} {
		p.options.Version = version
		for _, name := range []string{"version.bind.", "VERSION.server."} {
			m := ask(t, p, name, dns.TypeTXT, chaos, edns(1232))
			if version == "" && m.Rcode != dns.RcodeRefused || version != "" && (len(m.Answer) != 1 || m.Answer[0].(*dns.TXT).Txt[0] != version) {
				t.Errorf("%s of %q: got %v", name, version, m)
			}
		}
		if m := ask(t, p, "id.server.", dns.TypeTXT, chaos); m.Rcode != dns.RcodeRefused {
			t.Errorf("got %v", m)
		}
	}
}

func TestDNSSECRecordsPassUnbroken(t *testing.T) {
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetRcode(r, dns.RcodeNameError)
		m.AuthenticatedData = true
		for _, text := range []string{
			"example. 900 IN SOA ns.example. root.example. 1 2 3 4 60", "example. 900 IN RRSIG SOA 8 1 900 20300101000000 20200101000000 1 example. AAAA",
			"a.example. 60 IN NSEC z.example. A RRSIG NSEC", "a.example. 60 IN RRSIG NSEC 8 2 60 20300101000000 20200101000000 1 example. AAAA",
		} {
			rr, err := dns.NewRR(text)
			if err != nil {
				panic(err)
			}
			if r.IsEdns0().Do() || rr.Header().Rrtype == dns.TypeSOA {
				m.Ns = append(m.Ns, rr)
			}
		}
		m.SetEdns0(1232, r.IsEdns0().Do())
		w.WriteMsg(m)
	})
	p := cluster(t, up)
	secure := func(m *dns.Msg) { m.SetEdns0(1232, true) }
	for range 2 {
		m := resolve(t, p, "no.example.", dns.TypeA, secure)
		if len(m.Ns) != 4 || !m.AuthenticatedData || !m.IsEdns0().Do() || m.CheckingDisabled || m.Ns[2].(*dns.NSEC).NextDomain != "z.example." {
			t.Errorf("with DO: got %v", m)
		}
		if m := resolve(t, p, "no.example.", dns.TypeA); len(m.Ns) != 1 || m.AuthenticatedData {
			t.Errorf("without: got %v", m)
		}
		ad := func(m *dns.Msg) { m.AuthenticatedData = true }
		if m := resolve(t, p, "no.example.", dns.TypeA, ad); len(m.Ns) != 1 || !m.AuthenticatedData {
			t.Errorf("with AD: got %v", m)
		}
	}
	if n := up.queries.Load(); n != 3 {
		t.Errorf("%d queries, want 3: one for each form", n)
	}
}

func TestMetricsOfForwarding(t *testing.T) {
	var b bytes.Buffer
	p := cluster(t, says(t, "192.0.2.1"))
	resolve(t, p, "example.com.", dns.TypeA)
	s := p.Upstreams()
	fmt.Fprintf(&b, "%+v", s)
	if len(s) != 1 || s[0].Queries != 1 || s[0].RoundTrip <= 0 || s[0].Failed != 0 || s[0].Down || !slices.Equal(s[0].Zones, []string{"."}) {
		t.Errorf("got %s", b.String())
	}
}

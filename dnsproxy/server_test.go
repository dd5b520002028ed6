package dnsproxy

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
)

func large() *api.Snapshot {
	s := fleet()
	var many []string
	for i := range 250 {
		many = append(many, fmt.Sprintf("10.9.0.%d", i))
	}
	s.Records = append(s.Records, api.Record{Name: "many", Type: api.RecordA, Data: many})
	return s
}

func TestTruncatedAnswerIsWholeOverTCP(t *testing.T) {
	at := running(t, proxyOf(t, compile(t, large(), options()))).String()
	m := new(dns.Msg).SetQuestion("many.weir.internal.", dns.TypeA)
	udp, _, err := (&dns.Client{}).Exchange(m, at)
	if err != nil || !udp.Truncated {
		t.Fatalf("over UDP: got %v, %v; want TC", udp, err)
	}
	tcp, _, err := (&dns.Client{Net: "tcp"}).Exchange(m, at)
	if err != nil || tcp.Truncated || len(tcp.Answer) != 250 {
		t.Fatalf("over TCP: got %v, %v; want 250 addresses", tcp, err)
	}
}

func TestManyClientsOverUDP(t *testing.T) {
	at := running(t, proxyOf(t, compile(t, fleet(), options()))).String()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			conn, err := dns.Dial("udp", at)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for range 50 {
				m, _, err := (&dns.Client{}).ExchangeWithConn(new(dns.Msg).SetQuestion("web.shop.vip.mesos.", dns.TypeA), conn)
				if err != nil || len(m.Answer) != 1 {
					t.Errorf("got %v, %v", m, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestIPv6Listener(t *testing.T) {
	p, err := New(ServerOptions{Listen: []netip.AddrPort{netip.MustParseAddrPort("[::1]:0")}})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(compile(t, fleet(), options()))
	if err := p.Listen(); err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	m, _, err := (&dns.Client{}).Exchange(new(dns.Msg).SetQuestion("a1.node.mesos.", dns.TypeAAAA), running(t, p).String())
	if err != nil || len(m.Answer) != 1 {
		t.Errorf("got %v, %v", m, err)
	}
}

// frame is a query as TCP carries it.
func frame(id uint16, name string) []byte {
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Id = id
	packet, _ := m.Pack()
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
}

func readFrame(t *testing.T, r io.Reader) *dns.Msg {
	t.Helper()
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		t.Fatal(err)
	}
	packet := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(r, packet); err != nil {
		t.Fatal(err)
	}
	return unpack(t, packet)
}

func TestPipelinedQueriesOverTCP(t *testing.T) {
	slow := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		time.Sleep(600 * time.Millisecond)
		answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1")(w, r)
	})
	p := proxyOf(t, compile(t, large(), options()), slow.at)
	p.forward.attempt, p.flights.limit = time.Second, 4*time.Second
	at := running(t, p)
	conn, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	// The first must wait for an upstream; the others overtake it. The last
	// comes in two pieces, and then the client closes its side.
	all := frame(1, "example.com.")
	for id := range uint16(200) {
		all = append(all, frame(2+id, "many.weir.internal.")...)
	}
	if _, err := conn.Write(all[:len(all)-5]); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond)
	conn.Write(all[len(all)-5:])
	conn.(*net.TCPConn).CloseWrite()
	for id := range uint16(200) {
		if m := readFrame(t, conn); m.Id != 2+id || len(m.Answer) != 250 {
			t.Fatalf("got id %d with %d answers, want %d", m.Id, len(m.Answer), 2+id)
		}
	}
	if m := readFrame(t, conn); m.Id != 1 || len(m.Answer) != 1 {
		t.Fatalf("got %v, want the upstream's answer", m)
	}
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	p.options.MaxClientConns = 3
	at := running(t, p).String()
	var conns []net.Conn
	served := 0
	for range 5 {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
		conn.SetDeadline(time.Now().Add(2 * time.Second))
		conn.Write(frame(7, "mesos."))
		if _, err := conn.Read(make([]byte, 512)); err == nil {
			served++
		}
	}
	if served != 3 {
		t.Errorf("%d of %d connections were served, want 3", served, len(conns))
	}
	conns[0].Close()
	deadline := time.Now().Add(2 * time.Second)
	for {
		m, _, err := (&dns.Client{Net: "tcp"}).Exchange(new(dns.Msg).SetQuestion("mesos.", dns.TypeNS), at)
		if err == nil && len(m.Answer) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a close, no other is let in: %v", err)
		}
	}
}

func TestFrameThatIsNoQueryEndsTheConnection(t *testing.T) {
	at := running(t, proxyOf(t, compile(t, fleet(), options()))).String()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	conn.Write([]byte("GET / HTTP/1.0\r\n\r\n")[:2])
	conn.Write([]byte{0, 3, 1, 2, 3})
	conn.Write(make([]byte, 1<<15)) // "GE" is a frame of 18,245 bytes
	conn.(*net.TCPConn).CloseWrite()
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection stays open: %v", err)
	}
}

func TestSetWhileQueriesRun(t *testing.T) {
	a, b := fleet(), fleet()
	b.Revision = 42
	b.Records[5].Data = []string{"10.80.0.50", "10.80.0.51"}
	p := proxyOf(t, compile(t, a, options()))
	at := running(t, p).String()
	stop := make(chan struct{})
	var setter, clients sync.WaitGroup
	setter.Go(func() {
		for tables := []*Table{compile(t, a, options()), compile(t, b, options())}; ; {
			for _, table := range tables {
				p.Set(table)
			}
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Microsecond): // leaves the clients a CPU where there is one only
			}
		}
	})
	for range 3 {
		clients.Go(func() {
			for range 200 {
				m, _, err := (&dns.Client{}).Exchange(new(dns.Msg).SetQuestion("dir.mesos.", dns.TypeA), at)
				if err != nil || len(m.Answer) != 2 || (m.Answer[0].(*dns.A).A[3] >= 50) != (m.Answer[1].(*dns.A).A[3] >= 50) {
					t.Errorf("got %v, %v; want both addresses of one table", m, err)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	setter.Wait()
}

func TestListenBeforeTheAddressExists(t *testing.T) {
	p, err := New(ServerOptions{Listen: []netip.AddrPort{netip.MustParseAddrPort("169.254.53.99:0")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	p.closeSockets()
}

func TestOptionsThatCannotBe(t *testing.T) {
	at := func(list ...string) (all []netip.AddrPort) {
		for _, s := range list {
			all = append(all, netip.MustParseAddrPort(s))
		}
		return all
	}
	for want, o := range map[string]ServerOptions{
		"listen: is empty":                          {},
		"169.254.53.53:53 is the proxy's own":       {Listen: at("169.254.53.53:53"), Upstreams: at("9.9.9.9:53", "169.254.53.53:53")},
		"0.0.0.0:53 is not the address of a host":   {Listen: at("0.0.0.0:53")},
		"[::ffff:10.0.0.1]:53 is the proxy's own":   {Listen: at("10.0.0.1:53"), Upstreams: at("[::ffff:10.0.0.1]:53")},
		"0.0.0.0:53 is not the address of a server": {Listen: at("10.0.0.1:53"), Upstreams: at("0.0.0.0:53")},
		"10.0.0.2:0 is not the address of a server": {Listen: at("10.0.0.1:53"), Upstreams: at("10.0.0.2:0")},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// mutate damages a valid query, or makes noise.
func mutate(r *rand.Rand, seeds [][]byte) []byte {
	packet := append([]byte(nil), seeds[r.IntN(len(seeds))]...)
	switch r.IntN(6) {
	case 0:
		packet = make([]byte, r.IntN(600))
		for i := range packet {
			packet[i] = byte(r.Uint32())
		}
	case 1:
		packet = packet[:r.IntN(len(packet)+1)]
	case 2:
		packet = append(packet, packet[r.IntN(len(packet)):]...)
	default:
		for range 1 + r.IntN(8) {
			packet[r.IntN(len(packet))] = byte(r.Uint32())
		}
	}
	if len(packet) > 2 {
		packet[2] &= 0x7F // responses are dropped anyway
	}
	return packet
}

func seeds() [][]byte {
	var all [][]byte
	for _, name := range []string{"web.shop.vip.weir.internal.", "_web._tcp.shop.weir.internal.", "alias.mesos.", "x.apps.mesos.", ".", "example.com.", "web.shop.dclb.thisdcos.global.", "1.1.168.192.in-addr.arpa."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypeANY, dns.TypePTR} {
			m := new(dns.Msg).SetQuestion(name, qtype)
			if qtype != dns.TypePTR {
				m.SetEdns0(700, true)
				m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}}
			}
			packet, _ := m.Pack()
			all = append(all, packet)
		}
	}
	return append(all, []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0})
}

var hostile = flag.Int("hostile", 10_000, "hostile packets to send")

func TestHostilePackets(t *testing.T) {
	o := taskOptions()
	up := newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1"))
	so := anywhere()
	so.NSID, so.EmptyZones, so.Upstreams, so.Version = "a1", true, []netip.AddrPort{up.at}, "1"
	p, err := New(so)
	if err != nil {
		t.Fatal(err)
	}
	p.Set(compile(t, large(), o))
	at := running(t, p)
	conn, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, all := rand.New(rand.NewPCG(1, 2)), seeds()
	hostileStreams(t, at, r, all)
	before := heap()
	defer func() {
		if after := heap(); after > before+32<<20 {
			t.Errorf("the heap has grown from %d to %d bytes", before, after)
		}
	}()
	w, out := workerOf(p), make([]byte, udpSize)
	for i := range *hostile {
		packet := mutate(r, all)
		if i%20 == 0 {
			conn.Write(packet) // through the socket too
		}
		n, miss := w.serve(packet, out, p.now())
		wire := out[:n]
		if len(packet) < headerSize || miss {
			if len(wire) > 0 {
				t.Fatalf("%x is answered by %x", packet, wire)
			}
			continue
		}
		if len(wire) < headerSize || wire[0] != packet[0] || wire[1] != packet[1] {
			t.Fatalf("%x is answered by %x", packet, wire)
		}
		unpack(t, wire)
	}
	if n := p.metrics.panics.Load(); n > 0 {
		t.Errorf("%d panics", n)
	}
	m, _, err := (&dns.Client{}).Exchange(new(dns.Msg).SetQuestion("mesos.", dns.TypeNS), at.String())
	if err != nil || len(m.Answer) != 1 {
		t.Errorf("afterwards: got %v, %v", m, err)
	}
}

// hostileStreams sends what is damaged over connections.
func hostileStreams(t *testing.T, at netip.AddrPort, r *rand.Rand, all [][]byte) {
	t.Helper()
	for range 100 {
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		for range 1 + r.IntN(5) {
			packet := mutate(r, all)
			size := len(packet)
			if r.IntN(4) == 0 {
				size = r.IntN(70000)
			}
			conn.Write(append([]byte{byte(size >> 8), byte(size)}, packet...))
		}
		conn.Close()
	}
}

func TestPanicCostsOneQuery(t *testing.T) {
	broken := compile(t, fleet(), options())
	for e := range broken.all() {
		for i := range e.allSets() {
			e.allSets()[i].shown = 1 << 30
		}
	}
	p := proxyOf(t, broken)
	packet, _ := new(dns.Msg).SetQuestion("a1.node.mesos.", dns.TypeA).Pack()
	for range 2 {
		if m := unpack(t, raw(p, packet)); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("got %v, want SERVFAIL", m)
		}
	}
	if m := ask(t, p, "nothing.mesos.", dns.TypeA); m.Rcode != dns.RcodeNameError || p.metrics.panics.Load() != 2 {
		t.Errorf("afterwards: got %v and %d panics", m, p.metrics.panics.Load())
	}
}

func FuzzServe(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed)
	}
	p := proxyOf(f, compile(f, large(), options()))
	f.Fuzz(func(t *testing.T, packet []byte) {
		wire := raw(p, packet)
		if len(packet) >= headerSize && packet[2]&0x80 == 0 && len(wire) == 0 {
			t.Fatal("silence")
		}
		if len(wire) > 0 {
			unpack(t, wire)
		}
		if p.metrics.panics.Load() > 0 {
			t.Fatal("panic")
		}
	})
}

func TestMetricsAddUp(t *testing.T) {
	registry := prometheus.NewRegistry()
	p, err := New(ServerOptions{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(compile(t, fleet(), options()))
	at := running(t, p).String()
	for range 3 {
		(&dns.Client{}).Exchange(new(dns.Msg).SetQuestion("mesos.", dns.TypeNS), at)
	}
	(&dns.Client{Net: "tcp"}).Exchange(new(dns.Msg).SetQuestion("no.mesos.", dns.TypeNS), at)
	(&dns.Client{}).Exchange(new(dns.Msg).SetQuestion("example.com.", dns.TypeA), at)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.Metric {
			name := family.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"weir_dns_queries_total udp noerror cluster": 3, "weir_dns_queries_total tcp nxdomain cluster": 1,
		"weir_dns_queries_total udp refused proxy": 1, "weir_dns_table_revision": 41, "weir_dns_table_names": float64(p.Table().Len()),
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v; all: %v", name, got[name], want, got)
		}
	}
}

func TestQueryTellsTheSource(t *testing.T) {
	up := newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.1"))
	p := proxyOf(t, compile(t, fleet(), options()), up.at)
	for _, c := range []struct{ name, qtype, want, source string }{
		{"web.shop.vip.weir.internal", "a", "web.shop.vip.weir.internal. 5 IN A 198.18.0.10", "cluster"},
		{"example.com", "A", "example.com. 60 IN A 192.0.2.1", up.at.String()},
		{"example.com", "A", "example.com. 60 IN A 192.0.2.1", "cache"},
		{"example.com", "ANY", `example.com. 3600 IN HINFO "RFC8482" ""`, "proxy"},
	} {
		a, err := p.Query(context.Background(), c.name, c.qtype)
		if err != nil || a.Source != c.source || len(a.Answer) != 1 || a.Answer[0] != c.want || a.Rcode != "NOERROR" {
			t.Errorf("%s %s: got %+v, %v; want %s from %s", c.name, c.qtype, a, err, c.want, c.source)
		}
	}
	if _, err := p.Query(context.Background(), "x", "NOPE"); err == nil || !strings.Contains(err.Error(), `no record type "NOPE"`) {
		t.Errorf("got %v", err)
	}
	if _, err := p.Query(context.Background(), strings.Repeat("x", 64)+".com", "A"); err == nil {
		t.Error("a label of 64 bytes is asked")
	}
}

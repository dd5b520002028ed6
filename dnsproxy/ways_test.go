package dnsproxy

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// over is a proxy with one upstream of any protocol.
func over(t testing.TB, roots *x509.CertPool, all ...Upstream) *Proxy {
	t.Helper()
	p, err := New(ServerOptions{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5353")}, UpstreamTimeout: 500 * time.Millisecond, RootCAs: roots,
		Forwarding: Forwarding{Zones: []ForwardZone{{".", all}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(compile(t, fleet(), options()))
	t.Cleanup(func() { p.flights.close(); p.forward.close() })
	return p
}

// certificate is a server's for 127.0.0.1 and example.com, with who vouches for it.
func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.TLS.Certificates[0], roots
}

// counting counts the connections that a listener accepts.
type counting struct {
	net.Listener
	conns atomic.Int64
}

func (c *counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.conns.Add(1)
	}
	return conn, err
}

// frames serves framed queries; each is answered by its own goroutine, so out of
// order, unless lose says to close instead.
func serveFrames(l net.Listener, lose func(n int64) bool) {
	var n atomic.Int64
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			var writing sync.Mutex
			for {
				var size [2]byte
				if _, err := io.ReadFull(conn, size[:]); err != nil {
					return
				}
				packet := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(conn, packet); err != nil {
					return
				}
				if lose != nil && lose(n.Add(1)) {
					return
				}
				go func() {
					q := new(dns.Msg)
					if q.Unpack(packet) != nil {
						return
					}
					m := new(dns.Msg).SetReply(q)
					rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.7")
					m.Answer = append(m.Answer, rr)
					wire, _ := m.Pack()
					time.Sleep(time.Duration(packet[1]%8) * time.Millisecond)
					writing.Lock()
					defer writing.Unlock()
					conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...))
				}()
			}
		}()
	}
}

func askMany(t *testing.T, p *Proxy, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if m := resolve(t, p, fmt.Sprintf("n%d.example.", i), dns.TypeA); len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "192.0.2.7" {
				t.Errorf("question %d: got %v", i, m)
			}
		})
	}
	wg.Wait()
}

func TestQuestionsShareAConnection(t *testing.T) {
	cert, roots := certificate(t)
	for name, secure := range map[string]bool{"tcp": false, "tls": true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		count := &counting{Listener: l}
		t.Cleanup(func() { l.Close() })
		u := Upstream{Protocol: TCP, Address: l.Addr().(*net.TCPAddr).AddrPort()}
		if secure {
			u.Protocol, u.ServerName = TLS, "example.com"
			go serveFrames(tls.NewListener(count, &tls.Config{Certificates: []tls.Certificate{cert}}), nil)
		} else {
			go serveFrames(count, nil)
		}
		p := over(t, roots, u)
		askMany(t, p, 100)
		if n := count.conns.Load(); n != 1 {
			t.Errorf("%s: 100 questions took %d connections, want 1", name, n)
		}
	}
}

func TestConnectionThatEndsCostsNoAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	count := &counting{Listener: l}
	go serveFrames(count, func(n int64) bool { return n%10 == 0 }) // as a server does at its idle limit
	p := over(t, nil, Upstream{Protocol: TCP, Address: l.Addr().(*net.TCPAddr).AddrPort()})
	for i := range 50 {
		if m := resolve(t, p, fmt.Sprintf("n%d.example.", i), dns.TypeA); len(m.Answer) != 1 {
			t.Fatalf("question %d: got %v", i, m)
		}
	}
	if n := count.conns.Load(); n < 5 || n > 7 {
		t.Errorf("%d connections, want one per ten questions", n)
	}
}

func TestReplyThatIsCutOverTCPIsAFailure(t *testing.T) {
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := good(r)
		m.Truncated = true
		w.WriteMsg(m)
	})
	p := over(t, nil, upstreams(up)[0])
	if m := resolve(t, p, "example.com.", dns.TypeA); m.Rcode != dns.RcodeServerFailure || p.metrics.panics.Load() != 0 {
		t.Errorf("got %v and %d panics", m, p.metrics.panics.Load())
	}
}

func TestClosedWhileAFlightBegins(t *testing.T) {
	p := over(t, nil, upstreams(says(t, "192.0.2.7"))...)
	var q query
	packet, _ := new(dns.Msg).SetQuestion("example.com.", dns.TypeA).Pack()
	q.parse(packet)
	w := &waiter{query: q, done: func(*waiter, *cached) {}}
	l := p.flights.newFlight("key", w, p.forward.routes.Load().match(q.name[:q.nameLen]))
	p.flights.flying["key"] = l
	p.flights.wg.Add(1)
	p.flights.close()
	l.start()
}

func TestHTTPS(t *testing.T) {
	var conns sync.Map
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conns.Store(r.RemoteAddr, true)
		body, _ := io.ReadAll(r.Body)
		q := new(dns.Msg)
		if r.Method != "POST" || r.URL.Path != "/dns-query" || r.Host != fmt.Sprintf("example.com:%d", r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr).Port) ||
			r.ProtoMajor != 2 || q.Unpack(body) != nil || q.Id != 0 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		m := new(dns.Msg).SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.7")
		m.Answer = append(m.Answer, rr)
		wire, _ := m.Pack()
		w.Header().Set("Content-Type", "application/dns-message")
		w.Write(wire)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	p := over(t, roots, Upstream{Protocol: HTTPS, Address: s.Listener.Addr().(*net.TCPAddr).AddrPort(), ServerName: "example.com"})
	askMany(t, p, 1)
	askMany(t, p, 50)
	n := 0
	conns.Range(func(any, any) bool { n++; return true })
	if n > 2 {
		t.Errorf("51 questions took %d connections", n)
	}
	// Errors of HTTP are failures, and the next upstream is asked.
	p = over(t, roots, Upstream{Protocol: HTTPS, Address: s.Listener.Addr().(*net.TCPAddr).AddrPort(), ServerName: "example.com", Path: "/other"}, upstreams(says(t, "192.0.2.7"))[0])
	askMany(t, p, 5)
}

func TestCertificateOfAnotherIsRefused(t *testing.T) {
	cert, roots := certificate(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serveFrames(l, nil)
	at := l.Addr().(*net.TCPAddr).AddrPort()
	for _, c := range []struct {
		name  string
		roots *x509.CertPool
		good  bool
	}{{"example.com", roots, true}, {"", roots, true}, {"dns.example", roots, false}, {"example.com", x509.NewCertPool(), false}} {
		m := resolve(t, over(t, c.roots, Upstream{Protocol: TLS, Address: at, ServerName: c.name}), "example.com.", dns.TypeA)
		if (len(m.Answer) == 1) != c.good {
			t.Errorf("name %q: got %v", c.name, m)
		}
	}
}

func TestPortsAreDrawnAndForgotten(t *testing.T) {
	var mu sync.Mutex
	ports, ids := map[string]int{}, map[uint16]bool{}
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		mu.Lock()
		ports[w.RemoteAddr().String()]++
		ids[r.Id] = true
		mu.Unlock()
		answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.7")(w, r)
	})
	p := over(t, nil, upstreams(up)...)
	seen := func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return len(ports), len(ids)
	}
	askMany(t, p, 200)
	before, drawn := seen()
	if before < maxLinks/2 || // few in a row share one, the more the busier the machine is
		before > maxLinks || drawn < 195 {
		t.Errorf("200 questions came from %d ports with %d ids", before, drawn)
	}
	l := p.forward.routes.Load().upstreams[0].ways.first.(*links)
	l.mu.Lock()
	for _, one := range l.slots {
		if one != nil {
			one.mu.Lock()
			one.born = one.born.Add(-linkLife)
			one.mu.Unlock()
		}
	}
	l.mu.Unlock()
	for i := range 150 {
		resolve(t, p, fmt.Sprintf("later%d.example.", i), dns.TypeA)
	}
	if after, _ := seen(); after-before < maxLinks/2 {
		t.Errorf("after their life only %d new ports", after-before)
	}
}

func TestBrokenClientCostsNobodyElse(t *testing.T) {
	p := over(t, nil, upstreams(says(t, "192.0.2.7"))...)
	packet, _ := new(dns.Msg).SetQuestion("broken.example.", dns.TypeA).Pack()
	w := workerOf(p)
	if _, miss := w.serve(packet, make([]byte, udpSize), p.now()); !miss {
		t.Fatal("no miss")
	}
	w.submit(func([]byte) { panic("while sending the answer") })
	m := resolve(t, p, "broken.example.", dns.TypeA)
	if len(m.Answer) != 1 {
		t.Errorf("got %v", m)
	}
	askMany(t, p, 20)
	if n := p.metrics.panics.Load(); n != 1 {
		t.Errorf("%d panics are counted, want 1", n)
	}
}

package dnsproxy

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// tracedUpstream is an upstream that answers as it is told.
func tracedUpstream(t *testing.T, handle dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: handle}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestATraceComparesAllUpstreamsAndLeaksNoClusterName(t *testing.T) {
	asked := make(chan string, 64)
	good := tracedUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		asked <- strings.ToLower(q.Question[0].Name)
		m := new(dns.Msg).SetReply(q)
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 1)})
		_ = w.WriteMsg(m)
	})
	bad := tracedUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
	})
	p, err := New(ServerOptions{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Upstreams: []netip.AddrPort{good, bad}})
	if err != nil {
		t.Fatal(err)
	}
	table, err := Compile(&api.Snapshot{Revision: 1}, Options{Domain: "weir.internal"})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(table)
	x, err := p.Trace(t.Context(), "example.com", "a")
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Upstreams) != 2 || x.Answer.Rcode != "NOERROR" || len(x.Answer.Answer) != 1 || len(x.Steps) != 3 {
		t.Fatalf("got %+v", x)
	}
	for _, u := range x.Upstreams {
		want := map[string]string{good.String(): "NOERROR good", bad.String(): "SERVFAIL a failure: the next one is asked"}[u.Upstream]
		if got := u.Rcode + " " + u.Verdict; got != want || u.Took <= 0 {
			t.Errorf("%s: got %q after %s, want %q", u.Upstream, got, u.Took, want)
		}
	}
	x, err = p.Trace(t.Context(), "example.com", "A")
	if err != nil || !strings.Contains(x.Steps[1].Verdict, "clients get this") || x.Answer.Source != "cache" {
		t.Errorf("the second time: got %+v, %v", x, err)
	}
	x, err = p.Trace(t.Context(), "nothing.weir.internal", "A")
	if err != nil || len(x.Upstreams) != 0 || !strings.Contains(x.Steps[0].Verdict, "no upstream is ever asked") || x.Answer.Rcode != "NXDOMAIN" {
		t.Errorf("a cluster's name: got %+v, %v", x, err)
	}
	for len(asked) > 0 {
		if name := <-asked; strings.Contains(name, "weir.internal") {
			t.Errorf("an upstream was asked for %s", name)
		}
	}
	if _, err := p.Trace(t.Context(), "example.com", "NONSENSE"); err == nil {
		t.Error("no such type, and no error")
	}
}

func TestSocketsAreHandedOnWithWhatIsInThem(t *testing.T) {
	first := handoverProxy(t, netip.MustParseAddrPort("127.0.0.1:0"))
	if err := first.Listen(); err != nil {
		t.Fatal(err)
	}
	at := first.Addrs()[0]
	// Nobody reads yet: the question waits in the socket, and the connection too.
	conn, err := dns.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := dns.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for _, c := range []*dns.Conn{conn, stream} {
		if err := c.WriteMsg(new(dns.Msg).SetQuestion("nothing.weir.internal.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := first.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	first.Drain(t.Context())
	first.closeSockets()

	second := handoverProxy(t, at)
	adopted, err := second.ListenWith(files)
	if err != nil || adopted != len(files) {
		t.Fatalf("adopted %d of %d: %v", adopted, len(files), err)
	}
	if _, err := second.ListenWith(nil); err == nil {
		t.Error("a proxy that listens takes sockets again")
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- second.Run(ctx) }()
	for _, c := range []*dns.Conn{conn, stream} {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if m, err := c.ReadMsg(); err != nil || m.Rcode != dns.RcodeNameError {
			t.Errorf("%s: got %v, %v", c.LocalAddr().Network(), m, err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSocketsOfOtherAddressesAreLetGo(t *testing.T) {
	first := handoverProxy(t, netip.MustParseAddrPort("127.0.0.1:0"))
	if err := first.Listen(); err != nil {
		t.Fatal(err)
	}
	at := first.Addrs()[0]
	files, err := first.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	first.closeSockets()
	second := handoverProxy(t, netip.MustParseAddrPort("127.0.0.2:0"))
	if adopted, err := second.ListenWith(files); err != nil || adopted != 0 {
		t.Errorf("adopted %d, %v", adopted, err)
	}
	second.closeSockets()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatalf("the address is still taken: %v", err)
	}
	l.Close()
}

func handoverProxy(t *testing.T, at netip.AddrPort) *Proxy {
	t.Helper()
	p, err := New(ServerOptions{Listen: []netip.AddrPort{at}})
	if err != nil {
		t.Fatal(err)
	}
	table, err := Compile(&api.Snapshot{Revision: 1}, Options{Domain: "weir.internal"})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(table)
	return p
}

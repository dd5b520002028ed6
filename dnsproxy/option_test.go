package dnsproxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// reason is an answer's extended error; -1 for none.
func reason(m *dns.Msg) int {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				return int(e.InfoCode)
			}
		}
	}
	return -1
}

func TestRefusalsAndFailuresGiveTheirReason(t *testing.T) {
	closed := proxyOf(t, compile(t, fleet(), options()))
	for name, c := range map[string]struct {
		p     *Proxy
		asked string
		qtype uint16
		want  uint16
	}{
		"no table":    {proxyOf(t, nil), "mesos.", dns.TypeA, edeNotReady},
		"no upstream": {closed, "example.com.", dns.TypeA, edeNotAuthoritative},
		"no transfer": {closed, "mesos.", dns.TypeAXFR, edeProhibited},
	} {
		if m := ask(t, c.p, c.asked, c.qtype, edns(1232)); reason(m) != int(c.want) {
			t.Errorf("%s: got %v, want %d", name, m, c.want)
		}
		if m := ask(t, c.p, c.asked, c.qtype); len(m.Extra) != 0 {
			t.Errorf("%s without EDNS: got %v", name, m)
		}
	}
	if m := ask(t, closed, "nothing.mesos.", dns.TypeA, edns(1232)); reason(m) != -1 {
		t.Errorf("a denial of ours: got %v", m)
	}
	if err := closed.SetForwarding(Forwarding{Access: []Access{{Zone: "mesos", Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}}); err != nil {
		t.Fatal(err)
	}
	w, out := workerOf(closed), make([]byte, udpSize)
	as(w, "127.0.0.1")
	m := new(dns.Msg).SetQuestion("mesos.", dns.TypeNS)
	m.SetEdns0(1232, false)
	packet, _ := m.Pack()
	n, _ := w.serve(packet, out, 0)
	if m := unpack(t, out[:n]); reason(m) != int(edeProhibited) {
		t.Errorf("who may not ask: got %v", m)
	}
	down := cluster(t, newUpstream(t, answering(dns.RcodeServerFailure)))
	for range 2 { // from upstreams, then from the cache
		if m := resolve(t, down, "example.com.", dns.TypeA, edns(1232)); reason(m) != int(edeNoUpstream) {
			t.Errorf("no upstream answers: got %v", m)
		}
	}
}

func TestStaleAnswersSaySo(t *testing.T) {
	var down atomic.Bool
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		switch {
		case down.Load():
			answering(dns.RcodeServerFailure)(w, r)
		case strings.HasPrefix(strings.ToLower(r.Question[0].Name), "none"):
			answering(dns.RcodeNameError, "example. 60 IN SOA a. b. 1 2 3 4 60")(w, r)
		default:
			answering(dns.RcodeSuccess, "%s 1 IN A 192.0.2.7")(w, r)
		}
	})
	p := cluster(t, up)
	resolve(t, p, "a.example.", dns.TypeA)
	resolve(t, p, "none.example.", dns.TypeA)
	down.Store(true)
	later(p, 2*time.Minute)
	if m := resolve(t, p, "a.example.", dns.TypeA, edns(1232)); len(m.Answer) != 1 || reason(m) != int(edeStale) {
		t.Errorf("got %v, want a stale answer that says so", m)
	}
	if m := resolve(t, p, "none.example.", dns.TypeA, edns(1232)); m.Rcode == dns.RcodeNameError && reason(m) != int(edeStaleDenial) {
		t.Errorf("got %v, want a stale denial that says so", m)
	}
}

func TestServerIsNamedToWhoAsks(t *testing.T) {
	p, err := New(ServerOptions{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, NSID: "a1"})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(compile(t, fleet(), options()))
	wants := func(options ...dns.EDNS0) func(*dns.Msg) {
		return func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().Option = options }
	}
	for name, rcode := range map[string]int{"mesos.": dns.RcodeSuccess, "x.mesos.": dns.RcodeNameError, "example.com.": dns.RcodeRefused} {
		m := ask(t, p, name, dns.TypeNS, wants(&dns.EDNS0_NSID{Code: dns.EDNS0NSID}))
		opt := m.IsEdns0()
		if m.Rcode != rcode || opt == nil || len(opt.Option) == 0 || opt.Option[0].(*dns.EDNS0_NSID).Nsid != "6131" {
			t.Errorf("%s: got %v, want our name", name, m)
		}
	}
	if m := ask(t, p, "mesos.", dns.TypeNS, wants()); len(m.IsEdns0().Option) != 0 {
		t.Errorf("unasked: got %v", m)
	}
	if m := ask(t, p, "mesos.", dns.TypeNS, wants(&dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE})); len(m.IsEdns0().Option) != 0 {
		t.Errorf("keepalive over UDP: got %v", m)
	}
	w, out := workerOf(p), make([]byte, tcpSize)
	w.from.tcp = true
	q := new(dns.Msg).SetQuestion("mesos.", dns.TypeNS)
	wants(&dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})(q)
	packet, _ := q.Pack()
	n, _ := w.serve(packet, out, 0)
	if o := unpack(t, out[:n]).IsEdns0().Option; len(o) != 2 || o[1].(*dns.EDNS0_TCP_KEEPALIVE).Timeout != 100 {
		t.Errorf("over TCP: got %v, want our name and 10 s", o)
	}
	if _, err := New(ServerOptions{Listen: p.options.Listen, NSID: strings.Repeat("x", 65)}); err == nil {
		t.Error("a name of 65 bytes is taken")
	}
}

func TestPrivateReverseNamesStayHereIfAsked(t *testing.T) {
	up := newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN PTR upstream.example."))
	listen := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	forwarding := Forwarding{Zones: []ForwardZone{{Zone: ".", Upstreams: upstreams(up)}, {Zone: "9.10.in-addr.arpa", Upstreams: upstreams(up)}}}
	p, err := New(ServerOptions{Listen: listen, Forwarding: forwarding, EmptyZones: true})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(compile(t, fleet(), options()))
	for name, want := range map[string]string{
		"1.1.1.10.in-addr.arpa.":     "10.in-addr.arpa. NXDOMAIN",
		"10.in-addr.arpa.":           "10.in-addr.arpa. NOERROR",
		"1.0.31.172.in-addr.arpa.":   "31.172.in-addr.arpa. NXDOMAIN",
		"1.0.168.192.in-addr.arpa.":  "168.192.in-addr.arpa. NXDOMAIN",
		"1.0.32.172.in-addr.arpa.":   "upstream.example.",
		"1.1.9.10.in-addr.arpa.":     "upstream.example.", // a forward zone has it
		"8.8.8.8.in-addr.arpa.":      "upstream.example.",
		"1.0.0.0.d.f.ip6.arpa.":      "d.f.ip6.arpa. NXDOMAIN",
		"11.0.80.10.in-addr.arpa.":   "a1.node.weir.internal.", // the cluster's own
		"168.192.in-addr.arpa.test.": "upstream.example.",
	} {
		m := resolve(t, p, name, dns.TypePTR)
		got := ""
		if len(m.Answer) == 1 {
			got = m.Answer[0].(*dns.PTR).Ptr
		} else if len(m.Ns) == 1 {
			got = m.Ns[0].Header().Name + " " + dns.RcodeToString[m.Rcode]
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestQueriesOverTLS(t *testing.T) {
	cert, roots := certificate(t)
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
	p, err := New(ServerOptions{
		Listen: []netip.AddrPort{loopback}, ListenTLS: []netip.AddrPort{loopback}, TLS: &tls.Config{Certificates: []tls.Certificate{cert}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(compile(t, fleet(), options()))
	running(t, p)
	at := p.Addrs()[1]
	client := &dns.Client{Net: "tcp-tls", TLSConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}, Timeout: 2 * time.Second}
	for range 2 {
		m, _, err := client.Exchange(new(dns.Msg).SetQuestion("web.shop.vip.mesos.", dns.TypeA), at.String())
		if err != nil || len(m.Answer) != 1 {
			t.Fatalf("got %v, %v", m, err)
		}
	}
	// One that speaks no TLS is let go, and others are served.
	conn, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(frame(1, "mesos."))
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, _ := conn.Read(make([]byte, 100)); n > 7 {
		t.Errorf("got %d bytes without TLS", n)
	}
	sum, _, _ := p.metrics.sum("tls")
	if sum.queries[sourceCluster][0] != 2 {
		t.Errorf("%d queries are counted", sum.queries[sourceCluster][0])
	}
	if _, err := New(ServerOptions{Listen: []netip.AddrPort{loopback}, ListenTLS: []netip.AddrPort{loopback}}); err == nil {
		t.Error("TLS without a certificate is taken")
	}
}

// Listening again while the old proxy still does must not lose anything; see
// SO_REUSEPORT in control.
func TestSecondProxyListensBesideTheFirst(t *testing.T) {
	first := proxyOf(t, compile(t, fleet(), options()))
	at := running(t, first)
	second, err := New(ServerOptions{Listen: []netip.AddrPort{at}})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Listen(); err != nil {
		t.Fatalf("listen beside the first: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	second.Set(compile(t, fleet(), options()))
	ended := make(chan error, 1)
	go func() { ended <- second.Run(ctx) }()
	for range 50 {
		m, _, err := (&dns.Client{Timeout: time.Second}).Exchange(new(dns.Msg).SetQuestion("mesos.", dns.TypeNS), at.String())
		if err != nil || len(m.Answer) != 1 {
			t.Fatalf("got %v, %v", m, err)
		}
	}
	if !slices.Equal(first.Addrs(), second.Addrs()) {
		t.Errorf("they listen at %v and %v", first.Addrs(), second.Addrs())
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

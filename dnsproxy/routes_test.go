package dnsproxy

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func upstreams(all ...*fakeUpstream) (list []Upstream) {
	for _, u := range all {
		list = append(list, Upstream{Address: u.at})
	}
	return list
}

// says is an upstream that tells who it is.
func says(t testing.TB, address string) *fakeUpstream {
	return newUpstream(t, answering(dns.RcodeSuccess, "%s 600 IN A "+address))
}

func first(m *dns.Msg) string {
	if len(m.Answer) == 0 {
		return dns.RcodeToString[m.Rcode]
	}
	return m.Answer[0].(*dns.A).A.String()
}

func TestLongestForwardZoneWins(t *testing.T) {
	root, corp, eu := says(t, "192.0.2.1"), says(t, "192.0.2.2"), says(t, "192.0.2.3")
	p := proxyOf(t, compile(t, fleet(), options()))
	check := func(want map[string]string) {
		t.Helper()
		for name, address := range want {
			if got := first(resolve(t, p, name, dns.TypeA)); got != address {
				t.Errorf("%s: got %s, want %s", name, got, address)
			}
		}
	}
	check(map[string]string{"www.example.": "REFUSED"})
	f := Forwarding{Zones: []ForwardZone{{".", upstreams(root)}, {"corp.local", upstreams(corp)}, {"EU.corp.local.", upstreams(eu)}, {"secret.corp.local", nil}}}
	if err := p.SetForwarding(f); err != nil {
		t.Fatal(err)
	}
	before := p.forward.routes.Load().zones["\x04corp\x05local\x00"]
	check(map[string]string{
		"www.example.": "192.0.2.1", "local.": "192.0.2.1", "xcorp.local.": "192.0.2.1", "corp.local.": "192.0.2.2", "a.b.CORP.local.": "192.0.2.2",
		"eu.corp.local.": "192.0.2.3", "x.Eu.Corp.Local.": "192.0.2.3", "x.secret.corp.local.": "REFUSED", "web.shop.vip.mesos.": "198.18.0.10",
	})
	// A reload: eu goes elsewhere and secret opens; what is kept of the rest stays.
	f.Zones = []ForwardZone{{".", upstreams(root)}, {"corp.local", upstreams(corp)}, {"eu.corp.local", upstreams(corp)}}
	if err := p.SetForwarding(f); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{"x.eu.corp.local.": "192.0.2.2", "x.secret.corp.local.": "192.0.2.2", "corp.local.": "192.0.2.2"})
	if p.forward.routes.Load().zones["\x04corp\x05local\x00"] != before {
		t.Error("a zone that stays the same is made anew")
	}
	if n := root.queries.Load(); n != 3 {
		t.Errorf("the default upstream saw %d questions, want 3: its cache stays", n)
	}
	f.Zones = nil
	if err := p.SetForwarding(f); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{"www.example.": "REFUSED"})
}

func TestAliasToWhereNobodyIsAskedStandsAlone(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	if err := p.SetForwarding(Forwarding{Zones: []ForwardZone{{"corp.local", upstreams(says(t, "192.0.2.1"))}}}); err != nil {
		t.Fatal(err)
	}
	if m := resolve(t, p, "outside.mesos.", dns.TypeA); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 || !m.Authoritative {
		t.Errorf("got %v", m)
	}
}

func TestReloadUnderLoadLosesNothing(t *testing.T) {
	a, b := says(t, "192.0.2.1"), says(t, "192.0.2.2")
	p := cluster(t, a)
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if err := p.SetForwarding(Forwarding{Zones: []ForwardZone{{".", upstreams([]*fakeUpstream{a, b}[i%2])}}}); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := range 300 {
		if got := first(resolve(t, p, "n"+string(rune('a'+i%26))+strings.Repeat("x", i/26)+".example.", dns.TypeA)); got != "192.0.2.1" && got != "192.0.2.2" {
			t.Fatalf("got %s", got)
		}
	}
	close(stop)
	<-ended
}

func TestForwardingThatCannotBe(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	defer p.closeSockets()
	own := p.Addrs()[0]
	up := Upstream{Address: netip.MustParseAddrPort("192.0.2.1:53")}
	for want, f := range map[string]Forwarding{
		own.String() + " is the proxy's own address": {Zones: []ForwardZone{{"corp.local", []Upstream{{Address: own}}}}},
		"tcp://" + own.String() + " is the proxy's":  {Zones: []ForwardZone{{".", []Upstream{{Protocol: TCP, Address: own}}}}},
		`forward zone "x.": is there twice`:          {Zones: []ForwardZone{{"X", nil}, {"x.", nil}}},
		"192.0.2.1:53 is there twice":                {Zones: []ForwardZone{{"x", []Upstream{up, up}}}},
		`forward zone "a..b"`:                        {Zones: []ForwardZone{{"a..b", nil}}},
		`access to zone "."`:                         {Access: []Access{{".", nil}, {".", nil}}},
		"a prefix is not valid":                      {Transfer: []netip.Prefix{{}}},
		"only an https upstream has a path":          {Zones: []ForwardZone{{"x", []Upstream{{Address: up.Address, Path: "/x"}}}}},
	} {
		if err := p.SetForwarding(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := New(ServerOptions{Listen: []netip.AddrPort{own}, Upstreams: []netip.AddrPort{up.Address}, Forwarding: Forwarding{Zones: []ForwardZone{{".", nil}}}}); err == nil {
		t.Error("two root zones are taken")
	}
}

func TestParseUpstream(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.53": "10.0.0.53:53", "10.0.0.53:5353": "10.0.0.53:5353", "fd00::1": "[fd00::1]:53", "[fd00::1]:54": "[fd00::1]:54", "udp://10.0.0.53": "10.0.0.53:53",
		"tcp://10.0.0.53": "tcp://10.0.0.53:53", "tls://9.9.9.9#dns.quad9.net": "tls://9.9.9.9:853#dns.quad9.net", "tls://[2620:fe::fe]:8853": "tls://[2620:fe::fe]:8853",
		"https://9.9.9.9/dns-query#dns.quad9.net": "https://9.9.9.9:443/dns-query#dns.quad9.net", "https://9.9.9.9": "https://9.9.9.9:443",
	} {
		u, err := ParseUpstream(text)
		if err != nil || u.String() != want {
			t.Errorf("%s: got %s, %v; want %s", text, u, err, want)
			continue
		}
		if again, err := ParseUpstream(u.String()); err != nil || again != u {
			t.Errorf("%s is read as %+v, %v", u, again, err)
		}
	}
	for _, text := range []string{"", "dns.example", "10.0.0.53:0", "0.0.0.0", "quic://10.0.0.1", "tcp://10.0.0.1/x", "10.0.0.1#name", "tcp://10.0.0.1#name", "https://9.9.9.9/q?x=1", "tls://u@9.9.9.9"} {
		if u, err := ParseUpstream(text); err == nil {
			t.Errorf("%q is read as %+v", text, u)
		}
	}
}

func TestWhoMayAskForWhat(t *testing.T) {
	up := says(t, "192.0.2.1")
	p := cluster(t, up)
	prefix := netip.MustParsePrefix
	f := Forwarding{
		Zones:  []ForwardZone{{".", upstreams(up)}},
		Access: []Access{{".", []netip.Prefix{prefix("10.0.0.0/8")}}, {"mesos", []netip.Prefix{prefix("10.1.0.0/16"), prefix("fd00::/8")}}, {"infra.mesos", nil}},
	}
	if err := p.SetForwarding(f); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		client, name string
		allowed      bool
	}{
		{"10.9.9.9", "example.com.", true}, {"192.168.0.1", "example.com.", false}, {"::ffff:10.1.1.1", "example.com.", true},
		{"10.9.9.9", "web.shop.mesos.", false}, {"10.1.9.9", "web.shop.mesos.", true}, {"fd00::1", "WEB.shop.mesos.", true}, {"fd00::1", "web.shop.weir.internal.", false},
		{"10.1.9.9", "dns.infra.mesos.", false},
	} {
		w := workerOf(p)
		w.from = client{tcp: true, peer: netip.MustParseAddr(c.client)}
		packet, _ := new(dns.Msg).SetQuestion(c.name, dns.TypeA).Pack()
		out := make([]byte, tcpSize)
		n, miss := w.serve(packet, out, p.now())
		refused := !miss && unpack(t, out[:n]).Rcode == dns.RcodeRefused
		if refused == c.allowed {
			t.Errorf("%s asks for %s: refused is %v", c.client, c.name, refused)
		}
	}
	if n := p.metrics.denied.Load(); n != 4 {
		t.Errorf("%d refusals are counted, want 4", n)
	}
	// The node itself, by Query, may.
	if a, err := p.Query(context.Background(), "dns.infra.mesos", "A"); err != nil || a.Rcode != "NOERROR" {
		t.Errorf("got %+v, %v", a, err)
	}
}

// relay passes packets on to a server, as a forwarder that leads back to us does.
func relay(t *testing.T) (at netip.AddrPort, to func(netip.AddrPort)) {
	t.Helper()
	packets, door := onePort(t)
	door.Close()
	t.Cleanup(func() { packets.Close() })
	var target netip.AddrPort
	ready := make(chan struct{})
	go func() {
		<-ready
		buffer := make([]byte, 4096)
		for {
			n, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			packet := slices.Clone(buffer[:n])
			go func() {
				conn, err := net.Dial("udp", target.String())
				if err != nil {
					return
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(time.Second))
				conn.Write(packet)
				reply := make([]byte, 4096)
				if n, err := conn.Read(reply); err == nil {
					packets.WriteTo(reply[:n], from)
				}
			}()
		}
	}()
	return packets.LocalAddr().(*net.UDPAddr).AddrPort(), func(a netip.AddrPort) { target = a; close(ready) }
}

func TestLoopOverAnotherServerIsFound(t *testing.T) {
	at, to := relay(t)
	p := proxyOf(t, compile(t, fleet(), options()), at)
	to(running(t, p))
	deadline := time.Now().Add(3 * time.Second)
	for !p.Upstreams()[0].Looped {
		if time.Now().After(deadline) {
			t.Fatal("the loop is not found")
		}
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	if m := resolve(t, p, "example.com.", dns.TypeA); m.Rcode != dns.RcodeServerFailure || time.Since(start) > 500*time.Millisecond {
		t.Errorf("got %v after %s, want SERVFAIL at once", m, time.Since(start))
	}
	good := says(t, "192.0.2.1")
	if err := p.SetForwarding(Forwarding{Zones: []ForwardZone{{".", append(upstreams(good), Upstream{Address: at})}}}); err != nil {
		t.Fatal(err)
	}
	p.Flush(".")
	if got := first(resolve(t, p, "example.com.", dns.TypeA)); got != "192.0.2.1" {
		t.Errorf("beside a good one: got %s", got)
	}
}

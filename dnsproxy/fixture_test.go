package dnsproxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

func ptr[T any](v T) *T { return &v }

func backend(address string) api.Backend {
	return api.Backend{Address: netip.MustParseAddrPort(address)}
}

func vips(list ...string) []api.VIP {
	var all []api.VIP
	for _, s := range list {
		v, err := api.ParseVIP(s)
		if err != nil {
			panic(err)
		}
		all = append(all, v)
	}
	return all
}

func addrs(list ...string) []netip.Addr {
	var all []netip.Addr
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

// fleet is a snapshot with one of everything.
func fleet() *api.Snapshot {
	draining := backend("10.80.0.13:8080")
	draining.State = api.Draining
	heavy := backend("10.80.0.12:8081")
	heavy.Weight = ptr(3)
	return &api.Snapshot{
		Revision: 41,
		Nodes: []api.Node{
			{Name: "a1", Addresses: addrs("10.80.0.11", "fd00::11")},
			{Name: "c1", Addresses: addrs("10.80.0.2"), Role: api.RoleController},
			{Name: "p1", Addresses: addrs("10.80.0.31"), Role: api.RolePublic},
		},
		Services: []api.Service{
			{Name: "dns", Namespace: "infra", Protocol: api.UDP, VIPs: vips("198.18.0.53:53"), Backends: []api.Backend{backend("10.80.0.2:53")}},
			{Name: "empty", Namespace: "shop", VIPs: vips("empty:80")},
			{Name: "pay.eu", Namespace: "shop", VIPs: vips("pay:443", "pay:80"), Backends: []api.Backend{backend("[fd00::21]:443"), backend("10.80.0.21:443")}},
			{Name: "web", Namespace: "shop", VIPs: vips("web:80"), Backends: []api.Backend{backend("10.80.0.11:8080"), heavy, draining}},
		},
		Records: []api.Record{
			{Name: "*.apps", Type: api.RecordA, Data: []string{"10.80.0.31"}},
			{Name: "_ldap._tcp", Type: api.RecordSRV, Data: []string{"10 5 389 dir", "20 5 389 far.example."}},
			{Name: "alias", Type: api.RecordCNAME, Data: []string{"alias2"}},
			{Name: "alias2", Type: api.RecordCNAME, Data: []string{"web.shop.vip"}},
			{Name: "dangling", Type: api.RecordCNAME, Data: []string{"nowhere"}},
			{Name: "dir", Type: api.RecordA, Data: []string{"10.80.0.40", "10.80.0.41"}, TTL: ptr(60)},
			{Name: "only.mesos.", Type: api.RecordTXT, Data: []string{"here alone"}},
			{Name: "outside", Type: api.RecordCNAME, Data: []string{"example.com."}},
			{Name: "text", Type: api.RecordTXT, Data: []string{"plain; text", `"two" "strings"`, strings.Repeat("x", 300)}},
		},
		VIPs: map[string]api.VIPAddresses{
			"empty.shop": {V4: netip.MustParseAddr("198.18.0.9")},
			"pay.shop":   {V4: netip.MustParseAddr("198.18.0.11"), V6: netip.MustParseAddr("fd77:6569:7200::11")},
			"web.shop":   {V4: netip.MustParseAddr("198.18.0.10"), V6: netip.MustParseAddr("fd77:6569:7200::10")},
		},
	}
}

func options() Options {
	return Options{Domain: "weir.internal", Aliases: []string{"mesos"}, Listen: netip.MustParseAddr("169.254.53.53")}
}

func compile(t testing.TB, s *api.Snapshot, o Options) *Table {
	t.Helper()
	table, err := Compile(s, o)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	return table
}

// anywhere is a server's options to listen at a port that is free.
func anywhere() ServerOptions {
	return ServerOptions{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}}
}

// proxyOf makes a proxy that need not run.
func proxyOf(t testing.TB, table *Table, upstreams ...netip.AddrPort) *Proxy {
	t.Helper()
	p, err := New(ServerOptions{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Upstreams: upstreams, UpstreamTimeout: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(table)
	offset, clock := new(atomic.Int64), p.clock
	p.clock = func() time.Duration { return clock() + time.Duration(offset.Load()) }
	offsets.Store(p, offset)
	t.Cleanup(func() { offsets.Delete(p) })
	return p
}

// running makes a proxy that serves on loopback, and gives its address.
func running(t testing.TB, p *Proxy) netip.AddrPort {
	t.Helper()
	var err error
	for range 10 { // the port that TCP picks may be somebody's over UDP
		if err = p.Listen(); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	at := p.Addrs()[0]
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(3 * time.Second):
			t.Error("run does not end")
		}
	})
	return at
}

func workerOf(p *Proxy) *worker { return &worker{proxy: p, stats: p.metrics.newCounters("udp")} }

// raw sends a packet through the server's code, without a socket.
func raw(p *Proxy, packet []byte) []byte {
	out := make([]byte, udpSize)
	n, _ := workerOf(p).serve(packet, out, p.now())
	return out[:n]
}

// unpack reads an answer by the independent implementation. It also finds what
// that one would let pass: bytes behind the message.
func unpack(t testing.TB, wire []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("unpack %x: %v", wire, err)
	}
	end := headerSize
	for range binary.BigEndian.Uint16(wire[4:]) {
		end = skipName(wire, end) + 4
	}
	for range len(m.Answer) + len(m.Ns) + len(m.Extra) {
		end = skipName(wire, end)
		end += 10 + int(binary.BigEndian.Uint16(wire[end+8:]))
	}
	if end != len(wire) {
		t.Fatalf("%d bytes behind the end of %x", len(wire)-end, wire)
	}
	return m
}

// ask asks a proxy's own code.
func ask(t testing.TB, p *Proxy, name string, qtype uint16, change ...func(*dns.Msg)) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	for _, c := range change {
		c(m)
	}
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	wire := raw(p, packet)
	if len(wire) == 0 {
		t.Fatalf("no answer to %s", name)
	}
	answer := unpack(t, wire)
	if answer.Id != m.Id || !answer.Response {
		t.Fatalf("the answer to %s has id %d and QR %v", name, answer.Id, answer.Response)
	}
	return answer
}

func edns(size uint16) func(*dns.Msg) { return func(m *dns.Msg) { m.SetEdns0(size, false) } }

// texts are records without the TTL and class, sorted as they came.
func texts(records []dns.RR) []string {
	all := []string{}
	for _, rr := range records {
		if rr.Header().Rrtype == dns.TypeOPT {
			continue
		}
		f := strings.Fields(rr.String())
		all = append(all, strings.Join(append([]string{f[0]}, f[3:]...), " "))
	}
	return all
}

// fakeUpstream is a DNS server on loopback, over UDP and TCP at one port.
type fakeUpstream struct {
	at      netip.AddrPort
	queries atomic.Int64
}

// onePort listens over UDP and TCP at a port that is free for both.
func onePort(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	var err error
	for range 20 {
		var door net.Listener
		if door, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			break
		}
		var packets net.PacketConn
		if packets, err = net.ListenPacket("udp", door.Addr().String()); err == nil {
			return packets, door
		}
		door.Close()
	}
	t.Fatal(err)
	return nil, nil
}

func newUpstream(t testing.TB, handle func(w dns.ResponseWriter, r *dns.Msg)) *fakeUpstream {
	t.Helper()
	packets, door := onePort(t)
	u := &fakeUpstream{at: packets.LocalAddr().(*net.UDPAddr).AddrPort()}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		u.queries.Add(1)
		handle(w, r)
	})
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: door, Handler: handler, MaxTCPQueries: -1}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go server.ActivateAndServe()
		<-started
		t.Cleanup(func() { server.Shutdown() })
	}
	return u
}

// answering replies with records, of which %s stands for the question's name.
func answering(rcode int, records ...string) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetRcode(r, rcode)
		for _, text := range records {
			rr, err := dns.NewRR(strings.ReplaceAll(text, "%s", r.Question[0].Name))
			if err != nil {
				panic(fmt.Sprint(text, ": ", err))
			}
			if rr.Header().Rrtype == dns.TypeSOA {
				m.Ns = append(m.Ns, rr)
			} else {
				m.Answer = append(m.Answer, rr)
			}
		}
		w.WriteMsg(m)
	}
}

func silent(dns.ResponseWriter, *dns.Msg) {}

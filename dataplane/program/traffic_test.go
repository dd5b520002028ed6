package program

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

func TestConnectionsThroughVIPsReachABackend(t *testing.T) {
	l := newLab(t)
	services := []*dataplane.Service{
		service("web.a/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:8080", "10.80.0.12:8080"),
		service("web.a/tcp/6", api.TCP, "[fd77:6569:7200::10]:80", "[fd00::11]:8080", "[fd00::12]:8080"),
		service("dns.a/udp/4", api.UDP, "198.18.0.10:53", "10.80.0.11:5353", "10.80.0.12:5353"),
		service("dns.a/udp/6", api.UDP, "[fd77:6569:7200::10]:53", "[fd00::11]:5353", "[fd00::12]:5353"),
		service("out.a/tcp/4", api.TCP, "203.0.113.7:443", "10.80.0.13:8443"),
	}
	l.serve(services...)
	b := l.open()
	set(t, b, table(services...))
	for _, c := range []struct {
		op, network, target string
		mapped              bool
		bind                string
		backendPort         string
	}{
		{"dial", "tcp", "198.18.0.10:80", false, "10.80.0.99", ":8080"},
		{"dial", "tcp", "198.18.0.10:80", true, "::ffff:10.80.0.99", ":8080"},
		{"dial", "tcp", "[fd77:6569:7200::10]:80", false, "fd00::99", ":8080"},
		{"dial", "tcp", "203.0.113.7:443", false, "10.80.0.99", ":8443"},
		{"dial", "udp", "198.18.0.10:53", false, "10.80.0.99", ":5353"},
		{"dial", "udp", "198.18.0.10:53", true, "::ffff:10.80.0.99", ":5353"},
		{"dial", "udp", "[fd77:6569:7200::10]:53", false, "fd00::99", ":5353"},
		{"send", "udp", "198.18.0.10:53", false, "10.80.0.99", ":5353"},
		{"send", "udp", "198.18.0.10:53", true, "::ffff:10.80.0.99", ":5353"},
		{"send", "udp", "[fd77:6569:7200::10]:53", false, "fd00::99", ":5353"},
	} {
		t.Run(fmt.Sprintf("%s %s %s mapped=%v", c.op, c.network, c.target, c.mapped), func(t *testing.T) {
			r := request{Op: c.op, Network: c.network, Target: netip.MustParseAddrPort(c.target), Mapped: c.mapped, Bind: netip.MustParseAddr(c.bind), Count: 8}
			want := c.target
			if c.mapped {
				want = "[::ffff:" + strings.Replace(c.target, ":", "]:", 1)
			}
			for _, o := range l.client.must(r) {
				if o.Peer != want {
					t.Errorf("the socket's peer: got %s, want %s", o.Peer, want)
				}
				if !strings.HasSuffix(o.server(), c.backendPort) {
					t.Errorf("server: got %s, want one at %s", o.server(), c.backendPort)
				}
				if client := netip.MustParseAddrPort(o.client()).Addr().Unmap(); client != netip.MustParseAddr(c.bind).Unmap() {
					t.Errorf("the server saw %s, want %s", client, c.bind)
				}
			}
		})
	}
	counters, err := b.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint64{"web.a/tcp/4": 16, "web.a/tcp/6": 8, "dns.a/udp/4": 32, "dns.a/udp/6": 16, "out.a/tcp/4": 8} {
		got := counters.Services[name]
		var sum uint64
		for _, n := range got.Backends {
			sum += n.Connections
		}
		if got.Connections != want || sum != want {
			t.Errorf("%s: counted %d connections, %d by backend; want %d", name, got.Connections, sum, want)
		}
	}
}

func TestUnservedIsRefusedAndCounted(t *testing.T) {
	l := newLab(t)
	b := l.open()
	none := service("none.a/tcp/4", api.TCP, "198.18.0.10:80")
	quiet := service("quiet.a/udp/6", api.UDP, "[fd77:6569:7200::10]:53")
	out := service("out.a/tcp/4", api.TCP, "203.0.113.7:443", "10.80.0.13:8443")
	set(t, b, table(none, out, quiet))
	for _, c := range []struct{ op, network, target string }{
		{"dial", "tcp", "198.18.0.10:80"},          // no backend
		{"dial", "tcp", "198.18.0.10:81"},          // no such port
		{"dial", "udp", "198.18.0.10:80"},          // not for this protocol
		{"dial", "tcp", "198.18.9.9:80"},           // nobody's address
		{"dial", "tcp", "203.0.113.7:444"},         // no such port, outside of the ranges
		{"dial", "udp", "[fd77:6569:7200::10]:53"}, // no backend
		{"send", "udp", "[fd77:6569:7200::10]:53"},
		{"send", "udp", "198.18.0.10:53"},
		{"dial", "tcp", "[fd77:6569:7200::99]:1"},
	} {
		o := l.client.do(request{Op: c.op, Network: c.network, Target: netip.MustParseAddrPort(c.target)})[0]
		if o.Errno != int(unix.ECONNREFUSED) || strings.HasPrefix(o.Err, "recvfrom") {
			t.Errorf("%s %s %s: got %+v, want ECONNREFUSED at once", c.op, c.network, c.target, o)
		}
	}
	counters, err := b.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if got := counters.Services[none.Name].Refused; got != 1 {
		t.Errorf("refused by %s: got %d, want 1", none.Name, got)
	}
	if got := counters.Services[quiet.Name].Refused; got != 2 {
		t.Errorf("refused by %s: got %d, want 2", quiet.Name, got)
	}
	if got := counters.UnservedPorts; got != 6 {
		t.Errorf("unserved ports: got %d, want 6", got)
	}
}

func TestOtherTrafficIsLeftAlone(t *testing.T) {
	l := newLab(t)
	s := service("dns.a/udp/4", api.UDP, "198.18.0.10:53", "10.80.0.11:5353")
	other := service("other", api.UDP, "198.18.0.11:1", "10.80.0.14:7000")
	web := service("web", api.TCP, "198.18.0.11:1", "10.80.0.14:7001")
	l.serve(s, other, web)
	b := l.open()
	set(t, b, table(s))
	if o := l.dial("tcp", "10.80.0.14:7001", 1)[0]; o.Err != "" || o.Peer != "10.80.0.14:7001" {
		t.Errorf("a plain connection: got %+v", o)
	}
	// One socket: through the VIP, then to somebody else and back.
	vip, plain := netip.MustParseAddrPort("198.18.0.10:53"), netip.MustParseAddrPort("10.80.0.14:7000")
	o := l.client.must(request{Op: "send", Network: "udp", Target: vip, Keep: true})[0]
	for i, target := range []netip.AddrPort{plain, vip, plain} {
		again := l.client.must(request{Op: "send", Network: "udp", Target: target, Socket: o.Socket, Keep: true})[0]
		if again.Peer != target.String() {
			t.Errorf("message %d to %s: the answer came from %s", i, target, again.Peer)
		}
	}
	// A connected socket that connects elsewhere shows the new peer.
	o = l.client.must(request{Op: "dial", Network: "udp", Target: vip, Keep: true})[0]
	for _, target := range []netip.AddrPort{plain, s.Backends[0].Address} {
		again := l.client.must(request{Op: "dial", Network: "udp", Target: target, Socket: o.Socket, Keep: true})[0]
		if again.Peer != target.String() {
			t.Errorf("connected anew to %s: the answer came from %s", target, again.Peer)
		}
	}
}

func TestSocketWithSeveralVIPsKeepsThemApart(t *testing.T) {
	l := newLab(t)
	a := service("a/udp/4", api.UDP, "198.18.0.10:53", "10.80.0.11:5353", "10.80.0.12:5353", "10.80.0.13:5353")
	z := service("z/udp/4", api.UDP, "198.18.0.20:53", "10.80.0.11:5354", "10.80.0.12:5354", "10.80.0.13:5354")
	l.serve(a, z)
	b := l.open()
	set(t, b, table(a, z))
	socket := 0
	servers := map[string]bool{}
	for i := range 12 {
		target := []string{"198.18.0.10:53", "198.18.0.20:53"}[i%2]
		o := l.client.must(request{Op: "send", Network: "udp", Target: netip.MustParseAddrPort(target), Socket: socket, Keep: true})[0]
		socket = o.Socket
		if o.Peer != target {
			t.Fatalf("message %d: the answer came from %s, want %s", i, o.Peer, target)
		}
		servers[o.server()] = true
	}
	if len(servers) != 2 {
		t.Errorf("got answers of %v, want one server for each virtual address", servers)
	}
	counters, err := b.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{a.Name, z.Name} {
		if n := counters.Services[name].Connections; n != 1 {
			t.Errorf("%s: counted %d connections of one socket, want 1", name, n)
		}
	}
}

func TestUDPSocketStaysUntilItsBackendGoes(t *testing.T) {
	l := newLab(t)
	s := service("a/udp/4", api.UDP, "198.18.0.10:53", "10.80.0.11:5353", "10.80.0.12:5353", "10.80.0.13:5353")
	l.serve(s)
	b := l.open()
	set(t, b, table(s))
	ask := func(socket int) outcome {
		return l.client.must(request{Op: "send", Network: "udp", Target: s.Frontends[0], Socket: socket, Keep: true})[0]
	}
	first := ask(0)
	index := -1
	for i, backend := range s.Backends {
		if backend.Address.String() == first.server() {
			index = i
		}
	}
	change := func(state api.BackendState) {
		t.Helper()
		next := copyOf(s)
		next.Backends = append([]dataplane.Backend(nil), s.Backends...)
		next.Backends[index].State = state
		next.Slots = nil
		for i := range next.Backends {
			if i != index {
				next.Slots = append(next.Slots, uint32(i))
			}
		}
		set(t, b, table(next))
	}
	change(api.Draining)
	if again := ask(first.Socket); again.server() != first.server() {
		t.Errorf("a draining backend lost its socket to %s", again.server())
	}
	change(api.Down)
	moved := ask(first.Socket)
	if moved.server() == first.server() {
		t.Errorf("the socket stays with %s, which is down", moved.server())
	}
	if moved.Peer != "198.18.0.10:53" {
		t.Errorf("after moving the answer came from %s", moved.Peer)
	}
}

func TestWeightsDecideTheSpread(t *testing.T) {
	l := newLab(t)
	s := service("a/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80", "10.80.0.13:80", "10.80.0.14:80")
	l.serve(s)
	s.Backends[2].State, s.Backends[3].State = api.Draining, api.Down
	s.Slots = []uint32{0, 1, 1, 1}
	b := l.open()
	set(t, b, table(s))
	got := spread(t, l.dial("tcp", "198.18.0.10:80", 800))
	if len(got) != 2 {
		t.Errorf("got %v: a draining or down backend was used", got)
	}
	// 3/4 of 800 is 600, the standard deviation 12.
	if n := got["10.80.0.12:80"]; n < 540 || n > 660 {
		t.Errorf("the backend with weight 3 of 4 got %d of 800", n)
	}
}

func TestMaglevAndAffinityKnowTheClientAgain(t *testing.T) {
	l := newLab(t)
	maglev := service("m/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80", "10.80.0.13:80")
	maglev.Balance = api.Maglev
	sticky := service("s/tcp/4", api.TCP, "198.18.0.20:81", "10.80.0.11:81", "10.80.0.12:81", "10.80.0.13:81")
	sticky.Affinity = 300 * time.Millisecond
	l.serve(maglev, sticky)
	b := l.open()
	set(t, b, table(maglev, sticky))
	if got := spread(t, l.dial("tcp", "198.18.0.10:80", 20)); len(got) != 1 {
		t.Errorf("maglev gave one client %v", got)
	}
	got := spread(t, l.dial("tcp", "198.18.0.20:81", 20))
	if len(got) != 1 {
		t.Fatalf("affinity gave one client %v", got)
	}
	// The backend goes: the client moves, and stays there when it comes back.
	index := uint32(0)
	for i, backend := range sticky.Backends {
		if got[backend.Address.String()] > 0 {
			index = uint32(i)
		}
	}
	gone := copyOf(sticky)
	gone.Backends = append([]dataplane.Backend(nil), sticky.Backends...)
	gone.Backends[index].State = api.Down
	gone.Slots = []uint32{(index + 1) % 3}
	set(t, b, table(gone, maglev))
	moved := spread(t, l.dial("tcp", "198.18.0.20:81", 5))
	set(t, b, table(sticky, maglev))
	if back := spread(t, l.dial("tcp", "198.18.0.20:81", 5)); len(moved) != 1 || fmt.Sprint(back) != fmt.Sprint(moved) {
		t.Errorf("after the move: %v, then %v", moved, back)
	}
	// Clients are told apart by the address that they bind, and time runs out.
	seen := map[string]bool{}
	for range 20 {
		time.Sleep(35 * time.Millisecond)
		for _, bind := range []string{"10.80.0.99", "10.80.0.14", "10.80.0.13"} {
			o := l.client.must(request{Op: "dial", Network: "tcp", Target: sticky.Frontends[0], Bind: netip.MustParseAddr(bind)})[0]
			seen[bind+" "+o.server()] = true
		}
	}
	if len(seen) != 3 {
		t.Errorf("three bound clients used %v", seen)
	}
	seen = map[string]bool{}
	for range 8 {
		time.Sleep(320 * time.Millisecond)
		seen[l.dial("tcp", "198.18.0.20:81", 1)[0].server()] = true
	}
	if len(seen) == 1 {
		t.Errorf("the affinity outlived its time-out eight times")
	}
}

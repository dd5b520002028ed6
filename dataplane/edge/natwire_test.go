package edge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

var natFrontends = []string{"198.18.0.1:80", "[fd77::1]:80"}

func TestNATServesABackendThatKnowsNothingOfIt(t *testing.T) {
	for _, mode := range []dataplane.AttachMode{dataplane.AttachNative, dataplane.AttachGeneric, dataplane.AttachTCX} {
		t.Run(string(mode), func(t *testing.T) { natServes(t, mode, 500, 8<<20) })
	}
}

// natServes runs connections to each frontend, a transfer of large bytes both ways
// and a question over UDP.
func natServes(t *testing.T, mode dataplane.AttachMode, connections, large int) {
	w := newNATWires(t, mode != dataplane.AttachTCX)
	w.serve()
	w.first.startWith(mode, natServices()...)
	for _, at := range natFrontends {
		for i := range connections {
			c, err := w.dial("tcp", at, 5*time.Second)
			if err != nil {
				t.Fatalf("connection %d to %s: %v; nat %v, reasons %v", i, at, err, w.first.counters(), reasons(t, w.first.e))
			}
			if err := echo(c, fmt.Sprintf("request %d\n", i)); err != nil {
				t.Fatalf("request %d to %s: %v", i, at, err)
			}
			c.Close()
		}
		c, err := w.dial("tcp", at, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := exchange(c, large); err != nil {
			t.Errorf("large transfer with %s: %v; nat %v, reasons %v", at, err, w.first.counters(), reasons(t, w.first.e))
		}
		c.Close()
		w.askUDP(at)
	}
	if n := w.first.counters(); n["allocated"] < uint64(2*connections+4) || n["exhausted"] > 0 {
		t.Errorf("nat %v", n)
	}
}

// askUDP wants an answer that says that the edge has asked, from a port of its range.
func (w *natWires) askUDP(at string) {
	w.t.Helper()
	c, err := w.dial("udp", at, time.Second)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("who?")); err != nil {
		w.t.Fatal(err)
	}
	raw := make([]byte, 200)
	n, err := c.Read(raw)
	if err != nil {
		w.t.Fatalf("answer from %s: %v", at, err)
	}
	from, _, _ := strings.Cut(string(raw[:n]), " ")
	who := netip.MustParseAddrPort(from)
	own4, own6 := netip.MustParseAddr(w.first.own4), netip.MustParseAddr(w.first.own6)
	if a := who.Addr(); (a != own4 && a != own6) || who.Port() < 50000 {
		w.t.Errorf("the backend saw %s", from)
	}
}

func TestNATTellsBothEndsOfErrors(t *testing.T) {
	for _, mode := range []dataplane.AttachMode{dataplane.AttachNative, dataplane.AttachTCX} {
		t.Run(string(mode), func(t *testing.T) {
			w := newNATWires(t, mode != dataplane.AttachTCX)
			w.first.startWith(mode, natServices()...)
			for i, at := range natFrontends {
				// Nobody listens at the backend: its error reaches the client.
				c, err := w.dial("udp", at, time.Second)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.Write([]byte("anybody?")); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Read(make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%s: the client got %v", at, err)
				}
				c.Close()
				if _, err := w.dial("tcp", at, 5*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%s: a connection got %v", at, err)
				}
				// The client goes away: its error reaches the backend.
				w.abandon(at, []string{natBackend4, natBackend6}[i])
			}
		})
	}
}

// abandon sends a packet from a client's socket that is gone when the answer comes.
func (w *natWires) abandon(at, backend string) {
	t := w.t
	t.Helper()
	var server *net.UDPConn
	w.in(w.node, func() {
		l, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(backend), 8080)))
		if err != nil {
			t.Fatal(err)
		}
		server = l
	})
	defer server.Close()
	server.SetDeadline(time.Now().Add(5 * time.Second))
	c, err := w.dial("udp", at, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_, from, err := server.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	// Only a connected socket is told of errors.
	raw, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var address unix.Sockaddr = &unix.SockaddrInet6{Port: int(from.Port()), Addr: from.Addr().As16()}
	if from.Addr().Unmap().Is4() {
		address = &unix.SockaddrInet4{Port: int(from.Port()), Addr: from.Addr().Unmap().As4()}
	}
	var fault error
	if err := raw.Control(func(fd uintptr) {
		if fault = unix.Connect(int(fd), address); fault == nil {
			fault = unix.Send(int(fd), []byte("late"), 0)
		}
	}); err != nil || fault != nil {
		t.Fatal(err, fault)
	}
	if _, err := server.Read(make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%s: the backend got %v; nat %v, reasons %v", at, err, w.first.counters(), reasons(t, w.first.e))
	}
}

func TestNATTellsOfASmallerMTU(t *testing.T) {
	w := newNATWires(t, true)
	w.serve()
	w.first.hop.MTU = 1400
	w.first.start(natServices()...)
	for _, at := range natFrontends {
		c, err := w.dial("tcp", at, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := exchange(c, 1<<20); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		c.Close()
	}
	if n := reasons(t, w.first.e); n["too_big"] == 0 || n["answered"] == 0 {
		t.Errorf("reasons %v", n)
	}
}

func TestNATAnswersByTheKernelsRoutesWhereTheyAreKnown(t *testing.T) {
	w := newNATWires(t, true)
	w.serve()
	w.in(w.edge, func() { forward(t) })
	w.first.start(natServices()...)
	c, err := w.dial("tcp", natFrontends[0], 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := exchange(c, 1<<20); err != nil {
		t.Error(err)
	}
}

func TestNATThatHasNoPortLeftRefusesAndCounts(t *testing.T) {
	w := newNATWires(t, true)
	w.serve()
	w.first.o = testOptions(t, newBPFFS(t))
	w.first.o.NATPorts = Ports{50000, 50003}
	w.first.start(natServices()...)
	var open []net.Conn
	for i := range 4 {
		c, err := w.dial("tcp", natFrontends[0], 5*time.Second)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		open = append(open, c)
	}
	if c, err := w.dial("tcp", natFrontends[0], 300*time.Millisecond); err == nil {
		c.Close()
		t.Error("a fifth connection had a port")
	}
	if n := w.first.counters(); n["exhausted"] == 0 || n["allocated"] != 4 {
		t.Errorf("nat %v", n)
	}
	for i, c := range open {
		if err := echo(c, "still here"); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

func TestNATFlowsOutliveTheAgent(t *testing.T) {
	w := newNATWires(t, true)
	w.serve()
	w.first.start(natServices()...)
	c, err := w.dial("tcp", natFrontends[0], 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, when := range []struct {
		name string
		do   func()
	}{
		{"before", func() {}},
		{"while no agent runs", func() { w.first.e.Close() }},
		{"after its first Set", func() {
			w.first.e = nil
			w.first.e = open(t, w.first.o)
			if c := w.first.set(dataplane.AttachNative, natServices()...); c != (dataplane.Changes{}) {
				t.Errorf("the new process's first Set: %+v", c)
			}
		}},
		{"after an idle Set", func() {
			if c := w.first.set(dataplane.AttachNative, natServices()...); c != (dataplane.Changes{}) {
				t.Errorf("an idle Set: %+v", c)
			}
		}},
	} {
		when.do()
		if err := echo(c, when.name); err != nil {
			t.Fatalf("%s: %v", when.name, err)
		}
	}
}

func TestTwoEdgesEachNATTheirOwn(t *testing.T) {
	w := newNATWires(t, true)
	w.serve()
	w.second = w.addEdge(true)
	w.first.start(natServices()...)
	w.second.start(natServices()...)
	old, err := w.dial("tcp", natFrontends[0], 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := echo(old, "by the first"); err != nil {
		t.Fatal(err)
	}
	w.through(w.second)
	// The client's address is bound to the first wire; its packets take the second.
	if err := echo(old, "by the second"); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		t.Errorf("a flow of the first edge ended at the second with %v, want a reset", err)
	}
	c, err := w.dial("tcp", natFrontends[0], 5*time.Second)
	if err != nil {
		t.Fatalf("through the second: %v; nat %v", err, w.second.counters())
	}
	defer c.Close()
	if err := echo(c, "by the second"); err != nil {
		t.Error(err)
	}
	if n := w.second.counters(); n["allocated"] == 0 {
		t.Errorf("nat of the second %v", n)
	}
}

func TestNATsDamageIsRepaired(t *testing.T) {
	w := newNATWires(t, true)
	w.serve()
	w.first.start(natServices()...)
	e := w.first.e
	side := linkPlace{mode: dataplane.AttachNative, index: w.first.hop.Interface, answers: true}
	for name, damage := range map[string]func() error{
		"addresses wiped": func() error { return e.maps["nat_config"].Put(uint32(0), make([]byte, 40)) },
		"jump removed":    func() error { return e.maps["edge_nat_xdp"].Delete(uint32(natOut)) },
		"nat turned off":  func() error { e.cells.config[0].Nat = 0; return nil },
		"link detached":   func() error { return e.links[side].Detach() },
		"link unpinned":   func() error { return os.Remove(w.first.o.PinDir + "/" + side.pin()) },
	} {
		if err := damage(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c := w.first.set(dataplane.AttachNative, natServices()...); c.Repaired == 0 || c.Written > 0 {
			t.Errorf("%s: %+v", name, c)
		}
		c, err := w.dial("tcp", natFrontends[0], 5*time.Second)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.Close()
	}
	// Without services by NAT nobody awaits answers.
	w.first.set(dataplane.AttachNative)
	if files, err := os.ReadDir(w.first.o.PinDir); err != nil || len(files) != 2 {
		t.Errorf("pinned are %v, %v", files, err)
	}
}

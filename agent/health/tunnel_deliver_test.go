package health

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/deliver"
	"github.com/weirproject/weir/testenv"
)

// deliverTo has the node take the tunnels' packets to its backends.
func deliverTo(t testing.TB, node *place) *deliver.Deliverer {
	t.Helper()
	testenv.NeedBPF(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	table := dataplane.DeliveryTable{Interfaces: []string{"eth0"}, Edges: []netip.Addr{edge4, edge6}}
	for _, name := range []string{"4 in 4", "6 in 6"} { // every address ends tunnels of both
		c := ways[name]
		table.Services = append(table.Services, &dataplane.EdgeService{
			Name: name, Protocol: api.TCP, Frontends: []netip.AddrPort{c.way.VIP}, Deliver: api.DSR,
			Backends: []dataplane.EdgeBackend{{Address: c.backend, Node: c.way.Node, State: api.Up}},
		})
	}
	var d *deliver.Deliverer
	node.must(func() (err error) {
		if d, err = deliver.New(deliver.Options{PinDir: filepath.Join(dir, "deliver"), Flows: 4096, Targets: 1024}); err == nil {
			_, err = d.Set(t.Context(), table)
		}
		return err
	})
	t.Cleanup(func() { d.Close() })
	return d
}

// serve listens at the backends' addresses; nobody accepts.
func serve(t testing.TB, node *place) {
	t.Helper()
	for _, backend := range []netip.AddrPort{back4, back6} {
		node.must(func() error {
			l, err := net.Listen("tcp", backend.String())
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		})
	}
}

// halfOpen counts the connections of the node that wait for their last ACK.
func halfOpen(t testing.TB, node *place) (n int) {
	t.Helper()
	node.must(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			f, err := os.Open("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			defer f.Close()
			for lines := bufio.NewScanner(f); lines.Scan(); {
				if fields := strings.Fields(lines.Text()); len(fields) > 3 && fields[3] == "03" {
					n++
				}
			}
		}
		return nil
	})
	return n
}

func TestTunnelCheckGoesTheWayOfTheDataPlane(t *testing.T) {
	edge, node := newWire(t)
	d := deliverTo(t, node)
	_, probe := edgeProbes(t, edge)
	for name, c := range ways {
		if err := within(t.Context(), 5*time.Second, probe(through(c.way, c.backend))); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: nobody listens: got %v", name, err)
		}
	}
	serve(t, node)
	for name, c := range ways {
		if err := within(t.Context(), 5*time.Second, probe(through(c.way, c.backend))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); halfOpen(t, node) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are left half open", halfOpen(t, node))
		}
	}
	strange := ways["4 in 4"].way
	strange.VIP = netip.AddrPortFrom(strange.VIP.Addr(), 81)
	if err := within(t.Context(), 100*time.Millisecond, probe(through(strange, back4))); err == nil || err.Error() != "no answer within 100ms" {
		t.Errorf("a frontend that the node does not know: got %v", err)
	}
	counters, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for why, n := range counters.Dropped {
		if (n > 0) != (why == "unknown-backend") {
			t.Errorf("the node dropped %d packets for %s", n, why)
		}
	}
}

// The RST of the check before was lost: the backend takes the SYN for a strange
// segment of the connection that it still has half of.
func TestTunnelCheckEndsTheOneBefore(t *testing.T) {
	for _, name := range []string{"4 in 4", "6 in 6"} {
		c := ways[name]
		edge, node := newWire(t)
		deliverTo(t, node)
		serve(t, node)
		shared, probe := edgeProbes(t, edge)
		p := &tunnelProbe{tunnels: shared, way: c.way, backend: c.backend}
		p.way.Outer = p.way.Source
		edge.must(func() error {
			port, outer, err := shared.take(p.way)
			if err != nil {
				return err
			}
			unended := call{probe: p, port: port, outer: outer, seq: shared.sequence()}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := unended.open(ctx); err != nil {
				return err
			}
			shared.giveBack(port, true)
			return nil
		})
		if n := halfOpen(t, node); n != 1 {
			t.Fatalf("%s: %d connections are half open, want 1", name, n)
		}
		if err := within(t.Context(), 5*time.Second, probe(through(c.way, c.backend))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for deadline := time.Now().Add(5 * time.Second); halfOpen(t, node) > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d connections are left half open", name, halfOpen(t, node))
			}
		}
	}
}

// BenchmarkTunnelCheck is the whole way and back: both nodes' kernels are in it,
// since packets of a veth pair are received by who sends them.
func BenchmarkTunnelCheck(b *testing.B) {
	edge, node := newWire(b)
	deliverTo(b, node)
	serve(b, node)
	shared := newTunnels()
	b.Cleanup(shared.close)
	benchmarkProbe(b, edge, (&prober{tunnels: shared}).probe(through(ways["4 in 4"].way, back4)))
}

// BenchmarkDirectCheck is the same backend's without the tunnel, by a connection
// of the kernel's.
func BenchmarkDirectCheck(b *testing.B) {
	edge, node := newWire(b)
	node.must(func() error {
		l, err := net.Listen("tcp", back4.String())
		if err != nil {
			return err
		}
		b.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		return nil
	})
	benchmarkProbe(b, edge, (&prober{}).probe(target(back4.String(), api.HealthCheck{TCP: &api.TCPCheck{}})))
}

func benchmarkProbe(b *testing.B, edge *place, probe probeFunc) {
	spent := func() time.Duration {
		var u unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	edge.must(func() error {
		b.ReportAllocs()
		before := spent()
		for b.Loop() {
			if err := within(b.Context(), time.Second, probe); err != nil {
				return err
			}
		}
		b.ReportMetric(float64(spent()-before)/float64(b.N), "cpu-ns/op")
		return nil
	})
}

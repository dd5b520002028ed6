package program

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// fleet makes services with backends each; their addresses are all different.
// The service of index i has the VIP 198.18.0.0 + i + 256, port 80.
func fleet(services, backends int) []*dataplane.Service {
	all := make([]*dataplane.Service, services)
	for i := range all {
		s := &dataplane.Service{
			Name: fmt.Sprintf("s%06d/tcp/4", i), Protocol: api.TCP, Balance: api.Random,
			Frontends: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i>>8) + 1, byte(i)}), 80)},
			Backends:  make([]dataplane.Backend, backends), Slots: make([]uint32, backends),
		}
		for j := range backends {
			n := i*backends + j
			s.Backends[j] = dataplane.Backend{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{11 + byte(n>>24), byte(n >> 16), byte(n >> 8), byte(n)}), 8080), Weight: 1, State: api.Up,
			}
			s.Slots[j] = uint32(j)
		}
		all[i] = s
	}
	return all
}

// The maps start small and are replaced many times while connections come and
// one stays open; the counters count on.
func TestMapsGrowUnderTraffic(t *testing.T) {
	l := newLab(t)
	o := l.options()
	o.Sizes = Sizes{Services: 4, Frontends: 4, Backends: 4, Slots: 16}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80")
	l.serve(web)
	set(t, b, table(web))
	open := l.client.must(request{Op: "dial", Network: "tcp", Target: web.Frontends[0], Keep: true})[0]
	others := fleet(300, 7)
	l.client.send(request{Op: "churn", Network: "tcp", Target: web.Frontends[0], Count: 1500})
	grown := 0
	for n := 1; n <= len(others); n++ {
		before := b.sizes()
		set(t, b, table(append(others[:n:n], web)...))
		if b.sizes() != before {
			grown++
		}
	}
	results := l.client.receive()
	for _, failure := range results[:len(results)-1] {
		t.Errorf("while maps grew: %+v", failure)
	}
	made := results[len(results)-1].Socket
	if made < 100 || grown < 10 {
		t.Errorf("only %d connections while maps grew %d times", made, grown)
	}
	again := l.client.must(request{Op: "dial", Network: "tcp", Socket: open.Socket, Keep: true})[0]
	if again.server() != open.server() || again.Peer != open.Peer {
		t.Errorf("the open connection: %+v, then %+v", open, again)
	}
	all, err := b.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if got := all.Services[web.Name].Connections; got != uint64(made)+1 {
		t.Errorf("%d connections are counted, want %d", got, made+1)
	}
	if n := counted(t, b, web, 0).Open + counted(t, b, web, 1).Open; n != 1 {
		t.Errorf("%d connections count as open, want 1", n)
	}
	if c := set(t, b, table(append(others, web)...)); c != nothing {
		t.Errorf("the same again: got %+v, want no change", c)
	}
	b.Close()
	// The next process takes the large maps over.
	next := l.open()
	if c := set(t, next, table(append(others, web)...)); c != nothing {
		t.Errorf("after a restart: got %+v, want no change", c)
	}
	t.Logf("%d connections while maps grew %d times", made, grown)
}

// What a Set between two verifications writes follows the change, not the size.
func TestSetWritesWhatChanged(t *testing.T) {
	l := newLab(t)
	o := l.options()
	o.VerifyEvery = time.Hour
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	services := fleet(500, 10)
	set(t, b, table(services...))
	if c := set(t, b, table(services...)); c != nothing {
		t.Fatalf("the same again: got %+v", c)
	}
	next := append([]*dataplane.Service(nil), services...)
	next[7] = only(services[7], api.Draining, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	next[7].Backends[1].Weight = 2 // weights are in the slots
	// A backend's state and the slots.
	if c := set(t, b, table(next...)); c != (dataplane.Changes{Written: 2}) {
		t.Errorf("one backend drains: got %+v, want 2 written", c)
	}
	added := fleet(501, 10)[500]
	// A service's name, record and slots, its backends and its frontend.
	if c := set(t, b, table(append(next, added)...)); c != (dataplane.Changes{Written: 14}) {
		t.Errorf("one more service: got %+v, want 14 written", c)
	}
	moved := copyOf(added)
	moved.Frontends = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.1:80")}
	// Frontend and literal address, and the flag that there is one.
	if c := set(t, b, table(append(next, moved)...)); c != (dataplane.Changes{Written: 3, Removed: 1}) {
		t.Errorf("another frontend: got %+v, want 3 written and 1 removed", c)
	}
	if c := set(t, b, table(next...)); c.Removed != 13 {
		t.Errorf("one service less: got %+v, want 13 removed", c)
	}
	b.options.VerifyEvery = 0
	if c := set(t, b, table(next...)); c != nothing {
		t.Errorf("reading back finds %+v to do", c)
	}
}

// Frontends may move between services in one Set, and go to the first of two
// that want them.
func TestFrontendsMoveBetweenServices(t *testing.T) {
	l := newLab(t)
	for _, every := range []time.Duration{0, time.Hour} {
		o := l.options()
		o.VerifyEvery, o.PinDir = every, fmt.Sprintf("%s-%d", l.pins, every)
		b, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		a := service("a/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
		z := service("z/tcp/4", api.TCP, "198.18.0.11:80", "10.80.0.12:80")
		if every == 0 {
			l.serve(a, z)
		}
		set(t, b, table(a, z))
		a2, z2 := copyOf(a), copyOf(z)
		a2.Frontends, z2.Frontends = z.Frontends, a.Frontends
		set(t, b, table(a2, z2))
		if got := spread(t, l.dial("tcp", "198.18.0.10:80", 3)); got["10.80.0.12:80"] != 3 {
			t.Errorf("after the swap: got %v", got)
		}
		// The unchanged owner keeps it.
		a3 := copyOf(a2)
		a3.Frontends = append([]netip.AddrPort{z2.Frontends[0]}, a2.Frontends...)
		if _, err := b.Set(context.Background(), table(a3, z2)); err == nil && every != 0 {
			t.Error("two services have one frontend")
		}
		set(t, b, table(a2, z2))
		if got := spread(t, l.dial("tcp", "198.18.0.11:80", 3)); got["10.80.0.11:80"] != 3 {
			t.Errorf("after the conflict: got %v", got)
		}
		set(t, b, table())
		if o := l.dial("tcp", "198.18.0.10:80", 1)[0]; o.Errno != int(syscall.ECONNREFUSED) {
			t.Errorf("after all is removed: %+v", o)
		}
		if _, err := Cleanup(o.PinDir); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkSet measures one backend's change among many, the reading back of
// everything, and the first load.
func BenchmarkSet(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("needs root")
	}
	for _, size := range []struct{ services, backends int }{{1, 100}, {1000, 20}, {10000, 100}} {
		services := fleet(size.services, size.backends)
		name := fmt.Sprintf("%dx%d", size.services, size.backends)
		b.Run("load/"+name, func(b *testing.B) { benchmarkLoad(b, services) })
		b.Run("change/"+name, func(b *testing.B) { benchmarkChange(b, services) })
		b.Run("verify/"+name, func(b *testing.B) { benchmarkVerify(b, services) })
	}
}

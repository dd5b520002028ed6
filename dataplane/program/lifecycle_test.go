package program

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

var nothing dataplane.Changes

func TestSetIsIdempotentAndRemovesWhatIsNotWanted(t *testing.T) {
	l := newLab(t)
	b := l.open()
	a := service("a/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80")
	z := service("z/tcp/4", api.TCP, "203.0.113.7:80", "10.80.0.13:80")
	if _, err := os.Stat(l.pins); !os.IsNotExist(err) {
		t.Errorf("New has pinned already: %v", err)
	}
	if c := set(t, b, table(a, z)); c.Written == 0 || c.Removed != 0 || c.Repaired != 0 {
		t.Errorf("first Set: got %+v", c)
	}
	if c := set(t, b, table(a, z)); c != nothing {
		t.Errorf("second Set: got %+v, want no change", c)
	}
	held, err := b.Held()
	if err != nil || len(held) != 2 || held[0].Name != a.Name || len(held[0].Slots) != 2 || held[1].Frontends[0] != z.Frontends[0] {
		t.Errorf("Held: got %+v, %v", held, err)
	}
	// service, backend, frontend and address
	if c := set(t, b, table(a)); c.Removed != 4 || c.Repaired != 0 {
		t.Errorf("removing a service: got %+v, want 4 removed", c)
	}
	if c := set(t, b, table()); c.Removed != 4 || c.Written != 0 {
		t.Errorf("removing the last service: got %+v", c)
	}
	if o := l.dial("tcp", "198.18.0.10:80", 1)[0]; o.Errno != int(syscall.ECONNREFUSED) {
		t.Errorf("a removed service: got %+v", o)
	}
}

func TestServiceThatDoesNotFitIsLeftOutAndNamed(t *testing.T) {
	l := newLab(t)
	o := l.options()
	o.Sizes = Sizes{Services: 5, Frontends: 4, Backends: 6, Slots: 16}
	o.Limits = o.Sizes
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	good := service("good/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
	l.serve(good)
	slots := service("slots", api.TCP, "198.18.0.11:80", "10.80.0.11:80")
	slots.Slots = make([]uint32, 17)
	mixed := service("mixed", api.TCP, "198.18.0.12:80", "[fd00::11]:80")
	twice := service("twice", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
	balance := service("balance", api.TCP, "198.18.0.13:80", "10.80.0.11:80")
	balance.Balance = api.LeastConn
	backends := service("backends", api.TCP, "198.18.0.14:80", "10.80.0.1:1", "10.80.0.2:1", "10.80.0.3:1", "10.80.0.4:1", "10.80.0.5:1")
	index := service("index", api.TCP, "198.18.0.15:80", "10.80.0.11:80")
	index.Slots = []uint32{1}
	long := service(strings.Repeat("n", 256), api.TCP, "198.18.0.16:80", "10.80.0.11:80")
	for range 2 {
		_, err = b.Set(context.Background(), table(good, slots, mixed, twice, balance, backends, index, long))
		var left *dataplane.LeftOut
		if !errors.As(err, &left) || len(left.Services) != 7 || left.Services[good.Name] != nil {
			t.Fatalf("Set: got %v, want all but one left out", err)
		}
		if got := spread(t, l.dial("tcp", "198.18.0.10:80", 3)); got["10.80.0.11:80"] != 3 {
			t.Errorf("the good service: %v", got)
		}
	}
	held, err := b.Held()
	if err != nil || len(held) != 1 {
		t.Errorf("Held: got %+v, %v; a half service is left", held, err)
	}
	// What was taken for them was given back: the whole tables can be used,
	// again and again.
	for i := range 20 {
		full := service(fmt.Sprintf("full%d", i), api.TCP, "198.18.0.20:80", "10.80.0.1:1", "10.80.0.2:1", "10.80.0.3:1", "10.80.0.4:1")
		full.Slots = []uint32{0, 1, 2, 3, uint32(i % 4)}
		if _, err := b.Set(context.Background(), table(full)); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if _, err := b.Set(context.Background(), table()); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}

func TestChurnOfSetsBreaksNoConnection(t *testing.T) {
	l := newLab(t)
	all := []string{"10.80.0.11:80", "10.80.0.12:80", "10.80.0.13:80", "10.80.0.14:80"}
	stable := service("stable/tcp/4", api.TCP, "198.18.0.10:80", all...)
	other := service("other/tcp/4", api.TCP, "198.18.0.20:81", "10.80.0.11:81", "10.80.0.12:81")
	l.serve(stable, other)
	b := l.open()
	set(t, b, table(other, stable))
	l.client.send(request{Op: "churn", Network: "tcp", Target: stable.Frontends[0], Count: 1500})
	sets := 0
	for end := time.Now().Add(1400 * time.Millisecond); time.Now().Before(end); sets++ {
		// Any backend comes and goes, runs grow and shrink, another service is
		// renamed and disappears. The small tables make ids and slots come back.
		s := service(stable.Name, api.TCP, "198.18.0.10:80", all[sets%3:]...)
		for range sets % 97 {
			s.Slots = append(s.Slots, uint32(sets%len(s.Backends)))
		}
		o := copyOf(other)
		o.Name = fmt.Sprintf("other%d/tcp/4", sets%5)
		services := []*dataplane.Service{o, s}
		if sets%3 == 0 {
			services = services[1:]
		}
		set(t, b, table(services...))
	}
	results := l.client.receive()
	made := results[len(results)-1].Socket
	for _, failure := range results[:len(results)-1] {
		// A backend that goes takes its open connections with it.
		if failure.Errno != int(syscall.ECONNABORTED) {
			t.Errorf("under churn: %+v", failure)
		}
	}
	if made < 100 || sets < 10 {
		t.Errorf("only %d connections and %d sets", made, sets)
	}
	t.Logf("%d connections through %d sets", made, sets)
}

func TestRangesChangeAtRunTime(t *testing.T) {
	l := newLab(t)
	a := service("a/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
	l.serve(a)
	b := l.open()
	set(t, b, dataplane.Table{Services: []*dataplane.Service{a}})
	spread(t, l.dial("tcp", "198.18.0.10:80", 2)) // now a literal address
	if o := l.dial("tcp", "198.18.0.11:80", 1)[0]; o.Errno == int(syscall.ECONNREFUSED) {
		t.Errorf("an address outside of the ranges was refused")
	}
	set(t, b, dataplane.Table{Ranges: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/24")}, Services: []*dataplane.Service{a}})
	spread(t, l.dial("tcp", "198.18.0.10:80", 2))
	if o := l.dial("tcp", "198.18.0.11:80", 1)[0]; o.Errno != int(syscall.ECONNREFUSED) {
		t.Errorf("an unallotted address of the range: got %+v", o)
	}
	nine := make([]netip.Prefix, 9)
	for i := range nine {
		nine[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16)
	}
	if _, err := b.Set(context.Background(), dataplane.Table{Ranges: nine}); err == nil {
		t.Error("nine ranges were taken")
	}
}

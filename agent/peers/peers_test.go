package peers

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// fleet is a few detectors on loopback, with wires that can be cut.
type fleet struct {
	t     *testing.T
	nodes []api.Node
	all   map[string]*Detector
	stops map[string]func()

	mu  sync.Mutex
	off map[netip.Addr]bool         // without power
	cut map[[2]netip.Addr]bool      // from, to
	saw map[string][]api.NodeHealth // changes, "who sees whom"
}

var testKey = []byte("a key of the fleet, of 32 bytes.")

// nextNet gives each fleet addresses of its own.
var nextNet = make(chan byte, 1)

func TestMain(m *testing.M) {
	nextNet <- 10
	m.Run()
}

func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	third := <-nextNet
	nextNet <- third + 1
	f := &fleet{t: t, all: map[string]*Detector{}, stops: map[string]func(){}, off: map[netip.Addr]bool{}, cut: map[[2]netip.Addr]bool{}, saw: map[string][]api.NodeHealth{}}
	for i := range n {
		f.nodes = append(f.nodes, api.Node{Name: fmt.Sprintf("n%d", i+1), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, third, byte(i + 1)})}})
	}
	for _, node := range f.nodes {
		f.start(node)
	}
	for name, d := range f.all {
		f.within(10*time.Second, func() error {
			if known := len(d.All()); known < min(n-1, watchedBy) {
				return fmt.Errorf("%s knows %d others", name, known)
			}
			return nil
		})
	}
	return f
}

func (f *fleet) start(node api.Node) {
	f.t.Helper()
	self := node.Addresses[0]
	d, err := New(Options{
		Self: node.Name, Key: testKey, Listen: netip.AddrPortFrom(self, 19466),
		Probe: func(ctx context.Context, to netip.Addr, within time.Duration) Result {
			if f.passes(self, to) && f.passes(to, self) {
				return Reached
			}
			select {
			case <-ctx.Done():
				return Unsure
			case <-time.After(within):
				return Silent
			}
		},
		OnChange: func(other string, h api.NodeHealth) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.saw[node.Name+" "+other] = append(f.saw[node.Name+" "+other], h)
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	d.open = func() (conn, error) {
		socket, err := d.listenUDP()
		return &wire{conn: socket, fleet: f, self: self}, err
	}
	d.Set(f.nodes)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); err != nil {
			f.t.Error(err)
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	f.t.Cleanup(stop)
	f.all[node.Name], f.stops[node.Name] = d, stop
}

// wire loses what does not pass.
type wire struct {
	conn
	fleet *fleet
	self  netip.Addr
}

func (w *wire) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if !w.fleet.passes(w.self, to.Addr()) {
		return len(b), nil
	}
	return w.conn.WriteToUDPAddrPort(b, to)
}

func (f *fleet) passes(from, to netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.off[from] && !f.off[to] && !f.cut[[2]netip.Addr{from, to}]
}

func (f *fleet) address(name string) netip.Addr {
	for _, n := range f.nodes {
		if n.Name == name {
			return n.Addresses[0]
		}
	}
	f.t.Fatalf("no node %s", name)
	return netip.Addr{}
}

func (f *fleet) setCut(from, to string, cut bool) {
	a, b := f.address(from), f.address(to)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut[[2]netip.Addr{a, b}] = cut
}

func (f *fleet) powerOff(name string) {
	a := f.address(name)
	f.mu.Lock()
	f.off[a] = true
	f.mu.Unlock()
	f.stops[name]()
	delete(f.all, name)
}

func (f *fleet) sees(who, whom string, want api.NodeHealth) {
	f.t.Helper()
	f.within(10*time.Second, func() error {
		if got, known := f.all[who].Health(whom); !known || got != want {
			return fmt.Errorf("%s sees %s as %q, want %q", who, whom, got, want)
		}
		return nil
	})
}

func (f *fleet) within(d time.Duration, try func() error) {
	f.t.Helper()
	deadline := time.Now().Add(d)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// everSaw tells whether anybody ever saw the node so.
func (f *fleet) everSaw(whom string, h api.NodeHealth) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for pair, healths := range f.saw {
		for _, one := range healths {
			if one == h && pair[len(pair)-len(whom)-1:] == " "+whom {
				return pair
			}
		}
	}
	return ""
}

func TestANodeWithoutPowerIsDeadToAllAndComesBack(t *testing.T) {
	f := newFleet(t, 7)
	began := time.Now()
	f.powerOff("n3")
	for name := range f.all {
		f.sees(name, "n3", api.NodeDead)
	}
	t.Logf("all knew after %s", time.Since(began))
	f.mu.Lock()
	f.off = map[netip.Addr]bool{}
	f.mu.Unlock()
	f.start(f.nodes[2])
	for name := range f.all {
		if name != "n3" {
			f.sees(name, "n3", api.NodeAlive)
		}
	}
}

func TestANodeWhoseAgentAloneHasGoneStays(t *testing.T) {
	f := newFleet(t, 4)
	f.stops["n2"]()
	time.Sleep(2 * time.Second)
	for _, h := range []api.NodeHealth{api.NodeSuspect, api.NodeDead} {
		if pair := f.everSaw("n2", h); pair != "" {
			t.Errorf("%s: saw it %s, though its kernel answered", pair, h)
		}
	}
}

func TestANodeThatSomeReachIsNotTakenForDead(t *testing.T) {
	f := newFleet(t, 5)
	f.setCut("n1", "n2", true)
	f.setCut("n2", "n1", true)
	time.Sleep(2 * time.Second)
	for _, whom := range []string{"n1", "n2"} {
		for _, h := range []api.NodeHealth{api.NodeSuspect, api.NodeDead} {
			if pair := f.everSaw(whom, h); pair != "" {
				t.Errorf("%s: saw it %s, though three others reach it", pair, h)
			}
		}
	}
}

func TestThePartitionedSidesConvergeAfterwards(t *testing.T) {
	f := newFleet(t, 5)
	left, right := []string{"n1", "n2"}, []string{"n3", "n4", "n5"}
	part := func(cut bool) {
		for _, a := range left {
			for _, b := range right {
				f.setCut(a, b, cut)
				f.setCut(b, a, cut)
			}
		}
	}
	part(true)
	for _, a := range left {
		for _, b := range right {
			f.sees(a, b, api.NodeDead)
			f.sees(b, a, api.NodeDead)
		}
	}
	part(false)
	for a := range f.all {
		for b := range f.all {
			if a != b {
				f.sees(a, b, api.NodeAlive)
			}
		}
	}
}

func TestANodeThatIsCutOffJudgesNobody(t *testing.T) {
	f := newFleet(t, 4)
	for _, other := range []string{"n2", "n3", "n4"} {
		f.setCut("n1", other, true)
		f.setCut(other, "n1", true)
	}
	for _, other := range []string{"n2", "n3", "n4"} {
		f.sees(other, "n1", api.NodeDead)
	}
	time.Sleep(time.Second)
	for _, other := range []string{"n2", "n3", "n4"} {
		if h, _ := f.all["n1"].Health(other); h != api.NodeAlive {
			t.Errorf("the node that is cut off sees %s as %s", other, h)
		}
		f.setCut("n1", other, false)
		f.setCut(other, "n1", false)
	}
	for _, other := range []string{"n2", "n3", "n4"} {
		f.sees(other, "n1", api.NodeAlive)
	}
}

func TestOfTwoNodesTheOtherIsToBlame(t *testing.T) {
	f := newFleet(t, 2)
	f.powerOff("n2")
	f.sees("n1", "n2", api.NodeDead)
}

func TestALateNodeForgives(t *testing.T) {
	f := newFleet(t, 3)
	d := f.all["n1"]
	d.mu.Lock() // as if it had no processor for a second
	time.Sleep(time.Second)
	d.mu.Unlock()
	time.Sleep(time.Second)
	for _, whom := range []string{"n1", "n2", "n3"} {
		if pair := f.everSaw(whom, api.NodeSuspect); pair != "" {
			t.Errorf("%s was suspected", pair)
		}
	}
}

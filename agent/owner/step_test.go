package owner

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

var (
	low, mine, high = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	start           = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

const interval = DefaultInterval

func TestStep(t *testing.T) {
	c := Config{Priority: 100, Interval: interval, Preempt: true, Address: mine}
	meek := c
	meek.Preempt = false
	down := ownerDown(c, interval)
	idle := State{}
	standby := State{Role: Standby, Deadline: start.Add(down), OwnerInterval: interval}
	owner := State{Role: Owner, Deadline: start.Add(interval), OwnerInterval: interval, Owner: mine}
	ad := func(from netip.Addr, priority uint8) Advert { return Advert{from, priority, 300 * time.Millisecond} }
	follow := func(from netip.Addr, at time.Time) State {
		return State{Role: Standby, Deadline: at.Add(ownerDown(c, 300*time.Millisecond)), OwnerInterval: 300 * time.Millisecond, Owner: from}
	}
	owned := func(at time.Time) State {
		return State{Role: Owner, Deadline: at.Add(interval), OwnerInterval: interval, Owner: mine}
	}
	seen := standby
	seen.Owner = low
	hasty := standby
	hasty.Deadline = start.Add(50*time.Millisecond + skew(c, interval))
	say := Actions{Advertise: true, Priority: 100}
	insist := Actions{Advertise: true, Priority: 100, Announce: true}
	late := 3*interval + 1
	for _, r := range []struct {
		name   string
		config Config
		from   State
		event  Event
		at     time.Duration
		want   State
		do     Actions
	}{
		{"start", c, idle, Start{}, 0, standby, Actions{}},
		{"start again", c, owner, Start{}, 0, owner, Actions{}},
		{"idle hears", c, idle, ad(high, 200), 0, idle, Actions{}},
		{"idle ticks", c, idle, Tick{}, time.Hour, idle, Actions{}},
		{"idle stops", c, idle, Stop{}, 0, idle, Actions{}},
		{"standby waits", c, standby, Tick{}, down - 1, standby, Actions{}},
		{"standby takes over", c, standby, Tick{}, down, owned(start.Add(down)), say},
		{"standby stops", c, standby, Stop{}, 0, idle, Actions{}},
		{"standby follows a higher one", c, standby, ad(high, 200), 50 * time.Millisecond, follow(high, start.Add(50*time.Millisecond)), Actions{}},
		{"standby follows an equal one", c, standby, ad(low, 100), 0, follow(low, start), Actions{}},
		{"standby outranks a lower one", c, standby, ad(low, 99), 50 * time.Millisecond, seen, Actions{}},
		{"standby without preemption follows a lower one", meek, standby, ad(low, 99), 0, follow(low, start), Actions{}},
		{"standby hears a resignation", c, standby, ad(high, 0), 50 * time.Millisecond, hasty, Actions{}},
		{"owner waits", c, owner, Tick{}, interval - 1, owner, Actions{}},
		{"owner advertises", c, owner, Tick{}, interval, owned(start.Add(interval)), say},
		{"owner is a little late", c, owner, Tick{}, 3 * interval, owned(start.Add(3 * interval)), say},
		{"owner stood still", c, owner, Tick{}, late, State{Role: Standby, Deadline: start.Add(late + down), OwnerInterval: interval}, Actions{}},
		{"owner stood still and hears a lower one", c, owner, ad(low, 99), late, State{Role: Standby, Deadline: start.Add(late + down), OwnerInterval: interval, Owner: low}, Actions{}},
		{"owner without preemption stood still and hears a lower one", meek, owner, ad(low, 99), late, follow(low, start.Add(late)), Actions{}},
		{"owner stood still and stops", c, owner, Stop{}, late, idle, Actions{Advertise: true}},
		{"owner yields to a higher one", c, owner, ad(low, 101), 0, follow(low, start), Actions{}},
		{"owner yields to a higher one without preemption", meek, owner, ad(low, 101), 0, follow(low, start), Actions{}},
		{"owner yields to an equal one of a higher address", c, owner, ad(high, 100), 0, follow(high, start), Actions{}},
		{"owner stays against an equal one of a lower address", c, owner, ad(low, 100), 50 * time.Millisecond, owned(start.Add(50 * time.Millisecond)), insist},
		{"owner stays against a lower one", c, owner, ad(high, 99), 50 * time.Millisecond, owned(start.Add(50 * time.Millisecond)), insist},
		{"owner hears a resignation", c, owner, ad(high, 0), 50 * time.Millisecond, owned(start.Add(50 * time.Millisecond)), say},
		{"owner stops", c, owner, Stop{}, 0, idle, Actions{Advertise: true}},
	} {
		t.Run(r.name, func(t *testing.T) {
			got, do := Step(r.config, r.from, r.event, start.Add(r.at))
			if got != r.want || do != r.do {
				t.Errorf("got  %+v, %+v\nwant %+v, %+v", got, do, r.want, r.do)
			}
		})
	}
}

func TestTakeOverIsWithinASecond(t *testing.T) {
	for p := uint8(1); p <= MaxPriority; p++ {
		c := Config{Priority: p}
		if d := ownerDown(c, DefaultInterval); d < 3*DefaultInterval || d >= 4*DefaultInterval || skew(c, DefaultInterval) <= 0 {
			t.Errorf("priority %d takes over after %s", p, d)
		}
	}
}

// world is some nodes on a segment under a false clock.
type world struct {
	random *rand.Rand
	now    time.Time
	nodes  []*node
	flight []flight
	// lose tells whether a packet from one node to another is lost.
	lose func(from, to int) bool
}

type node struct {
	config  Config
	state   State
	ready   bool
	stopped bool // its process stands still
}

type flight struct {
	at     time.Time
	to     int
	advert Advert
}

const clockStep = 2 * time.Millisecond

func newWorld(seed uint64) *world {
	w := &world{random: rand.New(rand.NewPCG(seed, 1)), now: start}
	for i := range 2 + w.random.IntN(3) {
		w.nodes = append(w.nodes, &node{ready: true, config: Config{
			Priority: uint8(100 + w.random.IntN(3)), Interval: DefaultInterval, Preempt: seed%2 == 0,
			Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}),
		}})
	}
	return w
}

func (w *world) step(i int, e Event) {
	n := w.nodes[i]
	var do Actions
	if n.state, do = Step(n.config, n.state, e, w.now); !do.Advertise {
		return
	}
	for to := range w.nodes {
		if to != i && !w.lose(i, to) {
			w.flight = append(w.flight, flight{w.now.Add(time.Duration(w.random.IntN(3)) * time.Millisecond), to, Advert{n.config.Address, do.Priority, n.config.Interval}})
		}
	}
}

// run lets time pass. As the loop of an Elector does, a node hears first and
// ticks then; one that stands still does neither.
func (w *world) run(d time.Duration, each func()) {
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(clockStep) {
		waiting := w.flight
		w.flight = nil
		for _, f := range waiting {
			if f.at.After(w.now) || w.nodes[f.to].stopped {
				w.flight = append(w.flight, f)
			} else {
				w.step(f.to, f.advert)
			}
		}
		for i, n := range w.nodes {
			switch {
			case n.stopped:
			case n.ready:
				w.step(i, Start{})
				w.step(i, Tick{})
			default:
				w.step(i, Stop{})
			}
		}
		each()
	}
}

func (w *world) owners() (list []int) {
	for i, n := range w.nodes {
		if n.state.Role == Owner {
			list = append(list, i)
		}
	}
	return list
}

// best is the ready node that outranks all others, or -1.
func (w *world) best() int {
	best := -1
	for i, n := range w.nodes {
		if n.ready && (best < 0 || n.config.Priority >= w.nodes[best].config.Priority) {
			best = i // addresses rise with i
		}
	}
	return best
}

func TestOneOwnerAfterASecondOfStableNetworkWhateverWasBefore(t *testing.T) {
	for seed := range uint64(300) {
		w := newWorld(seed)
		loss := w.random.Float64()
		cut := map[[2]int]bool{}
		w.lose = func(from, to int) bool { return cut[[2]int{from, to}] || w.random.Float64() < loss }
		for range 8 { // one-way cuts, standstills and nodes that come and go
			i, j := w.random.IntN(len(w.nodes)), w.random.IntN(len(w.nodes))
			cut[[2]int{i, j}] = !cut[[2]int{i, j}]
			w.nodes[w.random.IntN(len(w.nodes))].stopped = w.random.IntN(4) == 0
			w.nodes[w.random.IntN(len(w.nodes))].ready = w.random.IntN(3) > 0
			w.run(time.Duration(w.random.IntN(900))*time.Millisecond, func() {})
		}
		w.lose = func(int, int) bool { return false }
		for _, n := range w.nodes {
			n.stopped = false
		}
		w.run(time.Second, func() {})
		first := w.owners()
		w.run(time.Second, func() {
			if got := w.owners(); fmt.Sprint(got) != fmt.Sprint(first) {
				t.Fatalf("seed %d: owners change from %v to %v", seed, first, got)
			}
		})
		want := 1
		if w.best() < 0 {
			want = 0
		}
		if len(first) != want {
			t.Errorf("seed %d: owners are %v of %d nodes, want %d", seed, first, len(w.nodes), want)
		}
		if best := w.best(); want == 1 && w.nodes[best].config.Preempt && w.nodes[first[0]].config.Priority != w.nodes[best].config.Priority {
			t.Errorf("seed %d: owner is node %d, want %d", seed, first[0], best)
		}
	}
}

func TestWithoutPreemptionTheOwnerStays(t *testing.T) {
	w := newWorld(1)
	w.lose = func(int, int) bool { return false }
	w.nodes = w.nodes[:2]
	w.nodes[0].config.Priority, w.nodes[1].config.Priority, w.nodes[1].ready = 100, 200, false
	w.run(time.Second, func() {})
	w.nodes[1].ready = true
	w.run(2*time.Second, func() {})
	if got := w.owners(); len(got) != 1 || got[0] != 0 {
		t.Errorf("owners %v, want the first", got)
	}
}

func TestResignationIsFollowedWithinTheSkew(t *testing.T) {
	w := newWorld(2)
	w.lose = func(int, int) bool { return false }
	w.nodes = w.nodes[:2]
	w.nodes[0].config.Priority, w.nodes[1].config.Priority = 254, 253
	w.run(time.Second, func() {})
	w.nodes[0].ready = false
	stop := w.now
	var took time.Duration
	w.run(time.Second, func() {
		if o := w.owners(); took == 0 && len(o) == 1 && o[0] == 1 {
			took = w.now.Sub(stop)
		}
	})
	if limit := skew(w.nodes[1].config, DefaultInterval) + 3*clockStep; took == 0 || took > limit {
		t.Errorf("took over after %s, want within %s", took, limit)
	}
}

func TestAtMostOneOwnerAtATimeWithoutLoss(t *testing.T) {
	w := newWorld(4)
	w.lose = func(int, int) bool { return false }
	w.run(2*time.Second, func() {})
	both := time.Duration(0)
	for range 20 { // nodes come and go in peace
		n := w.nodes[w.random.IntN(len(w.nodes))]
		n.ready = !n.ready
		w.run(time.Second, func() {
			if len(w.owners()) > 1 {
				both += clockStep
			} else {
				both = 0
			}
			if both > 3*clockStep { // the time of flight of an advertisement
				t.Fatalf("owners %v for %s", w.owners(), both)
			}
		})
	}
}

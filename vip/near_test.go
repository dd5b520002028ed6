package vip

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

func TestLoadsSpillOverByWhatIsUp(t *testing.T) {
	tests := []struct {
		up, all [levels]int
		want    [levels]int
	}{
		{[levels]int{3, 0, 0}, [levels]int{3, 0, 0}, [levels]int{100, 0, 0}},
		{[levels]int{3, 0, 5}, [levels]int{3, 0, 5}, [levels]int{100, 0, 0}},
		{[levels]int{5, 7, 5}, [levels]int{7, 7, 5}, [levels]int{100, 0, 0}},
		{[levels]int{1, 0, 3}, [levels]int{2, 0, 3}, [levels]int{70, 0, 30}},
		{[levels]int{1, 1, 3}, [levels]int{2, 10, 3}, [levels]int{70, 14, 16}},
		{[levels]int{0, 0, 3}, [levels]int{2, 0, 3}, [levels]int{0, 0, 100}},
		{[levels]int{1, 0, 1}, [levels]int{10, 0, 10}, [levels]int{50, 0, 50}},
		{[levels]int{1, 1, 1}, [levels]int{10, 10, 10}, [levels]int{33, 33, 34}},
		{[levels]int{1, 0, 0}, [levels]int{1000, 0, 0}, [levels]int{100, 0, 0}},
		{[levels]int{0, 0, 0}, [levels]int{5, 5, 5}, [levels]int{0, 0, 0}},
		{[levels]int{0, 0, 0}, [levels]int{0, 0, 0}, [levels]int{0, 0, 0}},
	}
	for _, test := range tests {
		var all []server
		for near := range levels {
			for i := range test.all[near] {
				s := server{weight: 1, near: near}
				if i < test.up[near] {
					s.level = full
				}
				all = append(all, s)
			}
		}
		if got := loads(all); got != test.want {
			t.Errorf("up %v of %v: got %v, want %v", test.up, test.all, got, test.want)
		}
	}
}

// prefers makes a service with two backends on this node, two more in its zone
// and four elsewhere, of which some are down.
func prefers(t *testing.T, p api.Prefer, balance api.Balance, down ...int) (*api.Snapshot, Options) {
	web := service(t, "web", []string{"web:80"})
	web.Prefer, web.Balance = p, balance
	for i, node := range []string{"a1", "a1", "a2", "a2", "b1", "b1", "lost", ""} {
		web.Backends = append(web.Backends, api.Backend{Address: netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:80", i)), Node: node})
	}
	s := snapshot(t, web)
	s.Node.Zone = "east"
	s.Nodes = []api.Node{s.Node, {Name: "a2", Zone: "east"}, {Name: "b1", Zone: "west", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.7")}}}
	return s, Options{State: func(_ string, _ api.Protocol, b netip.AddrPort) (api.BackendState, string) {
		if slices.Contains(down, int(b.Addr().As4()[3])) {
			return api.Down, "no answer"
		}
		return api.Up, ""
	}}
}

// percents are the shares of the backends of prefers.
func percents(s *dataplane.Service) []float64 {
	p := make([]float64, len(s.Backends))
	for address, share := range sharesOf(s) {
		p[address.Addr().As4()[3]] = share
	}
	return p
}

func TestNearBackendsArePreferred(t *testing.T) {
	tests := []struct {
		prefer api.Prefer
		down   []int
		want   []float64
	}{
		{"", nil, []float64{12.5, 12.5, 12.5, 12.5, 12.5, 12.5, 12.5, 12.5}},
		{api.PreferNode, nil, []float64{50, 50, 0, 0, 0, 0, 0, 0}},
		{api.PreferZone, nil, []float64{25, 25, 25, 25, 0, 0, 0, 0}},
		{api.PreferNode, []int{0}, []float64{0, 70, 15, 15, 0, 0, 0, 0}},
		{api.PreferNode, []int{0, 1}, []float64{0, 0, 50, 50, 0, 0, 0, 0}},
		{api.PreferNode, []int{0, 2}, []float64{0, 70, 0, 30, 0, 0, 0, 0}},
		{api.PreferZone, []int{0, 1, 2, 3}, []float64{0, 0, 0, 0, 25, 25, 25, 25}},
		{api.PreferZone, []int{0, 1}, []float64{0, 0, 35, 35, 7.5, 7.5, 7.5, 7.5}},
		{api.PreferNode, []int{0, 1, 2, 3, 4, 5, 6}, []float64{0, 0, 0, 0, 0, 0, 0, 100}},
	}
	for _, test := range tests {
		for _, balance := range []api.Balance{api.Random, api.Maglev, api.P2C} {
			s, o := prefers(t, test.prefer, balance, test.down...)
			got := percents(compile(t, s, o).Services[0])
			for i := range got {
				tolerance := 0.01
				if balance == api.Maglev {
					tolerance = 4 // by hash, and 256 slots
				}
				if math.Abs(got[i]-test.want[i]) > tolerance {
					t.Errorf("%s, prefer %s, down %v: got %.1f, want %.1f", balance, test.prefer, test.down, got, test.want)
					break
				}
			}
		}
	}
}

func TestMaglevMovesNobodyBetweenNearBackendsWhenAFarOneGoes(t *testing.T) {
	s, o := prefers(t, api.PreferNode, api.Maglev)
	before := compile(t, s, o).Services[0]
	_, o.State = s, nil
	s2, o2 := prefers(t, api.PreferNode, api.Maglev, 5, 6)
	if after := compile(t, s2, o2).Services[0]; !slices.Equal(before.Slots, after.Slots) {
		t.Error("slots of near backends moved")
	}
	// A near one that goes moves its own; of the others those that are relieved.
	s3, o3 := prefers(t, api.PreferNode, api.Maglev, 0)
	after := compile(t, s3, o3).Services[0]
	for slot, b := range before.Slots {
		if b == 1 && after.Slots[slot] == 0 {
			t.Fatalf("slot %d is with a backend that is down", slot)
		}
	}
}

func TestSinksWithoutSlotsGetTheSharesAsWeights(t *testing.T) {
	weights := func(s *dataplane.Service) (w []int) {
		for _, b := range s.Backends {
			w = append(w, b.Weight)
		}
		return w
	}
	for _, test := range []struct {
		down []int
		want []int
	}{
		{nil, []int{1, 1, 0, 0, 0, 0, 0, 0}},
		{[]int{0}, []int{1, 1000, 214, 214, 0, 0, 0, 0}},
	} {
		s, o := prefers(t, api.PreferNode, api.Random, test.down...)
		if got := weights(compile(t, s, o).Services[0]); !slices.Equal(got, test.want) {
			t.Errorf("down %v: got weights %v, want %v", test.down, got, test.want)
		}
	}
}

func TestPartsAreExactOrCloseToIt(t *testing.T) {
	all := []server{{weight: 997, level: 7, near: 0}, {weight: 991, level: full, near: 0}, {weight: 983, level: full, near: 1}, {weight: 977, level: 9, near: 2}, {weight: 3, level: 0}}
	load := [levels]int{70, 17, 13}
	p := parts(all, load)
	total := 0.0
	for _, n := range p {
		total += float64(n)
	}
	sum := float64(997*7 + 9910)
	for i, want := range []float64{.70 * 997 * 7 / sum, .70 * 9910 / sum, .17, .13, 0} {
		if got := float64(p[i]) / total; math.Abs(got-want) > 1e-5 {
			t.Errorf("part %d is %.6f, want %.6f", i, got, want)
		}
	}
}

// starting is a service of three backends, whose last came up after a start at
// 1000 s.
func starting(t *testing.T, balance api.Balance, since ...time.Time) (*api.Snapshot, Options) {
	web := service(t, "web", []string{"web:80"}, "10.0.0.0:80", "10.0.0.1:80", "10.0.0.2:80")
	web.SlowStart, web.Balance = api.Duration(90*time.Second), balance
	return snapshot(t, web), Options{UpSince: func(_ string, _ api.Protocol, b netip.AddrPort) time.Time { return since[b.Addr().As4()[3]] }}
}

func TestABackendThatComesUpStartsSlowly(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, test := range []struct {
		after time.Duration
		want  []int // slots of a table by chance
		next  time.Duration
	}{
		{0, []int{10, 10, 1}, 10 * time.Second},
		{-time.Second, []int{10, 10, 1}, 10 * time.Second}, // a clock that was set back
		{9 * time.Second, []int{10, 10, 1}, 10 * time.Second},
		{10 * time.Second, []int{5, 5, 1}, 20 * time.Second},
		{45 * time.Second, []int{2, 2, 1}, 50 * time.Second},
		{89 * time.Second, []int{10, 10, 9}, 90 * time.Second},
		{90 * time.Second, []int{1, 1, 1}, 0},
		{time.Hour, []int{1, 1, 1}, 0},
	} {
		s, o := starting(t, "", time.Time{}, time.Time{}, start)
		o.Now = start.Add(test.after)
		r := new(Compiler).Compile(s, o, Changed{})
		if got := tally(r.Table.Services[0].Slots, 3); !slices.Equal(got, test.want) {
			t.Errorf("after %s: got slots %v, want %v", test.after, got, test.want)
		}
		want := time.Time{}
		if test.next > 0 {
			want = start.Add(test.next)
		}
		if !r.Next.Equal(want) {
			t.Errorf("after %s: next at %s, want %s", test.after, r.Next, want)
		}
	}
}

func TestNobodyStartsSlowlyWhenAllAreNew(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, balance := range []api.Balance{api.Random, api.Maglev} {
		s, o := starting(t, balance, start, start, start)
		o.Now = start.Add(30 * time.Second)
		all := compile(t, s, o).Services[0]
		s, o = starting(t, balance, time.Time{}, time.Time{}, time.Time{})
		if want := compile(t, s, o).Services[0]; !sameTable(all, want) {
			t.Errorf("%s: got %v, want %v", balance, tally(all.Slots, 3), tally(want.Slots, 3))
		}
	}
	s, o := starting(t, "", start, start.Add(-40*time.Second), start)
	o.Now = start // one is at half of its share, the others at a tenth
	if got := tally(compile(t, s, o).Services[0].Slots, 3); !slices.Equal(got, []int{1, 5, 1}) {
		t.Errorf("got %v", got)
	}
}

func TestTheCompilerFollowsASlowStartByItself(t *testing.T) {
	start := time.Unix(1000, 0)
	s, o := starting(t, "", time.Time{}, time.Time{}, start)
	var c Compiler
	o.Now = start
	r := c.Compile(s, o, Changed{})
	steps := 0
	for ; !r.Next.IsZero(); steps++ {
		before := r.Table.Services[0]
		o.Now = r.Next.Add(-time.Millisecond)
		if early := c.Compile(s, o, Changed{}); early.Table.Services[0] != before {
			t.Fatal("the table changed before its time")
		}
		o.Now = r.Next
		if r = c.Compile(s, o, Changed{}); r.Table.Services[0] == before {
			t.Fatal("the table did not change in time")
		}
	}
	if steps != 9 {
		t.Errorf("it took %d steps, want 9", steps)
	}
}

func TestFailOpenUsesWhatOnlyFailsItsChecks(t *testing.T) {
	web := service(t, "web", []string{"web:80"}, "10.0.0.0:80", "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
	web.Backends[1].State, web.Backends[2].State, web.Backends[3].State = api.Down, api.Draining, api.Up
	states := map[int]api.BackendState{}
	o := Options{State: func(_ string, _ api.Protocol, b netip.AddrPort) (api.BackendState, string) {
		if s := states[int(b.Addr().As4()[3])]; s != "" {
			return s, "no answer"
		}
		return api.Up, ""
	}}
	for _, test := range []struct {
		open   bool
		states map[int]api.BackendState
		want   []api.BackendState
	}{
		{true, nil, []api.BackendState{api.Up, api.Down, api.Draining, api.Up}},
		{true, map[int]api.BackendState{0: api.Down}, []api.BackendState{api.Down, api.Down, api.Draining, api.Up}},
		{true, map[int]api.BackendState{0: api.Down, 3: api.Down}, []api.BackendState{api.Up, api.Down, api.Draining, api.Up}},
		{false, map[int]api.BackendState{0: api.Down, 3: api.Down}, []api.BackendState{api.Down, api.Down, api.Draining, api.Down}},
		{true, map[int]api.BackendState{0: api.Down, 2: api.Down, 3: api.Draining}, []api.BackendState{api.Up, api.Down, api.Down, api.Up}},
		{true, map[int]api.BackendState{0: api.Down, 3: api.Down, 7: api.Down}, []api.BackendState{api.Up, api.Down, api.Draining, api.Up}},
	} {
		web.FailOpen, states = test.open, test.states
		s := snapshot(t, web)
		d := compile(t, s, o).Services[0]
		var got []api.BackendState
		for _, b := range d.Backends {
			got = append(got, b.State)
		}
		if !slices.Equal(got, test.want) || (len(d.Slots) > 0) != slices.Contains(got, api.Up) {
			t.Errorf("fail_open %v, %v: got %v with %d slots, want %v", test.open, test.states, got, len(d.Slots), test.want)
		}
	}
}

func TestSettingsGoThrough(t *testing.T) {
	web := service(t, "web", []string{"web:80"}, "10.0.0.1:80")
	web.Affinity, web.AffinityBy, web.MaxConnections, web.Outlier = api.Duration(time.Minute), api.ByNamespace, 7, &api.Outlier{}
	d := compile(t, snapshot(t, web), Options{}).Services[0]
	if d.Affinity != time.Minute || d.AffinityBy != api.ByNamespace || d.MaxConnections != 7 || !d.Watch {
		t.Errorf("got %+v", d)
	}
	for balance, want := range map[api.Balance]api.Balance{"": api.Random, api.Maglev: api.Maglev, api.P2C: api.P2C, api.LeastConn: api.P2C} {
		web.Balance = balance
		if got := compile(t, snapshot(t, web), Options{}).Services[0].Balance; got != want {
			t.Errorf("%q: got %s, want %s", balance, got, want)
		}
	}
}

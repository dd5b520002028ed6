package program

import (
	"math/rand/v2"
	"testing"
)

func TestIDsComeBackOnlyAfterTheirRelease(t *testing.T) {
	a := newIDs(6, map[uint32]bool{2: true, 4: true})
	got := map[uint32]bool{}
	for range 3 {
		id, ok := a.take()
		if !ok || id == 0 || id == 2 || id == 4 || got[id] {
			t.Fatalf("took %d, %v after %v", id, ok, got)
		}
		got[id] = true
	}
	if id, ok := a.take(); ok {
		t.Errorf("took %d from a full table", id)
	}
	a.retire(2)
	if id, ok := a.take(); ok {
		t.Errorf("took %d from quarantine", id)
	}
	a.release()
	if id, ok := a.take(); !ok || id != 2 {
		t.Errorf("after the release: got %d, %v, want 2", id, ok)
	}
}

func TestRunsNeverOverlapAndNothingIsLost(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const size = 512
	a := newRuns(size, []run{{100, 20}, {0, 7}})
	live := []run{{100, 20}, {0, 7}}
	for range 5000 {
		if len(live) > 0 && random.IntN(2) == 0 {
			i := random.IntN(len(live))
			a.retire(live[i])
			live = append(live[:i], live[i+1:]...)
			if random.IntN(3) == 0 {
				a.release()
			}
			continue
		}
		r, ok := a.take(uint32(random.IntN(60)))
		if !ok || r.count == 0 {
			continue
		}
		for _, other := range append(live, a.quarantine...) {
			if r.first < other.first+other.count && other.first < r.first+r.count {
				t.Fatalf("%v overlaps %v", r, other)
			}
		}
		live = append(live, r)
	}
	for _, r := range live {
		a.retire(r)
	}
	a.release()
	if len(a.free) != 1 || a.free[0] != (run{0, size}) {
		t.Errorf("free in the end: %v, want all", a.free)
	}
}

func TestClaimRefusesRunsOfNoSaneWriter(t *testing.T) {
	taken := make([]bool, 10)
	for _, c := range []struct {
		run  run
		want bool
	}{{run{0, 4}, true}, {run{3, 2}, false}, {run{4, 6}, true}, {run{9, 2}, false}, {run{^uint32(0), 2}, false}, {run{0, 0}, false}} {
		if got := claim(taken, c.run); got != c.want {
			t.Errorf("%v: got %v, want %v", c.run, got, c.want)
		}
	}
}

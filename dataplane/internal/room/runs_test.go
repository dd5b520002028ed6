package room

import (
	"math/rand/v2"
	"testing"
)

func TestRunsNeverOverlapAndComeBackWhole(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	size := uint32(256)
	a := NewRuns(size, []Run{{100, 20}, {0, 7}})
	held := []Run{{100, 20}, {0, 7}}
	for i := range 5000 {
		if i%1000 == 999 {
			size += 64
			a.Grow(size)
		}
		if len(held) > 0 && random.IntN(2) == 0 {
			n := random.IntN(len(held))
			a.Retire(held[n])
			held = append(held[:n], held[n+1:]...)
			if random.IntN(3) == 0 {
				a.release() // spares the test the grace periods
			}
			continue
		}
		r, ok := a.take(random.Uint32N(60))
		if !ok || r.Count == 0 {
			continue
		}
		for _, other := range append(held, a.resting...) {
			if r.First < other.First+other.Count && other.First < r.First+r.Count {
				t.Fatalf("run %v overlaps %v", r, other)
			}
		}
		held = append(held, r)
	}
	for _, r := range held {
		a.Retire(r)
	}
	a.release()
	if r, ok := a.Take(size); !ok || r != (Run{0, size}) {
		t.Errorf("the whole: got %v, %v", r, ok)
	}
}

func TestARunThatRestsComesBackWhenRoomIsNeeded(t *testing.T) {
	a := NewRuns(8, nil)
	all, ok := a.Take(8)
	if !ok {
		t.Fatal("no run in an empty table")
	}
	if r, ok := a.Take(1); ok {
		t.Errorf("took %v from a full table", r)
	}
	if r, ok := a.Take(0); !ok || r != (Run{}) {
		t.Errorf("a run of nothing: got %v, %v", r, ok)
	}
	a.Retire(all)
	if r, ok := a.take(1); ok {
		t.Errorf("took %v, which rests", r)
	}
	if r, ok := a.Take(8); !ok || r != all {
		t.Errorf("after a grace period: got %v, %v, want %v", r, ok, all)
	}
}

func TestRunsGrowAtTheirEnd(t *testing.T) {
	a := NewRuns(8, []Run{{0, 8}})
	a.Grow(4)
	if a.Size() != 8 {
		t.Errorf("size: got %d after growing to less, want 8", a.Size())
	}
	a.Grow(12)
	a.Grow(16)
	if r, ok := a.Take(8); !ok || r != (Run{8, 8}) || a.Size() != 16 {
		t.Errorf("got %v, %v of %d slots, want the 8 new ones of 16", r, ok, a.Size())
	}
}

func TestARunFitsOneWord(t *testing.T) {
	if r := (Run{First: 7, Count: 1 << 31}); RunOf(r.Word()) != r {
		t.Errorf("got %v, want %v", RunOf(r.Word()), r)
	}
}

func TestClaimRefusesRunsOfNoSaneWriter(t *testing.T) {
	claims := NewClaims(10)
	for _, c := range []struct {
		run  Run
		want bool
	}{{Run{0, 4}, true}, {Run{3, 2}, false}, {Run{4, 5}, true}, {Run{9, 2}, false}, {Run{^uint32(0), 2}, false}, {Run{0, 0}, false}} {
		if got := claims.Claim(c.run); got != c.want {
			t.Errorf("%v: got %v, want %v", c.run, got, c.want)
		}
	}
	if r, ok := claims.Runs().Take(1); !ok || r != (Run{9, 1}) {
		t.Errorf("what nobody has: got %v, %v, want slot 9", r, ok)
	}
}

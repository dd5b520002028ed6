package room

import (
	"math/rand/v2"
	"testing"
)

func TestIDsAreNeverGivenTwice(t *testing.T) {
	a := NewIDs(8, map[uint32]bool{3: true, 5: true})
	held := map[uint32]bool{3: true, 5: true}
	for range 5 {
		id, ok := a.Take()
		if !ok || id == 0 || id >= 8 || held[id] {
			t.Fatalf("Take: got %d, %v with %v held", id, ok, held)
		}
		held[id] = true
	}
	if id, ok := a.Take(); ok {
		t.Fatalf("Take gave %d, but all are held", id)
	}
	a.Retire(5)
	if id, ok := a.Take(); !ok || id != 5 {
		t.Fatalf("after a grace period Take gave %d, %v, want 5", id, ok)
	}
}

func TestRunsNeverOverlapAndComeBackWhole(t *testing.T) {
	const size = 256
	random := rand.New(rand.NewPCG(1, 2))
	a := NewRuns(size, []Run{{First: 10, Count: 6}})
	a.Retire(Run{First: 10, Count: 6})
	var held []Run
	for range 400 {
		if len(held) > 0 && random.IntN(2) == 0 {
			i := random.IntN(len(held))
			a.Retire(held[i])
			held = append(held[:i], held[i+1:]...)
			continue
		}
		a.release() // spares the test the grace periods
		r, ok := a.Take(1 + random.Uint32N(40))
		if !ok {
			continue
		}
		for _, h := range held {
			if r.First < h.First+h.Count && h.First < r.First+r.Count {
				t.Fatalf("run %v overlaps %v", r, h)
			}
		}
		held = append(held, r)
	}
	for _, r := range held {
		a.Retire(r)
	}
	a.release()
	if r, ok := a.Take(size); !ok || r != (Run{0, size}) {
		t.Fatalf("the whole: got %v, %v", r, ok)
	}
}

func TestARunFitsOneWord(t *testing.T) {
	if r := (Run{First: 7, Count: 1 << 31}); RunOf(r.Word()) != r {
		t.Fatalf("got %v", RunOf(r.Word()))
	}
}

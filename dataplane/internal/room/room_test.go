package room

import "testing"

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
		t.Errorf("after a grace period Take gave %d, %v, want 5", id, ok)
	}
}

func TestARetiredIDRestsWhileOthersAreThere(t *testing.T) {
	a := NewIDs(4, map[uint32]bool{1: true})
	a.Retire(1)
	for range 2 {
		if id, ok := a.Take(); !ok || id == 1 {
			t.Errorf("got %d, %v, want another id than 1", id, ok)
		}
	}
	a.Return(3) // no program has seen it
	if id, ok := a.Take(); !ok || id != 3 {
		t.Errorf("got %d, %v, want 3 at once", id, ok)
	}
	if id, ok := a.Take(); !ok || id != 1 {
		t.Errorf("got %d, %v, want 1, after a grace period", id, ok)
	}
}

func TestIDsGrow(t *testing.T) {
	a := NewIDs(2, map[uint32]bool{1: true})
	if id, ok := a.Take(); ok {
		t.Errorf("took %d from a full table", id)
	}
	a.Grow(1)
	a.Grow(3)
	if id, ok := a.Take(); !ok || id != 2 || a.Limit() != 3 {
		t.Errorf("got %d, %v below %d, want 2 below 3", id, ok, a.Limit())
	}
}

package health

import "testing"

func TestAServiceHasAsManyInFlightAsAreFree(t *testing.T) {
	p := newPool(9)
	for _, name := range []string{"a", "b", "c"} {
		for _, k := range many(name, 20) {
			p.add(&check{target: k})
		}
		for p.take() != nil {
		}
	}
	// The first took half, the others of what was left, and one is always free.
	for name, want := range map[string]int{"a": 5, "b": 2, "c": 1} {
		if got := p.shares[owner{name, "tcp"}].inFlight; got != want {
			t.Errorf("%s has %d in flight, want %d", name, got, want)
		}
	}
	// As it gives places back, the others catch up.
	first := &check{target: many("a", 1)[0]}
	var started []string
	for range 3 {
		p.release(first)
		for k := p.take(); k != nil; k = p.take() {
			started = append(started, k.target.Service)
		}
	}
	if len(started) == 0 || started[0] != "c" || p.free < 1 {
		t.Errorf("then %v started, and %d places are free", started, p.free)
	}
	if a, c := p.shares[owner{"a", "tcp"}].inFlight, p.shares[owner{"c", "tcp"}].inFlight; a > 3 || c < 2 {
		t.Errorf("then the first has %d in flight and the last %d, want about as many", a, c)
	}
}

func TestAPoolForgetsWhatIsIdle(t *testing.T) {
	p := newPool(2)
	k := &check{target: many("a", 1)[0]}
	p.add(k)
	if got := p.take(); got != k {
		t.Fatalf("got %v", got)
	}
	p.release(k)
	if len(p.shares) != 0 || len(p.waiting) != 0 || p.free != 2 {
		t.Errorf("left over: %+v", p)
	}
}

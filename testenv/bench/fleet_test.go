package bench

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/testenv/bench/load"
)

// TestFleetNeverBreaksAConnectionByItself holds the soak's table to what the
// soak takes for granted: whatever breaks is the balancer's doing.
func TestFleetNeverBreaksAConnectionByItself(t *testing.T) {
	f := newFleet(rand.New(rand.NewPCG(1, 2)))
	kinds := map[string]bool{}
	for range 20000 {
		before := f.table()
		c := f.change()
		s, old := c.Service, before.Services[c.Index]
		if f.services[c.Index] != s || s == old {
			t.Fatal("a change must put a new service into the table")
		}
		up := 0
		was := map[string]api.BackendState{}
		for _, b := range old.Backends {
			was[b.Address.String()] = b.State
		}
		for _, b := range s.Backends {
			if b.State == api.Up {
				up++
			}
			if load.ServiceOf(b.Address.Addr().As4()) != byte(c.Index) {
				t.Fatalf("service %d has the backend %s of another", c.Index, b.Address)
			}
			if state, known := was[b.Address.String()]; !known {
				kinds["added"] = true
			} else if state != b.State {
				kinds[string(b.State)] = true
			}
			delete(was, b.Address.String())
		}
		for at, state := range was {
			kinds["removed"] = true
			if state != api.Draining || c.Index < soakServices/2 {
				t.Fatalf("service %d lost the backend %s, which was %s", c.Index, at, state)
			}
		}
		if up < leastUp {
			t.Fatalf("service %d has %d backends up, want at least %d", c.Index, up, leastUp)
		}
		for _, i := range s.Slots {
			if s.Backends[i].State != api.Up {
				t.Fatalf("a slot of service %d has a backend that is %s", c.Index, s.Backends[i].State)
			}
		}
		// As if time had passed.
		for at := range f.drained[c.Index] {
			f.drained[c.Index][at] = time.Now().Add(-2 * lull)
		}
	}
	for _, kind := range []string{"added", "removed", string(api.Up), string(api.Draining)} {
		if !kinds[kind] {
			t.Errorf("in 20000 changes no backend was %s", kind)
		}
	}
	services := len(f.services)
	f.grow()
	if got := f.table().Services; len(got) != services+1 || got[services].Name <= got[services-1].Name {
		t.Error("grow must add a service behind the others")
	}
}

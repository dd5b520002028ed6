package outlier

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// TestWhateverHappensSomebodyServes runs fleets of random fate and looks at what
// must hold after every interval.
func TestWhateverHappensSomebodyServes(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := 1 + r.IntN(12)
		f := newFleet(t, n, api.Outlier{Failures: 1 + r.IntN(6), MaxEjected: 1 + r.IntN(100), Ejection: api.Duration(time.Duration(1+r.IntN(20)) * time.Second)})
		allowed := max(1, n*f.options.MaxEjected/100)
		before := map[int]string{}
		for range 600 {
			for i := range f.counters {
				c := &f.counters[i]
				switch r.IntN(20) {
				case 0:
					c.Up = !c.Up
				case 1:
					c.Connections, c.Failures = 0, 0
				default:
					connections := r.Uint64N(5)
					f.meet(i, connections, r.Uint64N(connections+1))
				}
			}
			changed := f.observe()
			ejected, up, serving, differ := 0, 0, 0, false
			for i, c := range f.counters {
				reason := f.reason(i)
				differ = differ || (reason == "") != (before[i] == "")
				before[i] = reason
				if reason != "" {
					ejected++
				}
				if c.Up {
					up++
					if reason == "" {
						serving++
					}
				}
			}
			if ejected > allowed || up > 0 && serving == 0 || differ && !changed || ejected != f.detector.ejected || (ejected == 0) != f.detector.Next().IsZero() {
				t.Fatalf("seed %d at %s: %d of %d ejected (%d allowed, %d counted), %d up, %d serving, changed %v, seen %v, next %s",
					seed, f.now, ejected, n, allowed, f.detector.ejected, up, serving, changed, differ, f.detector.Next())
			}
		}
	}
}

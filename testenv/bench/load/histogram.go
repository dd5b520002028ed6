package load

import "time"

// Histogram of durations: in steps of 100 ns to 2 ms, of 100 µs to 2 s above.
type Histogram struct {
	Fine, Coarse []uint32
}

const (
	fineStep, coarseStep   = 100 * time.Nanosecond, 100 * time.Microsecond
	fineSteps, coarseSteps = 20000, 20000
)

// Record a duration.
func (h *Histogram) Record(d time.Duration) {
	if h.Fine == nil {
		h.Fine, h.Coarse = make([]uint32, fineSteps), make([]uint32, coarseSteps)
	}
	if i := d / fineStep; i < fineSteps {
		h.Fine[max(i, 0)]++
	} else {
		h.Coarse[min(d/coarseStep, coarseSteps-1)]++
	}
}

// Add puts the other's durations in.
func (h *Histogram) Add(o Histogram) {
	if o.Fine == nil {
		return
	}
	if h.Fine == nil {
		h.Fine, h.Coarse = make([]uint32, fineSteps), make([]uint32, coarseSteps)
	}
	for i, n := range o.Fine {
		h.Fine[i] += n
	}
	for i, n := range o.Coarse {
		h.Coarse[i] += n
	}
}

// Quantile is the duration below which the share q (0 to 1) of all lie, taken
// in proportion within its step; 0 without any.
func (h Histogram) Quantile(q float64) time.Duration {
	total := 0.0
	for _, list := range [][]uint32{h.Fine, h.Coarse} {
		for _, n := range list {
			total += float64(n)
		}
	}
	left := q * total
	for _, part := range []struct {
		counts []uint32
		step   time.Duration
	}{{h.Fine, fineStep}, {h.Coarse, coarseStep}} {
		for i, n := range part.counts {
			if n > 0 && float64(n) >= left {
				return time.Duration((float64(i) + left/float64(n)) * float64(part.step))
			}
			left -= float64(n)
		}
	}
	return 0
}

package load

import (
	"testing"
	"time"
)

func TestQuantilesOfAHistogram(t *testing.T) {
	var h Histogram
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("the median of nothing: got %s, want 0", got)
	}
	for i := range 1000 {
		h.Record(time.Duration(i) * time.Microsecond)
	}
	var other Histogram
	other.Record(time.Hour)
	other.Record(-time.Second)
	h.Add(other)
	h.Add(Histogram{})
	for _, c := range []struct {
		q         float64
		want, off time.Duration
	}{
		{0.5, 500 * time.Microsecond, time.Microsecond},
		{0.99, 991 * time.Microsecond, 2 * time.Microsecond},
		{0, 0, fineStep},
		{1, 2 * time.Second, coarseStep},
	} {
		if got := h.Quantile(c.q); got < c.want-c.off || got > c.want+c.off {
			t.Errorf("quantile %g: got %s, want %s", c.q, got, c.want)
		}
	}
}

func TestResultsAddUp(t *testing.T) {
	var sum Result
	for range 2 {
		r := Result{Count: 10, Bytes: 90, Elapsed: time.Second, Wrong: 1, Failures: map[string]int{"connect": 2}}
		r.Latency.Record(time.Microsecond)
		sum.Add(r)
	}
	if sum.Count != 20 || sum.Wrong != 2 || sum.Failed() != 4 || sum.Elapsed != 2*time.Second {
		t.Errorf("got %+v", sum)
	}
	if got, want := sum.Rate(), 100.0; got != want {
		t.Errorf("rate: got %g, want %g", got, want)
	}
	if got := (Result{Count: 1}).Rate(); got != 0 {
		t.Errorf("rate without time: got %g, want 0", got)
	}
}

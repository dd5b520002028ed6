package outlier

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
)

const pace = 500 * time.Millisecond

var shop = Service{"web.shop", api.TCP}

// fleet drives a Detector: backends with counters, and a clock.
type fleet struct {
	t        *testing.T
	now      time.Time
	options  api.Outlier
	detector *Detector
	counters []Counter
}

func newFleet(t *testing.T, backends int, options api.Outlier) *fleet {
	f := &fleet{
		t: t, now: time.Date(2030, 1, 1, 12, 0, 0, 0, time.Local), options: options,
		detector: New(Options{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}),
	}
	for i := range backends {
		f.counters = append(f.counters, Counter{
			Backend: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 80, 0, byte(i)}), 80), Connections: 1000, Failures: 900, Up: true,
		})
	}
	f.observe()
	return f
}

// observe ends an interval.
func (f *fleet) observe() bool {
	f.now = f.now.Add(pace)
	return f.detector.Observe(f.now, shop, f.options, f.counters)
}

// meet adds connections and failures to a backend.
func (f *fleet) meet(i int, connections, failures uint64) {
	f.counters[i].Connections += connections
	f.counters[i].Failures += failures
}

// idle lets time pass without a connection.
func (f *fleet) idle(d time.Duration) {
	for end := f.now.Add(d); f.now.Before(end); {
		f.observe()
	}
}

func (f *fleet) reason(i int) string {
	_, reason := f.detector.State(shop.Key, shop.Protocol, f.counters[i].Backend)
	return reason
}

func (f *fleet) want(i int, want api.BackendState) {
	f.t.Helper()
	if got, reason := f.detector.State(shop.Key, shop.Protocol, f.counters[i].Backend); got != want {
		f.t.Fatalf("at %s: backend %d is %s (%s), want %s", f.now.Format(time.TimeOnly), i, got, reason, want)
	}
}

func TestWhichConnectionsEject(t *testing.T) {
	type intervals [][2]uint64 // connections and failures
	repeat := func(n int, some ...[2]uint64) intervals { return slices.Repeat(intervals(some), n) }
	for name, c := range map[string]struct {
		intervals intervals
		want      int // interval after which it is ejected; 0: never
	}{
		"failures alone":                    {intervals{{2, 2}, {2, 2}, {1, 1}}, 3},
		"many at once":                      {intervals{{500, 480}}, 1},
		"with pauses":                       {intervals{{2, 2}, {}, {}, {2, 2}, {}, {1, 1}}, 6},
		"fewer than the limit":              {repeat(1, [2]uint64{4, 4}), 0},
		"a success-only interval between":   {intervals{{4, 4}, {4, 0}, {4, 4}}, 0},
		"that may not be one":               {intervals{{4, 4}, {1, 0}, {4, 4}}, 3},
		"half of them, late":                {repeat(4, [2]uint64{4, 2}), 3},
		"fewer than half":                   {repeat(200, [2]uint64{100, 49}), 0},
		"successes and failures in turns":   {repeat(200, [2]uint64{1, 0}, [2]uint64{1, 1}), 0},
		"none":                              {repeat(200, [2]uint64{10, 0}), 0},
		"a silent host under load":          {append(repeat(6, [2]uint64{50, 0}), repeat(6, [2]uint64{50, 50})...), 7},
		"a silent host, few clients":        {repeat(20, [2]uint64{1, 0}, [2]uint64{}, [2]uint64{0, 1}, [2]uint64{}), 19},
		"a silent host, clients who wait":   {append(repeat(6, [2]uint64{1, 0}, [2]uint64{}), repeat(60, [2]uint64{1, 0}, [2]uint64{0, 1})...), 48},
		"failures of connections of before": {intervals{{0, 5}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 2, api.Outlier{})
			got := 0
			for i, n := range c.intervals {
				f.meet(0, n[0], n[1])
				if f.meet(1, 3, 0); f.observe() && got == 0 {
					got = i + 1
				}
			}
			if got != c.want {
				t.Errorf("ejected after interval %d, want %d (%s)", got, c.want, f.reason(0))
			}
			f.want(1, api.Up)
		})
	}
}

func TestAnEjectionTellsItsReasonAndEnds(t *testing.T) {
	f := newFleet(t, 3, api.Outlier{})
	if !f.detector.Next().IsZero() {
		t.Errorf("next: got %s, want none", f.detector.Next())
	}
	f.meet(0, 7, 7)
	f.observe()
	f.want(0, api.Draining)
	if got, want := f.reason(0), "ejected for 30s until 12:00:31: 7 of 7 connections failed"; got != want {
		t.Errorf("reason: got %q, want %q", got, want)
	}
	end := f.now.Add(30 * time.Second)
	if got := f.detector.Next(); !got.Equal(end) {
		t.Errorf("next: got %s, want %s", got, end)
	}
	f.meet(0, 0, 20) // that were open to its end
	f.idle(30*time.Second - pace)
	f.want(0, api.Draining)
	if !f.observe() {
		t.Error("the ejection ended and Observe does not tell")
	}
	f.want(0, api.Up)
	if got := f.detector.Since(shop.Key, shop.Protocol, f.counters[0].Backend); !got.Equal(end) {
		t.Errorf("since: got %s, want %s", got, end)
	}
	if got := f.detector.Since(shop.Key, shop.Protocol, f.counters[1].Backend); !got.IsZero() {
		t.Errorf("of one that was never ejected: got %s, want zero", got)
	}
}

// ejection is how long backend 0 stays out from now on.
func (f *fleet) ejection() time.Duration {
	f.t.Helper()
	f.want(0, api.Draining)
	start := f.now
	for f.reason(0) != "" {
		f.observe()
	}
	return f.now.Sub(start)
}

func TestEjectionsInARowGrowAndShrinkBack(t *testing.T) {
	f := newFleet(t, 2, api.Outlier{Ejection: api.Duration(10 * time.Second)})
	f.meet(0, 5, 5)
	f.observe()
	for i := range 12 {
		if got, want := f.ejection(), time.Duration(min(i+1, 10))*10*time.Second; got != want {
			t.Errorf("ejection %d took %s, want %s", i+1, got, want)
		}
		f.meet(0, 1, 1) // one is enough so soon after
		f.observe()
	}
	f.ejection()
	f.idle(45 * time.Second) // forgives four of ten
	f.meet(0, 1, 1)
	f.observe()
	if got, want := f.ejection(), 70*time.Second; got != want {
		t.Errorf("after a while of peace: took %s, want %s", got, want)
	}
	f.idle(10 * 10 * time.Second)
	f.meet(0, 1, 1)
	f.observe()
	if got, want := f.ejection(), 10*time.Second; got != want {
		t.Errorf("after long peace: took %s, want %s", got, want)
	}
}

func TestProbation(t *testing.T) {
	back := func(t *testing.T) *fleet {
		f := newFleet(t, 2, api.Outlier{})
		f.meet(0, 5, 5)
		f.observe()
		f.ejection()
		return f
	}
	t.Run("failures left over do not count", func(t *testing.T) {
		f := back(t)
		f.meet(0, 0, 9)
		f.observe()
		f.want(0, api.Up)
		f.meet(0, 4, 1)
		f.observe()
		f.want(0, api.Up)
	})
	t.Run("a silent host goes again", func(t *testing.T) {
		f := back(t)
		for range 4 {
			f.meet(0, 1, 0)
			f.observe()
		}
		f.want(0, api.Up)
		f.meet(0, 0, 2)
		f.observe()
		f.want(0, api.Draining)
		if got, want := f.ejection(), time.Minute; got != want {
			t.Errorf("took %s, want %s", got, want)
		}
	})
	t.Run("then the limit counts again", func(t *testing.T) {
		f := back(t)
		f.idle(time.Minute) // nobody tries it
		f.meet(0, 10, 0)
		f.observe()
		f.idle(probe)
		f.meet(0, 4, 4)
		f.observe()
		f.want(0, api.Up)
		f.meet(0, 1, 1)
		f.observe()
		f.want(0, api.Draining)
	})
}

func TestHowManyAreEjectedAtOnce(t *testing.T) {
	for _, c := range []struct{ backends, percent, want int }{
		{10, 0, 5}, {10, 30, 3}, {10, 39, 3}, {10, 100, 9}, {10, 1, 1}, {3, 50, 1}, {2, 100, 1}, {1, 100, 0},
	} {
		f := newFleet(t, c.backends, api.Outlier{MaxEjected: c.percent})
		for i := range f.counters {
			f.meet(i, 10, 10-uint64(i)%3) // the worst go first
		}
		f.observe()
		var out []int
		for i := range f.counters {
			if f.reason(i) != "" {
				out = append(out, i)
			}
		}
		if len(out) != c.want {
			t.Errorf("of %d backends at %d%%: %v are ejected, want %d of them", c.backends, c.percent, out, c.want)
		}
		if c.want == 3 && c.backends == 10 && !slices.Equal(out, []int{0, 3, 6}) {
			t.Errorf("of %d backends at %d%%: %v are ejected, want the worst", c.backends, c.percent, out)
		}
	}
}

func TestTheLastOneThatIsUpStays(t *testing.T) {
	f := newFleet(t, 4, api.Outlier{MaxEjected: 100})
	f.counters[1].Up, f.counters[2].Up, f.counters[3].Up = false, false, false
	f.meet(0, 10, 10)
	f.meet(1, 10, 10) // down by itself
	f.observe()
	f.want(0, api.Up)
	f.want(1, api.Up)
	f.counters[2].Up = true
	f.observe()
	f.want(0, api.Draining)
	f.counters[2].Up = false
	if !f.observe() {
		t.Error("the last hope came back and Observe does not tell")
	}
	f.want(0, api.Up)
}

func TestWhatFailedBeforeItCameUpIsForgotten(t *testing.T) {
	f := newFleet(t, 2, api.Outlier{})
	f.counters[0].Up = false
	f.meet(0, 10, 10)
	f.observe()
	f.counters[0].Up = true
	f.observe()
	f.want(0, api.Up)
}

func TestCountersThatBeginAnew(t *testing.T) {
	f := newFleet(t, 2, api.Outlier{})
	f.counters[0].Connections, f.counters[0].Failures = 20, 20
	f.observe()
	f.want(0, api.Up)
	f.counters[0].Connections, f.counters[0].Failures = 2000, 15
	f.observe()
	f.want(0, api.Up)
	f.meet(0, 5, 5)
	f.observe()
	f.want(0, api.Draining)
}

func TestWhatIsNotWantedIsForgotten(t *testing.T) {
	f := newFleet(t, 3, api.Outlier{})
	f.meet(0, 5, 5)
	f.observe()
	f.want(0, api.Draining)
	all := f.counters
	f.counters = all[1:]
	f.observe()
	f.counters = all
	f.observe()
	f.want(0, api.Up)
	f.meet(0, 5, 5)
	f.observe()
	f.want(0, api.Draining)
	f.detector.Set([]Service{shop})
	f.want(0, api.Draining)
	f.detector.Set([]Service{{"web.shop", api.UDP}})
	f.want(0, api.Up)
	if n := f.detector.ejected; n != 0 {
		t.Errorf("%d count as ejected, want none", n)
	}
	f.observe()
	f.want(0, api.Up)
}

func BenchmarkObserve10000(b *testing.B) {
	d := New(Options{})
	services := make([]Service, 100)
	counters := make([][]Counter, len(services))
	for i := range services {
		services[i] = Service{fmt.Sprintf("s%d.shop", i), api.TCP}
		for j := range 100 {
			counters[i] = append(counters[i], Counter{Backend: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 80, byte(i), byte(j)}), 80), Up: true})
		}
	}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(pace)
		for i, s := range services {
			for j := range counters[i] {
				counters[i][j].Connections += 3
			}
			d.Observe(now, s, api.Outlier{}, counters[i])
		}
	}
}

func TestAfterALongPauseOpenConnectionsCountAsOpened(t *testing.T) {
	f := newFleet(t, 2, api.Outlier{})
	for range 4 { // a silent host, its clients in between
		f.meet(0, 1, 0)
		f.observe()
		f.meet(0, 0, 1)
		f.observe()
	}
	f.meet(0, 1, 0)
	f.observe()
	f.now = f.now.Add(time.Minute) // the counters could not be read
	f.meet(0, 0, 1)
	f.observe()
	f.want(0, api.Up)
	if got := f.detector.Since("other.shop", api.TCP, f.counters[0].Backend); !got.IsZero() {
		t.Errorf("of a service that is not watched: got %s, want zero", got)
	}
}

func TestMetricsCountEjections(t *testing.T) {
	f := newFleet(t, 5, api.Outlier{})
	registry := prometheus.NewRegistry()
	f.detector = New(Options{Registerer: registry})
	f.observe()
	f.meet(0, 5, 5)
	f.meet(1, 5, 5)
	f.observe()
	f.counters = f.counters[1:]
	f.observe()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		m := family.GetMetric()[0]
		got[family.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	if got["weir_outlier_ejections_total"] != 2 || got["weir_outlier_ejected_backends"] != 1 {
		t.Errorf("got %v, want 2 ejections, of which 1 lasts", got)
	}
}

package bench

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/testenv/bench/load"
)

func TestMediansRatiosAndDifferences(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{9, 1, 2}, Spread{2, 1, 9}},
		{[]float64{4, 1, 3, 2}, Spread{2.5, 1, 4}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("%v: got %v, want %v", c.values, got, c.want)
		}
	}
	if got, want := ratios([]float64{2, 9, 3, 8}, []float64{1, 0, 6}), []float64{2, 0.5}; !slices.Equal(got, want) {
		t.Errorf("ratios: got %v, want %v", got, want)
	}
	if got, want := differences([]float64{2, 9}, []float64{1, 10, 3}), []float64{1, -1}; !slices.Equal(got, want) {
		t.Errorf("differences: got %v, want %v", got, want)
	}
}

// round makes a result with that many exchanges in a second, of 10 µs each.
func round(count int) load.Result {
	r := load.Result{Count: uint64(count), Elapsed: time.Second, CPU: time.Second / 2}
	for range count {
		r.Latency.Record(10 * time.Microsecond)
	}
	return r
}

func TestReportComparesTheSameRounds(t *testing.T) {
	r := newReport(Options{Rounds: 3, Each: time.Second}, []variant{{name: direct, base: direct}, {name: "weir-1", base: direct}}, []variant{{name: "haproxy-1", what: "HAProxy", base: direct}})
	// The machine slows down: each round's ratio is 0.5 all the same.
	for _, rate := range []int{1000, 200, 100} {
		// Also when the other comes first.
		r.add("weir-1", load.Connect, round(rate/2))
		r.add(direct, load.Connect, round(rate))
	}
	wrong := round(1)
	wrong.Wrong, wrong.Failures = 2, map[string]int{"read": 3}
	r.add("weir-1", load.Datagram, wrong)
	var weir Figure
	for _, f := range r.Figures {
		if f.Variant == "weir-1" && f.Operation == load.Connect {
			weir = f
		}
	}
	if got, want := weir.Ratio, (Spread{0.5, 0.5, 0.5}); got != want {
		t.Errorf("ratio: got %v, want %v", got, want)
	}
	if got, want := weir.PerSecond, (Spread{100, 50, 500}); got != want {
		t.Errorf("per second: got %v, want %v", got, want)
	}
	if got, want := weir.CPURatio.Median, 2.0; got != want {
		t.Errorf("ratio of CPU time: got %v, want %v", got, want)
	}
	var text strings.Builder
	if err := r.Markdown(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| weir-1 | 100 (50–500) | 0.500 (0.500–0.500) | 5000.00 | 2.000 (2.000–2.000) | 10.1 | 0.0 ",
		"| 3, and 2 from elsewhere |\n", "`haproxy-1`: HAProxy: left out",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String(), titles[load.Bulk]) {
		t.Errorf("the report has a table of what was not measured:\n%s", text.String())
	}
}

func TestOnlyNamesVariantsAndTraffic(t *testing.T) {
	o := Options{Services: 100, Backends: 2, Only: []string{"weir-many", "connect"}}
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
	chosen, _ := choose(variants(o.withDefaults()), o.Only)
	var names []string
	for _, v := range chosen {
		names = append(names, v.name)
	}
	if want := []string{direct, directMany, "weir-many"}; !slices.Equal(names, want) {
		t.Errorf("chosen: got %v, want %v", names, want)
	}
	if !wanted(o.Only, operations, load.Connect) || wanted(o.Only, operations, load.Bulk) || !wanted(nil, operations, load.Bulk) {
		t.Error("wrong kinds of traffic are left in")
	}
	for field, o := range map[string]Options{
		"Only": {Only: []string{"ipvs"}}, "Services": {Services: 1 << 20}, "Backends": {Services: 20000}, "Rounds": {Rounds: -1},
	} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%+v: got %v, want an error about %s", o, err, field)
		}
	}
}

func TestTablesHoldWhatIsMeasured(t *testing.T) {
	seen := map[string]bool{}
	table := makeTable(1000, 100)
	for _, s := range table.Services {
		for _, b := range s.Backends {
			if !backendNet.Contains(b.Address.Addr()) || seen[b.Address.String()] {
				t.Fatalf("backend %s is twice there or not in %s", b.Address, backendNet)
			}
			seen[b.Address.String()] = true
		}
		if !vipNet.Contains(s.Frontends[0].Addr()) {
			t.Errorf("%s is not in %s", s.Frontends[0], vipNet)
		}
	}
	for op, want := range map[load.Op]int{load.Connect: 8, load.Datagram: 8} {
		if got := len(frontends(table, op)); got != want {
			t.Errorf("%s reaches %d services, want %d", op, got, want)
		}
		if got := len(directTargets(table, op)); got != want*100 {
			t.Errorf("%s reaches %d backends directly, want %d", op, got, want*100)
		}
		if got := len(frontends(makeTable(1, 3), op)); got != 1 {
			t.Errorf("of one service %s reaches %d", op, got)
		}
	}
}

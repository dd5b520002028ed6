package edgebench

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/testenv"
)

func TestTheWaysDeliver(t *testing.T) {
	testenv.NeedNetns(t)
	testenv.NeedBPF(t)
	// One of each kind: a full run loads the programs nine times.
	only := []string{"nftables dnat+masquerade", "native dsr", "native nat", "tcx nat"}
	r, err := Run(context.Background(), Options{Rounds: 2, Each: 5 * time.Millisecond, Flows: 100, Payload: 100, Only: only})
	if err != nil {
		t.Fatal(err)
	}
	if want := len(only) + len(ways) - len(Ways()); len(r.Rows) != want {
		t.Errorf("%d rows, want %d", len(r.Rows), want)
	}
	for _, row := range r.Rows {
		if row.PacketsPerSecond.Min <= 0 {
			t.Errorf("%+v", row)
		}
	}
	var text strings.Builder
	if err := r.Markdown(&text); err != nil || !strings.Contains(text.String(), "native dsr") {
		t.Errorf("%v: %s", err, text.String())
	}
	t.Log("\n" + text.String())
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), "weir-edgebench") {
		t.Errorf("mounted are (%v)\n%s", err, mounts)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "weir-edgebench-*")); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

func TestWrongOptionsAreRefused(t *testing.T) {
	for want, o := range map[string]Options{
		"Rounds": {Rounds: -1}, "Each": {Each: -1}, "Flows": {Flows: 50001}, "Payload": {Payload: 1401}, "Only": {Only: []string{"ipvs"}},
	} {
		if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   Spread
	}{{nil, Spread{}}, {[]float64{3, 1, 2}, Spread{2, 1, 3}}, {[]float64{4, 1, 2, 3}, Spread{2.5, 1, 4}}} {
		if got := spread(c.values); got != c.want {
			t.Errorf("spread of %v is %v, want %v", c.values, got, c.want)
		}
	}
}

// BenchmarkWays prints the whole table once.
func BenchmarkWays(b *testing.B) {
	testenv.NeedNetns(b)
	testenv.NeedBPF(b)
	r, err := Run(b.Context(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	for _, row := range r.Rows {
		b.ReportMetric(row.PacketsPerSecond.Median, strings.ReplaceAll(row.Name, " ", "-")+"-packets/s")
	}
	var text strings.Builder
	if err := r.Markdown(&text); err != nil {
		b.Fatal(err)
	}
	b.Log("\n" + text.String())
}

package bench

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/testenv"
	"github.com/weirproject/weir/testenv/bench/load"
)

func TestMain(m *testing.M) {
	load.Main()
	OwnerMain()
	os.Exit(m.Run())
}

// TestEveryVariantReachesTheBackends asks only that traffic arrives: a busy
// machine says nothing about rates.
func TestEveryVariantReachesTheBackends(t *testing.T) {
	testenv.NeedBPF(t)
	r, err := Compare(t.Context(), Options{
		Rounds: 1, Each: 50 * time.Millisecond, Services: 300, Backends: 5,
		Only: []string{"empty", "weir-1", "weir-hot", "weir-many", "weir-bypass", "nft-chains-many", "nft-map-many", "iptables-many", "haproxy-1", "connect", "request", "bulk", "udp", "udp-connected"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Figures {
		if f.PerSecond.Median == 0 || f.Failures > 0 || f.Wrong > 0 {
			t.Errorf("%s of %s: got %.0f per second, %s failed, want some and none", f.Operation, f.Variant, f.PerSecond.Median, f.failed())
		}
	}
	// 9 variants and two direct ones; HAProxy cannot do the two kinds of UDP.
	if got, want := len(r.Figures), 11*5-2; got != want && len(r.Missing) == 0 {
		t.Errorf("got %d figures, want %d", got, want)
	}
	var text strings.Builder
	if err := r.Markdown(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"### New TCP connections", "| weir-many | ", "| connect | weir-1 | connect4 | ", "| bulk | weir-many | all | 0 | "} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, text.String())
		}
	}
}

func TestNothingBreaksWhileEverythingChanges(t *testing.T) {
	testenv.NeedBPF(t)
	r, err := Soak(t.Context(), SoakOptions{For: 4 * time.Second, Rate: 200, Open: 50, Changes: 200, Kills: 2, Migrations: 2})
	if err != nil {
		t.Fatal(err)
	}
	if r.Broken() {
		t.Errorf("failed: %s; open ones: %s; %d to the wrong service", counts(r.Failures), counts(r.OpenFailures), r.Wrong)
	}
	if r.Connections == 0 || r.OpenRequests == 0 || r.Changes == 0 {
		t.Errorf("nothing happened: %+v", r)
	}
	var text strings.Builder
	if err := r.Markdown(&text); err != nil || !strings.Contains(text.String(), "| of these failed | ") {
		t.Errorf("the report: %v\n%s", err, text.String())
	}
}

func TestUpdatesAndSourcePortsAreMeasured(t *testing.T) {
	testenv.NeedBPF(t)
	r, err := Update(t.Context(), Options{Services: 200, Backends: 110}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Changes) != len(changes) || r.Memory == 0 || r.Load == 0 || r.Reopen == 0 {
		t.Errorf("got %+v", r)
	}
	for _, p := range r.Peers {
		if p.Fault != "" && !strings.Contains(p.Fault, "not found") {
			t.Errorf("%s: %s", p.What, p.Fault)
		}
	}
	for _, c := range r.Changes {
		if max := 20.0; c.Writes.Max > max {
			t.Errorf("%s: got %.0f writes, want at most %.0f", c.What, c.Writes.Max, max)
		}
	}
	p, err := Ports(t.Context(), PortsOptions{For: 200 * time.Millisecond, Rate: 500})
	if err != nil {
		t.Fatal(err)
	}
	for _, side := range []PortsFigures{p.Direct, p.VIP} {
		if side.Connections == 0 || len(side.Failures) > 0 {
			t.Errorf("got %+v", side)
		}
	}
	var text strings.Builder
	if err := r.Markdown(&text); err != nil {
		t.Fatal(err)
	}
	if err := p.Markdown(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| full load of 22000 backends | ", "| a backend goes down | ", "| through a VIP | "} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the reports lack %q:\n%s", want, text.String())
		}
	}
}

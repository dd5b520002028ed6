package filtertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/weirproject/weir/dataplane"
)

// NoWindow sets two rulesets in turn while flows are opened all the time: what
// both allow passes at every moment, and what both forbid never does.
func NoWindow(t *testing.T, open Open, replaces int) {
	b := newBench(t, open, false)
	pair := [2]*dataplane.Ruleset{windowRules(0), windowRules(1)}
	b.set(pair[0])
	stop, done := make(chan struct{}), make(chan map[uint32]bool)
	go func() { done <- b.load(stop) }()
	start := time.Now()
	var failed error
	for i := range replaces {
		if _, err := b.filter.Set(t.Context(), pair[(i+1)%2]); err != nil {
			failed = err
			break
		}
	}
	took := time.Since(start)
	close(stop)
	want := <-done
	if failed != nil {
		t.Fatal(failed)
	}
	got := b.wire.passed(want)
	lost, leaked := 0, 0
	for n, allowed := range want {
		if allowed && !got[n] {
			lost++
		}
		if !allowed && got[n] {
			leaked++
		}
	}
	t.Logf("%d replaces in %s under %d flows", replaces, took.Round(time.Millisecond), len(want))
	if lost+leaked > 0 {
		t.Errorf("%d flows that both rulesets allow were dropped, %d that both forbid passed", lost, leaked)
	}
}

// windowRules are two rulesets with the same verdict for some flows, each by
// other means: members move between sets, rules change their order, some come
// and go, and there are enough of them to be told apart by classes.
func windowRules(turn int) *dataplane.Ruleset {
	one, two := "10.1.0.1/32", "10.1.0.2/32"
	if turn == 1 {
		one, two = two, one
	}
	r := &dataplane.Ruleset{
		Sets: []dataplane.AddressSet{
			{Name: "first", Prefixes: prefixes(one, "fd01::1/128")},
			{Name: "second", Prefixes: prefixes(two, "fd01::2/128")},
			{Name: "targets", Prefixes: prefixes("10.1.0.254/32", "10.2.0.0/24", "fd01::fe/128", "fd02::/64")},
			{Name: "zoned", Prefixes: prefixes("10.0.0.0/8", "fd00::/8")},
		},
		Zoned: "zoned",
	}
	both := []dataplane.FilterRule{rule("first", "first", "targets", "udp/80"), rule("second", "second", "targets", "udp/80")}
	if turn == 1 {
		both = []dataplane.FilterRule{rule("second", "second", "targets", "udp/80-90"), rule("also", "first", "", "udp/80"), rule("new", "targets", "targets", "any")}
		r.Sets[1].Prefixes = append(r.Sets[1].Prefixes, prefixes("fd01::4/128")...)
	}
	for i := range 20 {
		both = append(both, rule(fmt.Sprint("extra", i), []string{"first", "second"}[i%2], "targets", fmt.Sprintf("udp/%d", 1000+i+100*turn)))
	}
	r.Input, r.Forward = both, both
	return r
}

// load opens flows until it is told to stop, and tells which ones should pass.
func (b *bench) load(stop chan struct{}) map[uint32]bool {
	want := map[uint32]bool{}
	kinds := []struct {
		packet Packet
		passes bool
	}{
		{b.flow("10.1.0.1", node4, 80), true}, {b.flow("10.1.0.2", server4, 80), true}, {b.flow("fd01::1", server6, 80), true},
		{b.flow("10.1.0.3", node4, 80), false}, {b.flow("10.1.0.1", server4, 99), false}, {b.flow("fd01::3", node6, 80), false},
	}
	for {
		for _, k := range kinds {
			b.random.fresh(&k.packet)
			if n, err := b.wire.send(k.packet); err == nil {
				want[n] = k.passes
			}
		}
		if len(want)%60_000 < len(kinds) {
			b.net.Forget() // flows are told apart by their ports, and conntrack has its bounds
		}
		select {
		case <-stop:
			return want
		case <-time.After(500 * time.Microsecond):
		}
	}
}

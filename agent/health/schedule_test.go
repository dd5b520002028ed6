package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirproject/weir/api"
)

// many are n TCP targets of a service, with the default check.
func many(service string, n int) []Target {
	var all []Target
	for i := range n {
		all = append(all, Target{
			Service: service, Protocol: api.TCP, Check: api.HealthCheck{TCP: &api.TCPCheck{}},
			Backend: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 80, byte(i >> 8), byte(i)}), 80),
		})
	}
	return all
}

// fake runs a Checker whose probes are the function, until the test ends.
func fake(t *testing.T, o Options, probe func(context.Context, Target) error) *Checker {
	c := New(o)
	c.probe = func(k Target) probeFunc {
		return func(ctx context.Context) error { return probe(ctx, k) }
	}
	return run(t, c)
}

var errSick = errors.New("sick")

func TestRiseAndFallAreCountedInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outcomes := make(chan error)
		c := fake(t, Options{}, func(context.Context, Target) error { return <-outcomes })
		k := many("web.shop", 1)[0]
		k.Check.Successes, k.Check.Failures = 3, 2
		c.Set([]Target{k})
		for i, step := range []struct {
			err    error
			state  api.BackendState
			reason string
		}{
			{nil, api.Draining, "passed 1 of the 3 checks in a row that it needs"},
			{nil, api.Draining, "passed 2 of the 3 checks in a row that it needs"},
			{errSick, api.Down, "sick"},
			{nil, api.Draining, "passed 1 of the 3 checks in a row that it needs"},
			{nil, api.Draining, "passed 2 of the 3 checks in a row that it needs"},
			{nil, api.Up, ""},
			{errSick, api.Up, ""},
			{nil, api.Up, ""},
			{errSick, api.Up, ""},
			{errSick, api.Down, "sick"},
			{nil, api.Draining, "passed 1 of the 3 checks in a row that it needs"},
		} {
			outcomes <- step.err
			synctest.Wait()
			if state, reason := c.State(k.Service, k.Protocol, k.Backend); state != step.state || reason != step.reason {
				t.Errorf("after check %d: got %s (%s), want %s (%s)", i+1, state, reason, step.state, step.reason)
			}
		}
		close(outcomes)
	})
}

func TestSinceIsTheLastChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var sick error
		var told []Target
		c := fake(t, Options{OnChange: func(k Target) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, k)
		}}, func(context.Context, Target) error {
			mu.Lock()
			defer mu.Unlock()
			return sick
		})
		k := many("web.shop", 1)[0]
		if got := c.Since(k.Service, k.Protocol, k.Backend); !got.IsZero() {
			t.Errorf("without a check: got %s, want zero", got)
		}
		start := time.Now()
		c.Set([]Target{k})
		if got := c.Since(k.Service, k.Protocol, k.Backend); !got.IsZero() {
			t.Errorf("before the first check: got %s, want zero", got)
		}
		time.Sleep(time.Second)
		up := c.Since(k.Service, k.Protocol, k.Backend)
		if late := up.Sub(start); late < 0 || late > firstWithin {
			t.Errorf("came up %s after the start", late)
		}
		mu.Lock()
		sick = errSick
		mu.Unlock()
		time.Sleep(time.Minute)
		down := c.Since(k.Service, k.Protocol, k.Backend)
		if after := down.Sub(start); after < 3*1800*time.Millisecond || after > firstWithin+time.Second+3*2200*time.Millisecond {
			t.Errorf("went down %s after the start, want three checks", after)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(told) != 2 || told[1].Backend != k.Backend || told[1].Service != k.Service {
			t.Errorf("told of %+v, want twice of the target", told)
		}
		after := New(Options{Initial: c.Results()})
		after.Set([]Target{k})
		if got := after.Since(k.Service, k.Protocol, k.Backend); !got.Equal(down) {
			t.Errorf("after a restart: got %s, want %s", got, down)
		}
		future := New(Options{Initial: []Result{{k.Service, k.Protocol, k.Backend, true, false, time.Now().Add(time.Hour)}}})
		future.Set([]Target{k})
		if got := future.Since(k.Service, k.Protocol, k.Backend); !got.IsZero() {
			t.Errorf("after the clock was set back: got %s, want zero", got)
		}
	})
}

func TestTenThousandTargetsAreSpreadAndKeepTheirPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const targets, seconds = 10_000, 30
		start := time.Now()
		var mu sync.Mutex
		at := map[time.Duration]int{} // checks by 20 ms
		total := 0
		c := fake(t, Options{}, func(context.Context, Target) error {
			mu.Lock()
			defer mu.Unlock()
			at[time.Since(start)/(20*time.Millisecond)]++
			total++
			return nil
		})
		c.Set(many("web.shop", targets))
		time.Sleep(seconds * time.Second)
		mu.Lock()
		defer mu.Unlock()
		for slot, n := range at {
			if n > 300 { // 100 on average
				t.Errorf("%d checks within 20 ms at %s", n, slot*20*time.Millisecond)
			}
		}
		if want := targets * seconds / 2; total < want*97/100 || total > want*103/100 {
			t.Errorf("%d checks in %d s, want about %d", total, seconds, want)
		}
		for _, r := range c.Results() {
			if !r.Up {
				t.Fatalf("%s is not up", r.Backend)
			}
		}
	})
}

func TestASlowServiceDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		checks := map[string]int{}
		inFlight, most := 0, 0
		c := fake(t, Options{}, func(ctx context.Context, k Target) error {
			mu.Lock()
			checks[k.Service]++
			inFlight++
			most = max(most, inFlight)
			mu.Unlock()
			defer func() { mu.Lock(); inFlight--; mu.Unlock() }()
			if strings.HasPrefix(k.Service, "slow") {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		c.network = newPool(50)
		var all []Target
		for i := range 5 { // each needs more than there is
			all = append(all, many(fmt.Sprintf("slow%d.shop", i), 1000)...)
		}
		all = append(all, many("quick.shop", 100)...)
		c.Set(all)
		time.Sleep(20 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if n := checks["quick.shop"]; n < 950 {
			t.Errorf("the quick service was checked %d times, want about 1000", n)
		}
		least, greatest := 1<<30, 0
		for i := range 5 {
			n := checks[fmt.Sprintf("slow%d.shop", i)]
			least, greatest = min(least, n), max(greatest, n)
		}
		if least*2 < greatest {
			t.Errorf("slow services were checked between %d and %d times, want fair shares", least, greatest)
		}
		if most > 50 {
			t.Errorf("%d checks ran at once, want at most 50", most)
		}
	})
}

func TestCommandsWaitApartFromConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fake(t, Options{}, func(ctx context.Context, k Target) error {
			if k.Check.Exec != nil {
				<-ctx.Done()
			}
			return ctx.Err()
		})
		commands := many("cron.shop", 1000)
		for i := range commands {
			commands[i].Check = api.HealthCheck{Exec: &api.ExecCheck{Command: []string{"true"}}}
		}
		web := many("web.shop", 1)
		c.Set(append(commands, web...))
		time.Sleep(time.Second)
		if state, reason := c.State("web.shop", api.TCP, web[0].Backend); state != api.Up {
			t.Errorf("got %s (%s), want up", state, reason)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if free := maxCommands - c.commands.free; free > maxCommands/2 {
			t.Errorf("one service runs %d commands, want at most half of %d", free, maxCommands)
		}
	})
}

func TestSetStopsChecksThatWaitOrRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fake(t, Options{}, func(ctx context.Context, _ Target) error {
			<-ctx.Done()
			return ctx.Err()
		})
		c.network = newPool(4)
		all := many("web.shop", 100)
		for i := range all {
			all[i].Check.Timeout = api.Duration(time.Hour)
		}
		c.Set(all)
		time.Sleep(time.Second)
		c.Set(nil)
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.network.free != 4 || len(c.network.shares) != 0 || len(c.network.waiting) != 0 {
			t.Errorf("%d of 4 places are free, %d services have some, %d wait", c.network.free, len(c.network.shares), len(c.network.waiting))
		}
	})
}

func TestTheSameTargetTwiceIsCheckedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		checks := 0
		c := fake(t, Options{}, func(context.Context, Target) error { mu.Lock(); checks++; mu.Unlock(); return nil })
		k := many("web.shop", 1)[0]
		other := k
		other.Check.Failures = 7
		c.Set([]Target{k, other})
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if checks != 1 {
			t.Errorf("checked %d times in a second, want once", checks)
		}
	})
}

func TestAWantOfThisNodeIsNoFailureOfTheBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		start := time.Now()
		c := fake(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, func(context.Context, Target) error {
			if time.Since(start) < time.Second {
				return nil
			}
			return &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}
		})
		all := many("web.shop", 10)
		c.Set(all)
		time.Sleep(150 * time.Second)
		synctest.Wait()
		for _, k := range all {
			if state, reason := c.State(k.Service, k.Protocol, k.Backend); state != api.Up {
				t.Errorf("got %s (%s), want up", state, reason)
			}
		}
		c.mu.Lock() // the log is written under it
		defer c.mu.Unlock()
		if n := strings.Count(log.String(), "too many open files"); n != 3 {
			t.Errorf("complained %d times in 150 s, want once a minute", n)
		}
	})
}

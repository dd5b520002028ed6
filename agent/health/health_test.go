package health

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
)

func running(t *testing.T, o Options) *Checker {
	t.Helper()
	o.Log, o.Registerer = slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	return run(t, New(o))
}

func run(t *testing.T, c *Checker) *Checker {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

func target(address string, check api.HealthCheck) Target {
	check.Interval, check.Timeout = api.Duration(50*time.Millisecond), api.Duration(300*time.Millisecond)
	return Target{Service: "web.shop", Protocol: api.TCP, Backend: netip.MustParseAddrPort(address), Check: check.WithDefaults()}
}

func eventually(t *testing.T, c *Checker, k Target, want api.BackendState) string {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		state, reason := c.State(k.Service, k.Protocol, k.Backend)
		if state == want {
			return reason
		}
		if time.Now().After(deadline) {
			t.Fatalf("state is %s (%s), want %s", state, reason, want)
		}
	}
}

func TestABackendGoesDownAfterFailuresAndComesBackAtOnce(t *testing.T) {
	var status, asked atomic.Int64
	status.Store(200)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.WriteHeader(int(status.Load()))
	}))
	defer server.Close()
	var changes atomic.Int64
	c := running(t, Options{OnChange: func(Target) { changes.Add(1) }})
	k := target(server.Listener.Addr().String(), api.HealthCheck{HTTP: &api.HTTPCheck{Path: "/healthz"}})
	c.Set([]Target{k})
	if state, reason := c.State(k.Service, k.Protocol, k.Backend); state != api.Draining || !strings.Contains(reason, "first success") {
		t.Errorf("before the first check: got %s (%s), want draining", state, reason)
	}
	eventually(t, c, k, api.Up)
	before := asked.Load()
	status.Store(503)
	if reason := eventually(t, c, k, api.Draining); !strings.Contains(reason, "503") {
		t.Errorf("reason: got %q", reason)
	}
	if n := asked.Load() - before; n < 3 {
		t.Errorf("went down after %d checks, want 3 at least", n)
	}
	status.Store(302)
	eventually(t, c, k, api.Up)
	if n := changes.Load(); n != 3 {
		t.Errorf("OnChange was called %d times, want 3", n)
	}
	c.Set(nil)
	if state, _ := c.State(k.Service, k.Protocol, k.Backend); state != api.Up {
		t.Errorf("without a check: got %s, want up", state)
	}
}

func TestTCPAndExecChecks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := running(t, Options{})
	open := target(l.Addr().String(), api.HealthCheck{TCP: &api.TCPCheck{}})
	closed := target("127.0.0.1:1", api.HealthCheck{TCP: &api.TCPCheck{}, Failures: 1})
	good := target("127.0.0.1:2", api.HealthCheck{Exec: &api.ExecCheck{Command: []string{"sh", "-c", `test "$WEIR_BACKEND_ADDRESS:$WEIR_BACKEND_PORT" = 127.0.0.1:2`}}})
	slow := target("127.0.0.1:3", api.HealthCheck{Failures: 1, Exec: &api.ExecCheck{Command: []string{"sleep", "10"}}})
	c.Set([]Target{open, closed, good, slow})
	eventually(t, c, open, api.Up)
	eventually(t, c, good, api.Up)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, refused := c.State(closed.Service, closed.Protocol, closed.Backend)
		_, late := c.State(slow.Service, slow.Protocol, slow.Backend)
		if strings.Contains(refused, "refused") && strings.Contains(late, "no answer within") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("reasons: %q, %q", refused, late)
		}
	}
}

func TestARestoredBackendStaysUpUntilItFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := target(l.Addr().String(), api.HealthCheck{TCP: &api.TCPCheck{}})
	first := running(t, Options{})
	first.Set([]Target{k})
	eventually(t, first, k, api.Up)

	second := running(t, Options{Initial: first.Results()})
	second.Set([]Target{k})
	if state, reason := second.State(k.Service, k.Protocol, k.Backend); state != api.Up {
		t.Errorf("after a restart: got %s (%s), want up", state, reason)
	}
	l.Close()
	eventually(t, second, k, api.Down)
}

func TestSetStopsWhatIsNotWanted(t *testing.T) {
	c := running(t, Options{})
	var targets []Target
	for i := range 1000 {
		targets = append(targets, target(fmt.Sprintf("127.0.0.1:%d", 20000+i), api.HealthCheck{TCP: &api.TCPCheck{}}))
	}
	c.Set(targets)
	c.Set(targets[:1])
	if got := len(c.Results()); got != 1 {
		t.Errorf("%d targets are left, want 1", got)
	}
}

func TestEarlierResultsHoldForTheFirstTargetsAlone(t *testing.T) {
	k := target("127.0.0.1:1", api.HealthCheck{TCP: &api.TCPCheck{}})
	other := target("127.0.0.1:2", api.HealthCheck{TCP: &api.TCPCheck{}})
	initial := []Result{
		{Service: k.Service, Protocol: k.Protocol, Backend: k.Backend, Up: true},
		{Service: other.Service, Protocol: other.Protocol, Backend: other.Backend, Up: true},
	}
	c := New(Options{Initial: initial}) // never runs
	c.Set([]Target{k})
	if got := c.Results(); len(got) != 1 || got[0] != initial[0] {
		t.Errorf("got %+v, want %+v", got, initial[:1])
	}
	c.Set(nil)
	c.Set([]Target{k, other})
	for _, r := range c.Results() {
		if r.Up {
			t.Errorf("%s counts as up, by a result from before it went", r.Backend)
		}
	}
}

func TestAChangedCheckKeepsTheResult(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var changes atomic.Int64
	c := running(t, Options{OnChange: func(Target) { changes.Add(1) }})
	k := target(l.Addr().String(), api.HealthCheck{TCP: &api.TCPCheck{}})
	c.Set([]Target{k})
	eventually(t, c, k, api.Up)
	k.Check.Failures = 5
	c.Set([]Target{k})
	if state, reason := c.State(k.Service, k.Protocol, k.Backend); state != api.Up {
		t.Errorf("got %s (%s), want up", state, reason)
	}
	if changes.Load() != 1 {
		t.Errorf("OnChange was called %d times, want once", changes.Load())
	}
}

func TestNotMoreThanTheBoundRunAtOnce(t *testing.T) {
	var now, most atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(20 * time.Millisecond)
		now.Add(-1)
	}))
	defer server.Close()
	c := New(Options{})
	c.network = newPool(4)
	run(t, c)
	var targets []Target
	for i := range 40 {
		k := target(server.Listener.Addr().String(), api.HealthCheck{HTTP: &api.HTTPCheck{}})
		k.Service = fmt.Sprintf("s%d.shop", i)
		targets = append(targets, k)
	}
	c.Set(targets)
	for _, k := range targets {
		eventually(t, c, k, api.Up)
	}
	if n := most.Load(); n > 4 {
		t.Errorf("%d checks ran at once, want at most 4", n)
	}
}

// gathered is the value of a metric with one label.
func gathered(t *testing.T, registry *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestMetricsCountChecksAndBackends(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	registry := prometheus.NewRegistry()
	c := run(t, New(Options{Registerer: registry}))
	up := target(l.Addr().String(), api.HealthCheck{TCP: &api.TCPCheck{}})
	down := target("127.0.0.1:1", api.HealthCheck{TCP: &api.TCPCheck{}})
	c.Set([]Target{up, down})
	eventually(t, c, up, api.Up)
	for _, state := range []string{"up", "down"} {
		if got := gathered(t, registry, "weir_health_backends", state); got != 1 {
			t.Errorf("weir_health_backends{state=%q} is %v, want 1", state, got)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); gathered(t, registry, "weir_health_checks_total", "failure") == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no failed check was counted")
		}
	}
	if gathered(t, registry, "weir_health_checks_total", "success") == 0 {
		t.Error("no passed check was counted")
	}
}

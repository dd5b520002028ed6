package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/testenv"
)

const peersLab = `name: %s
networks: {private: 10.80.0.0/24}
hosts:
- {name: a1, run: [agent], zone: private, networks: {private: 10.80.0.11}}
- {name: a2, run: [agent], zone: private, networks: {private: 10.80.0.12}}
- {name: a3, run: [agent], zone: private, networks: {private: 10.80.0.13}}
- {name: a4, run: [agent], zone: private, networks: {private: 10.80.0.14}}
- {name: a5, run: [agent], zone: private, networks: {private: 10.80.0.15}}
- {name: a6, run: [agent], zone: private, networks: {private: 10.80.0.16}}
state: ./state.d
agent: {peers: {key: "a key that all nodes have"}}
`

// uncheckedService has no health check: what is known of its backends is what
// is known of their nodes.
const uncheckedService = `kind: service
name: web
namespace: shop
vips: ["198.18.0.10:80", "web:80"]
backends:
- {address: "10.80.0.11:8080", node: a1}
- {address: "10.80.0.12:8080", node: a2}
`

// closedPolicy lets nothing pass between nodes but Weir's own and the service.
const closedPolicy = `kind: policy
zones:
  private: {nodes: {role: agent}}
rules:
- {name: web, from: [private], to: [private], allow: [tcp/8080]}
`

// tries is how often a measured fault is made: few in a test, WEIR_E2E_TRIES to
// measure.
func tries(few int) int {
	if n, err := strconv.Atoi(os.Getenv("WEIR_E2E_TRIES")); err == nil {
		return n
	}
	return few
}

// seen is the state of a backend in the host's own table.
func seen(open *testenv.Lab, host, backend string) (api.BackendState, error) {
	response, err := open.AgentClient(host).Get("http://agent/v1/vips/web.shop")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var v api.VIPStatus
	if err := json.NewDecoder(response.Body).Decode(&v); err != nil {
		return "", err
	}
	for _, b := range v.Backends {
		if b.Address.String() == backend {
			return b.State, nil
		}
	}
	return "", fmt.Errorf("%s has no backend %s", host, backend)
}

// untilAll waits until all hosts have the backend in the state, and returns how
// long the last one took.
func (l *lab) untilAll(open *testenv.Lab, hosts []string, backend string, want api.BackendState) time.Duration {
	l.t.Helper()
	began := time.Now()
	var wait sync.WaitGroup
	for _, host := range hosts {
		wait.Go(func() {
			for deadline := began.Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				got, err := seen(open, host, backend)
				if err == nil && got == want {
					return
				}
				if time.Now().After(deadline) {
					l.t.Errorf("on %s the backend %s is %q, want %q: %v", host, backend, got, want, err)
					return
				}
			}
		})
	}
	wait.Wait()
	if l.t.Failed() {
		l.t.FailNow()
	}
	return time.Since(began)
}

// powerFaults takes a2's power away and gives it back, and logs how long it took
// to leave every other node's table.
func (l *lab) powerFaults(open *testenv.Lab, others []string, n int) {
	l.t.Helper()
	const backend = "10.80.0.12:8080"
	var took, back []time.Duration
	for range n {
		began := time.Now()
		if err := open.PowerOff(l.t.Context(), "a2"); err != nil {
			l.t.Fatal(err)
		}
		l.untilAll(open, others, backend, api.Down)
		took = append(took, time.Since(began))
		if err := open.Start(l.t.Context(), "a2", 0); err != nil {
			l.t.Fatal(err)
		}
		began = time.Now()
		l.untilAll(open, others, backend, api.Up)
		back = append(back, time.Since(began))
	}
	slices.Sort(took)
	slices.Sort(back)
	l.t.Logf("without power, out of %d other tables: p50 %s, p99 %s; back after its start: p50 %s (%d tries)",
		len(others), took[n/2].Round(time.Millisecond), took[(n*99-1)/100].Round(time.Millisecond), back[n/2].Round(time.Millisecond), n)
}

func TestANodeWithoutPowerLeavesEveryTableWithoutControllers(t *testing.T) {
	l := upFrom(t, peersLab, map[string]string{"service.yaml": uncheckedService, "policy.yaml": closedPolicy})
	open, err := testenv.Open("", l.name)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // everybody has heard of everybody
	l.powerFaults(open, []string{"a1", "a3", "a4", "a5", "a6"}, tries(3))
	if out, err := l.exec("a3", "--", "weir", "vip", "show", "web.shop"); err != nil {
		t.Errorf("weir vip show: %v\n%s", err, out)
	}
}

func TestAnAgentThatIsKilledTakesNoBackendOut(t *testing.T) {
	l := upFrom(t, peersLab, map[string]string{"service.yaml": uncheckedService, "policy.yaml": closedPolicy})
	open, err := testenv.Open("", l.name)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	if err := open.KillAgent(t.Context(), "a2"); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(2 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if got, err := seen(open, "a3", "10.80.0.12:8080"); err == nil && got != api.Up {
			t.Fatalf("its backend is %s", got)
		}
	}
}

// TestBusyProcessorsMakeNobodyDead keeps every processor of the machine busy for
// a while (WEIR_E2E_BUSY to take longer).
func TestBusyProcessorsMakeNobodyDead(t *testing.T) {
	l := upFrom(t, peersLab, map[string]string{"service.yaml": uncheckedService, "policy.yaml": closedPolicy})
	open, err := testenv.Open("", l.name)
	if err != nil {
		t.Fatal(err)
	}
	length := 5 * time.Second
	if d, err := time.ParseDuration(os.Getenv("WEIR_E2E_BUSY")); err == nil {
		length = d
	}
	for i := range 8 {
		l.must("a1", "--detach", fmt.Sprintf("busy%d", i), "--", "sh", "-c", "while :; do :; done")
	}
	for until := time.Now().Add(length); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		for _, host := range []string{"a3", "a5"} {
			for _, backend := range []string{"10.80.0.11:8080", "10.80.0.12:8080"} {
				if got, err := seen(open, host, backend); err == nil && got != api.Up {
					t.Errorf("on %s the backend %s is %s", host, backend, got)
				}
			}
		}
	}
}

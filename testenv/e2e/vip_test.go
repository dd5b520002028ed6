package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// answers counts who answers n requests of the host.
func (l *lab) answers(host string, n int) map[string]int {
	l.t.Helper()
	got := map[string]int{}
	for range n {
		out, err := l.curl(host, "http://198.18.0.10/")
		if err != nil {
			l.t.Fatalf("curl on %s: %v\n%s", host, err, out)
		}
		name, _, _ := strings.Cut(out, " ")
		got[name]++
	}
	return got
}

func TestABackendDrainedByHandGetsNothingFromThisNodeUntilItIsUndone(t *testing.T) {
	l := web(t)
	l.must("a1", "--", "weir", "vip", "drain", "web.shop", "10.80.0.12:8080")
	l.eventually(3*time.Second, func() error { return l.backends("a1", api.Draining, 1) })
	if got := l.answers("a1", 20); got["a2"] != 0 {
		t.Errorf("drained, and yet: %v", got)
	}
	if got := l.answers("p1", 20); got["a2"] == 0 {
		t.Errorf("another node drained it too: %v", got)
	}
	// It outlives the agent.
	if out, err := run("weir-lab", "kill", "--lab", l.name, "a1", "--agent"); err != nil {
		t.Fatalf("kill: %v\n%s", err, out)
	}
	if out, err := run("weir-lab", "start", "--lab", l.name, "a1"); err != nil {
		t.Fatalf("start: %v\n%s", err, out)
	}
	l.eventually(5*time.Second, func() error { return l.backends("a1", api.Draining, 1) })
	if got := l.answers("a1", 20); got["a2"] != 0 {
		t.Errorf("after a restart: %v", got)
	}
	l.must("a1", "--", "weir", "vip", "drain", "web.shop", "10.80.0.12:8080", "--undo")
	l.eventually(3*time.Second, func() error {
		if got := l.answers("a1", 10); got["a2"] == 0 {
			return fmt.Errorf("undone, and yet: %v", got)
		}
		return nil
	})
	if out, err := l.exec("a1", "--", "weir", "vip", "drain", "web.shop", "10.80.0.99:8080"); err == nil || !strings.Contains(out, "has no backend") {
		t.Errorf("a backend that is not there: got %v, %s", err, out)
	}
}

// The node of a backend loses power: connections to it, which would hang, are
// reset as soon as that is found out.
func TestOpenConnectionsToALostNodeAreReset(t *testing.T) {
	l := web(t)
	l.must("a1", "--", "weir", "vip", "drain", "web.shop", "10.80.0.11:8080")
	l.eventually(3*time.Second, func() error { return l.backends("a1", api.Draining, 1) })
	type ending struct {
		out  string
		took time.Duration
	}
	done := make(chan ending, 1)
	go func() {
		start := time.Now()
		out, _ := l.exec("a1", "--", "bash", "-c", "exec 3<>/dev/tcp/198.18.0.10/80; timeout 20 cat <&3; echo status $?")
		done <- ending{out, time.Since(start)}
	}()
	var open []api.Connection
	l.eventually(3*time.Second, func() error {
		out, err := l.exec("a1", "--", "weir", "vip", "conns", "web.shop", "-o", "json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if err := json.Unmarshal([]byte(out), &open); err != nil || len(open) != 1 {
			return fmt.Errorf("connections: %s, %v", out, err)
		}
		return nil
	})
	if c := open[0]; c.Backend.String() != "10.80.0.12:8080" || c.VIP.String() != "198.18.0.10:80" || c.State != "established" || c.Process == 0 {
		t.Errorf("weir vip conns: got %+v", c)
	}
	if out, err := run("weir-lab", "kill", "--lab", l.name, "a2", "--power"); err != nil {
		t.Fatalf("kill: %v\n%s", err, out)
	}
	select {
	case e := <-done:
		if !strings.Contains(e.out, "abort") && !strings.Contains(e.out, "reset") {
			t.Errorf("the connection ended with %q, want it reset", e.out)
		}
	case <-time.After(10 * time.Second):
		t.Error("the connection hangs")
	}
	out := l.must("a1", "--", "weir", "vip", "show", "web.shop", "-o", "json")
	var v api.VIPStatus
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.Backends[1].Reset != 1 {
		t.Errorf("weir vip show counts %+v, %v; want one reset", v.Backends, err)
	}
}

func TestExplainAndTraceTellWhatHappens(t *testing.T) {
	l := web(t)
	if out, err := l.exec("a1", "--", "weir", "vip", "explain", "web.shop.vip.weir.internal"); err != nil {
		t.Errorf("explain: %v\n%s", err, out)
	}
	if out, err := l.exec("a1", "--", "weir", "vip", "explain", "wbe.shop"); err == nil || !strings.Contains(out, "FAILS") || !strings.Contains(out, "What to do") {
		t.Errorf("explain of a wrong name: got %v\n%s", err, out)
	}
	out := l.must("a1", "--", "weir", "vip", "trace", "web.shop")
	if !strings.Contains(out, "10.80.0.11:8080") || !strings.Contains(out, "50%") {
		t.Errorf("trace: got %s", out)
	}
	for _, host := range []string{"a1", "a2"} {
		if out, err := run("weir-lab", "kill", "--lab", l.name, host, "--task", "web"); err != nil {
			t.Fatalf("kill: %v\n%s", err, out)
		}
	}
	l.eventually(5*time.Second, func() error { return l.backends("p1", api.Down, 2) })
	if out, err := l.exec("p1", "--", "weir", "vip", "explain", "web.shop"); err == nil || !strings.Contains(out, "connection refused") {
		t.Errorf("explain without a backend: got %v\n%s", err, out)
	}
}

// A container runtime gives its processes namespaces of their own; what they
// connect to is balanced by the cgroup that they are in.
func TestProcessesInNamespacesOfTheirOwnAreBalanced(t *testing.T) {
	l := web(t)
	for _, namespaces := range []string{"--cgroup", "--mount", "--uts", "--ipc", "--cgroup --mount --pid --fork --mount-proc"} {
		args := append([]string{"--", "unshare"}, strings.Fields(namespaces)...)
		out, err := l.exec("a1", append(args, "curl", "-sS", "--max-time", "2", "http://198.18.0.10/")...)
		if err != nil || !strings.HasPrefix(out, "a") {
			t.Errorf("unshare %s: got %v, %s", namespaces, err, out)
		}
	}
}

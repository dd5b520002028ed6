package testenv

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const withAgents = `name: agents
networks: {private: 10.80.0.0/24}
hosts:
- {name: a1, run: [agent], zone: private, networks: {private: 10.80.0.11}}
- {name: a2, run: [agent], zone: private, networks: {private: 10.80.0.12}}
- {name: out, networks: {private: 10.80.0.99}}
state: ./state.d
`

// agentOptions writes the lab file with a state folder.
func agentOptions(t testing.TB) (o Options, state string) {
	t.Helper()
	dir := t.TempDir()
	state = filepath.Join(dir, "state.d")
	if err := os.Mkdir(state, 0o755); err != nil {
		t.Fatal(err)
	}
	o = Options{File: filepath.Join(dir, "lab.yaml"), AgentBinary: fakeAgentBinary(t), Wait: 5 * time.Second}
	if err := os.WriteFile(o.File, []byte(withAgents), 0o644); err != nil {
		t.Fatal(err)
	}
	return o, state
}

func TestAgentsAreReadyAfterUpAndSeeTheStateFolder(t *testing.T) {
	o, state := agentOptions(t)
	l, ctx := ForTest(t, "", o), t.Context()
	if s, err := l.Status(ctx); err != nil || s.Hosts[0].State != HostReady || s.Hosts[2].State != HostUp {
		t.Errorf("status: got %+v, %v", s, err)
	}
	response, err := l.AgentClient("a2").Get("http://agent/who")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); string(body) != "ready a2 /who\n" {
		t.Errorf("the agent's API: got %q", body)
	}
	if err := os.WriteFile(filepath.Join(state, "web.yaml"), []byte("kind: x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := output(t, l, "a1", "cat", "/etc/weir/state.d/web.yaml"); got != "kind: x\n" {
		t.Errorf("state folder: got %q", got)
	}
	if got := output(t, l, "a1", "cat", "/etc/resolv.conf"); got != "nameserver 169.254.53.53\nsearch weir.internal\n" {
		t.Errorf("resolv.conf: got %q", got)
	}
}

func TestAgentAloneIsKilledAndStarted(t *testing.T) {
	o, _ := agentOptions(t)
	l, ctx := ForTest(t, "", o), t.Context()
	state := func() string {
		s, err := l.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s.Hosts[0].State
	}
	if err := l.Detach(ctx, "a1", "task", "sleep", "60"); err != nil {
		t.Fatal(err)
	}
	if err := l.KillAgent(ctx, "a1"); err != nil {
		t.Fatal(err)
	}
	if got := state(); got != HostAgentDown || !l.detached("a1")[0].Running {
		t.Errorf("after the kill: %s, and the task must run", got)
	}
	if err := l.KillAgent(ctx, "a1"); err == nil {
		t.Error("a dead agent was killed")
	}
	if err := l.Start(ctx, "a1", 0); err != nil || state() != HostReady {
		t.Errorf("start: %v, %s", err, state())
	}
	if err := l.PowerOff(ctx, "a1"); err != nil || state() != HostOff {
		t.Errorf("power: %v, %s", err, state())
	}
	if err := l.Start(ctx, "a1", 0); err != nil || state() != HostReady {
		t.Errorf("start after a power loss: %v, %s", err, state())
	}
}

func TestUpFailsWithTheAgentsLastLinesAndLeavesNothing(t *testing.T) {
	NeedNetns(t)
	for file, want := range map[string]string{
		"ends":    "the agent of host a1 has ended; its last lines:\n  fake agent starts\n  fake agent was told to end",
		"unready": "the agent of host a1 is not ready after 2s (503 Service Unavailable: waiting for its state); its last lines:\n  fake agent starts",
	} {
		t.Run(file, func(t *testing.T) {
			o, state := agentOptions(t)
			o.Root, o.Wait = testRoot(t), 2*time.Second
			if err := os.WriteFile(filepath.Join(state, file), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := Up(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
			nothingLeft(t, o.Root)
		})
	}
}

func TestInterruptedUpLeavesNothing(t *testing.T) {
	NeedNetns(t)
	o, state := agentOptions(t)
	o.Root = testRoot(t)
	if err := os.WriteFile(filepath.Join(state, "unready"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := Up(ctx, o); err == nil {
		t.Error("up came to be without ready agents")
	}
	nothingLeft(t, o.Root)
}

func TestAgentDoesNotInheritTheCallersConfiguration(t *testing.T) {
	got := agentEnvironment([]string{"PATH=/bin", "WEIR_NODE_NAME=x", "NOTIFY_SOCKET=/run/n", "WATCHDOG_PID=1", "HOME=/root"})
	if strings.Join(got, " ") != "PATH=/bin HOME=/root" {
		t.Errorf("got %v", got)
	}
}

package executor_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/weirproject/weir/agent/executor"
	"github.com/weirproject/weir/agent/executor/fake"
	"github.com/weirproject/weir/api"
)

// node is a supervisor of fake tasks.
type node struct {
	*executor.Supervisor
	t    *testing.T
	dir  string
	fake *fake.Executor
	stop func()

	mu   sync.Mutex // guards what follows
	told []api.TaskStatus
}

func newNode(t *testing.T) *node {
	n := &node{t: t, dir: t.TempDir(), fake: &fake.Executor{}}
	n.start()
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) start() {
	s, err := executor.New(executor.Options{
		DataDir: n.dir + "/data", RunDir: n.dir + "/run", Executors: map[api.Runtime]executor.Executor{api.RuntimeProcess: n.fake},
		OnChange: func(s api.TaskStatus) { n.mu.Lock(); n.told = append(n.told, s); n.mu.Unlock() },
	})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = s.Run(ctx); close(done) }()
	n.Supervisor, n.stop = s, func() { cancel(); <-done }
}

func (n *node) await(what string, good func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !good(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("not %s: %+v", what, n.Statuses())
		}
	}
}

func (n *node) awaitState(id string, state api.TaskState) {
	n.t.Helper()
	n.await(id+" "+string(state), func() bool { s, err := n.Status(id); return err == nil && s.State == state })
}

func spec(id string) api.TaskSpec {
	return api.TaskSpec{ID: id, App: "/" + id, Runtime: api.RuntimeProcess, Command: "true"}
}

func TestEveryChangeIsToldInOrder(t *testing.T) {
	n := newNode(t)
	n.Set([]api.TaskSpec{spec("a")})
	n.awaitState("a", api.TaskRunning)
	n.fake.End("a", executor.Exit{})
	n.await("told", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.told) > 0 && n.told[len(n.told)-1].State == api.TaskFinished
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	var states []api.TaskState
	for _, s := range n.told {
		if len(states) == 0 || states[len(states)-1] != s.State {
			states = append(states, s.State)
		}
	}
	want := []api.TaskState{api.TaskStaging, api.TaskStarting, api.TaskRunning, api.TaskFinished}
	if len(states) != len(want) {
		t.Fatalf("told %v, want %v", states, want)
	}
	for i := range want {
		if states[i] != want[i] {
			t.Errorf("told %v, want %v", states, want)
		}
	}
}

func TestEndedTaskIsToldUntilNobodyWantsItAndNeverStartedAnew(t *testing.T) {
	n := newNode(t)
	n.Set([]api.TaskSpec{spec("a")})
	n.awaitState("a", api.TaskRunning)
	n.fake.End("a", executor.Exit{Code: 2})
	n.awaitState("a", api.TaskFailed)
	for range 3 {
		n.stop()
		n.start()
		n.Set([]api.TaskSpec{spec("a")})
		n.awaitState("a", api.TaskFailed)
	}
	if starts := n.fake.Starts("a"); starts != 1 {
		t.Errorf("started %d times", starts)
	}
	n.Set(nil)
	n.await("forgotten", func() bool { return len(n.Statuses()) == 0 })
	if _, err := n.Status("a"); !errors.Is(err, executor.ErrNotFound) {
		t.Errorf("status: %v", err)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "data/sandbox/a")); err != nil {
		t.Errorf("the sandbox has gone with its task: %v", err)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "data/tasks/a")); !os.IsNotExist(err) {
		t.Errorf("the record is left: %v", err)
	}
}

func TestNothingEndsBeforeTheFirstSnapshotIsThere(t *testing.T) {
	n := newNode(t)
	n.Set([]api.TaskSpec{spec("a"), spec("b")})
	n.awaitState("a", api.TaskRunning)
	n.awaitState("b", api.TaskRunning)
	n.stop()
	n.start()
	time.Sleep(50 * time.Millisecond)
	n.awaitState("a", api.TaskRunning)
	if _, ended := n.Set([]api.TaskSpec{spec("a")}); ended != 1 {
		t.Errorf("told %d tasks to end, want 1", ended)
	}
	n.await("b gone", func() bool { return len(n.Statuses()) == 1 })
	n.awaitState("a", api.TaskRunning)
}

func TestTaskIsKilledWhileItIsStaged(t *testing.T) {
	n := newNode(t)
	n.fake.Prepared = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	n.Set([]api.TaskSpec{spec("a")})
	n.awaitState("a", api.TaskStaging)
	if err := n.Kill("a", 0); err != nil {
		t.Fatal(err)
	}
	n.awaitState("a", api.TaskKilled)
	if n.fake.Starts("a") != 0 {
		t.Error("it was started")
	}
	if err := n.Kill("a", 0); !errors.Is(err, executor.ErrEnded) {
		t.Errorf("a second kill: %v", err)
	}
	if err := n.Kill("b", 0); !errors.Is(err, executor.ErrNotFound) {
		t.Errorf("kill of a stranger: %v", err)
	}
}

func TestAgentThatEndsWhileItStagesGoesOnLater(t *testing.T) {
	n := newNode(t)
	n.fake.Prepared = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	n.Set([]api.TaskSpec{spec("a")})
	n.awaitState("a", api.TaskStaging)
	n.stop()
	n.fake.Prepared = nil
	n.start()
	n.awaitState("a", api.TaskRunning)
}

func TestWhatANodeCannotRunFailsWithAReason(t *testing.T) {
	n := newNode(t)
	strange, path, gpu, net := spec("strange"), spec("../up"), spec("gpu"), spec("net")
	strange.Runtime, gpu.GPUs, net.Networks = "podman", 1, []api.TaskNetwork{{Name: "blue"}}
	n.Set([]api.TaskSpec{strange, path, gpu, net})
	for id, want := range map[string]string{
		"strange": `this node cannot run tasks of runtime "podman"`, "../up": `task id "../up" cannot name a folder`,
		"gpu": "gpus: this node gives none to tasks", "net": "this node has no networks of containers: the task can have the host's only",
	} {
		n.awaitState(id, api.TaskFailed)
		if s, _ := n.Status(id); s.Reason != want {
			t.Errorf("reason is %q, want %q", s.Reason, want)
		}
	}
}

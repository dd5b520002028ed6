package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/agent/executor"
	"github.com/weirproject/weir/agent/executor/fake"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// echo is a fake executor whose commands say their arguments, repeat their
// input, and end with 7.
type echo struct{ fake.Executor }

func (e *echo) Exec(_ context.Context, _ executor.Launch, c executor.Command) (int, error) {
	if c.Args[0] == "fail" {
		return 0, errors.New("there is no such program")
	}
	_, _ = c.Stdio[1].WriteString(strings.Join(c.Args, " ") + "\n")
	if !c.TTY {
		_, _ = io.Copy(c.Stdio[1], c.Stdio[0])
	}
	_, _ = c.Stdio[2].WriteString("oops\n")
	return 7, nil
}

// tasksNode serves the tasks' part of the local API.
func tasksNode(t *testing.T) (*tasksComponent, *client.Client) {
	t.Helper()
	dir := t.TempDir()
	s, err := executor.New(executor.Options{DataDir: dir, RunDir: dir, Executors: map[api.Runtime]executor.Executor{api.RuntimeProcess: &echo{}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = s.Run(ctx); close(done) }()
	c := &tasksComponent{agent: &Agent{config: Config{DataDir: dir}}, supervisor: s}
	mux := http.NewServeMux()
	c.routes(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(func() { server.Close(); cancel(); <-done })
	agent, err := client.New(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return c, agent
}

func awaitTask(t *testing.T, c *client.Client, id string, state api.TaskState) api.LocalTask {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		found, err := c.Task(t.Context(), id)
		if err == nil && found.Status.State == state {
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("task %s is not %s: %+v (%v)", id, state, found, err)
		}
	}
}

func TestTasksAreSeenAndKilledOverTheLocalAPI(t *testing.T) {
	tasks, c := tasksNode(t)
	spec := api.TaskSpec{ID: "shop_web.1", App: "/shop/web", Runtime: api.RuntimeProcess, Command: "serve", Env: map[string]string{"PASSWORD": "secret"}}
	changes, err := tasks.apply(t.Context(), &api.Snapshot{Run: []api.TaskSpec{spec}})
	if err != nil || changes.Written != 1 || tasks.detail() != "1 tasks" {
		t.Fatalf("apply: %+v %v %q", changes, err, tasks.detail())
	}
	found := awaitTask(t, c, spec.ID, api.TaskRunning)
	if found.Spec.Command != "serve" || found.Spec.Env != nil || !strings.HasSuffix(found.Sandbox, "/sandbox/shop_web.1") {
		t.Errorf("shown as %+v", found)
	}
	if all, err := c.Tasks(t.Context()); err != nil || len(all) != 1 || all[0].App != "/shop/web" {
		t.Errorf("listed %+v (%v)", all, err)
	}
	var problem *client.Problem
	if _, err := c.Task(t.Context(), "stranger"); !errors.As(err, &problem) || problem.Status != http.StatusNotFound {
		t.Errorf("a stranger: %v", err)
	}
	if _, err := c.KillTask(t.Context(), spec.ID, time.Second); err != nil {
		t.Fatal(err)
	}
	awaitTask(t, c, spec.ID, api.TaskKilled)
	if _, err := c.KillTask(t.Context(), spec.ID, -1); !errors.As(err, &problem) || problem.Status != http.StatusConflict {
		t.Errorf("a second kill: %v", err)
	}
}

func TestLogsAreStreamedOverTheLocalAPI(t *testing.T) {
	tasks, c := tasksNode(t)
	if _, err := tasks.apply(t.Context(), &api.Snapshot{Run: []api.TaskSpec{{ID: "a", Runtime: api.RuntimeProcess}}}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(awaitTask(t, c, "a", api.TaskRunning).Sandbox, "stdout")
	if err := os.WriteFile(path, []byte("first\nsecond\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := c.TaskLogs(t.Context(), "a", client.LogOptions{Stream: "stdout", Follow: true, Offset: -7})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	got := make([]byte, 7)
	if _, err := io.ReadFull(log, got); err != nil || string(got) != "second\n" {
		t.Fatalf("read %q (%v)", got, err)
	}
	if err := os.WriteFile(path, []byte("first\nsecond\nthird\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(log, got[:6]); err != nil || string(got[:6]) != "third\n" {
		t.Fatalf("read %q (%v)", got, err)
	}
	if _, err := c.KillTask(t.Context(), "a", 0); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(log); err != nil || len(rest) > 0 {
		t.Errorf("the log ends with %q (%v)", rest, err)
	}
	if _, err := c.TaskLogs(t.Context(), "a", client.LogOptions{Stream: "passwd"}); err == nil {
		t.Error("a stream of any name is read")
	}
}

func TestCommandsRunInTasksOverTheLocalAPI(t *testing.T) {
	tasks, c := tasksNode(t)
	if _, err := tasks.apply(t.Context(), &api.Snapshot{Run: []api.TaskSpec{{ID: "a", Runtime: api.RuntimeProcess}}}); err != nil {
		t.Fatal(err)
	}
	awaitTask(t, c, "a", api.TaskRunning)
	var out, faults bytes.Buffer
	code, err := c.ExecTask(t.Context(), "a", client.Exec{Args: []string{"say", "a b"}, Stdin: strings.NewReader(strings.Repeat("in", 100_000)), Stdout: &out, Stderr: &faults})
	if err != nil || code != 7 || out.String() != "say a b\n"+strings.Repeat("in", 100_000) || faults.String() != "oops\n" {
		t.Errorf("ended with %d (%v), said %.20q and %q", code, err, out.String(), faults.String())
	}
	out.Reset()
	code, err = c.ExecTask(t.Context(), "a", client.Exec{Args: []string{"say"}, TTY: true, Stdout: &out, Stderr: &faults})
	if err != nil || code != 7 || !strings.Contains(out.String(), "say\r\n") || !strings.Contains(out.String(), "oops\r\n") {
		t.Errorf("on a terminal it ended with %d (%v) and said %q", code, err, out.String())
	}
	if _, err := c.ExecTask(t.Context(), "a", client.Exec{Args: []string{"fail"}, Stdout: &out, Stderr: &faults}); err == nil || err.Error() != "there is no such program" {
		t.Errorf("got %v", err)
	}
	var problem *client.Problem
	if _, err := c.ExecTask(t.Context(), "b", client.Exec{Args: []string{"x"}}); !errors.As(err, &problem) || problem.Status != http.StatusNotFound {
		t.Errorf("a stranger: %v", err)
	}
}

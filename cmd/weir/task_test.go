package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// taskAgent is an agent with one task.
func taskAgent(t *testing.T) func(args ...string) (int, string, string) {
	t.Helper()
	yes, now := true, time.Now()
	task := api.LocalTask{
		Spec:    api.TaskSpec{ID: "web.1", App: "/web", Runtime: api.RuntimeProcess, Command: "serve", CPUs: 0.5, Memory: 128 << 20, Checks: []api.TaskCheck{{Kind: "http"}}},
		Status:  api.TaskStatus{ID: "web.1", App: "/web", State: api.TaskRunning, Since: now.Add(-time.Hour), Memory: 5 << 20, Healthy: &yes, PID: 42, Checks: []api.CheckStatus{{Healthy: true, Last: now}}},
		Sandbox: "/var/lib/weir/sandbox/web.1",
	}
	mux := http.NewServeMux()
	reply := func(value any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(value) }
	}
	mux.HandleFunc("GET /v1/tasks", reply([]api.TaskStatus{task.Status}))
	mux.HandleFunc("GET /v1/tasks/web.1", reply(task))
	mux.HandleFunc("POST /v1/tasks/web.1/kill", reply(task))
	mux.HandleFunc("GET /v1/tasks/web.1/logs", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s\n", r.FormValue("stream"), r.FormValue("follow"), r.FormValue("offset"))
	})
	mux.HandleFunc("POST /v1/tasks/web.1/exec", func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+client.ExecProtocol+"\r\n\r\n")
		out := client.NewFrameWriter(conn)
		_ = out.Write(client.FrameStdout, []byte(strings.Join(r.URL.Query()["arg"], "|")))
		_ = out.Write(client.FrameStderr, []byte("oops"))
		_ = out.Write(client.FrameExit, []byte(`{"code":143}`))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		c := &cli{stdout: &stdout, stderr: &stderr, getenv: func(string) string { return "" }, now: func() time.Time { return now }}
		code := c.run(context.Background(), append([]string{"--socket", server.URL, "task"}, args...))
		return code, stdout.String(), stderr.String()
	}
}

func TestTaskCommandsSpeakToTheAgent(t *testing.T) {
	weir := taskAgent(t)
	for _, test := range []struct {
		args string
		code int
		want []string
	}{
		{"list", 0, []string{"ID", "web.1", "running", "healthy", "1h0m ago", "5 MiB"}},
		{"show web.1", 0, []string{"runtime", "process", "serve", "5 MiB of 128 MiB", "/var/lib/weir/sandbox/web.1", "http, 0 failures"}},
		{"logs web.1 -f --stderr --lines 10", 0, []string{"stderr true -2000"}},
		{"kill web.1 --grace 3s", 0, []string{"web.1 is told to end"}},
		{"exec web.1 -- ls -l", 143, []string{"ls|-l"}},
		{"exec web.1", 2, nil},
		{"show stranger", 1, nil},
		{"frob", 2, nil},
	} {
		code, stdout, stderr := weir(strings.Fields(test.args)...)
		if code != test.code {
			t.Errorf("%s: exit status %d, want %d: %s", test.args, code, test.code, stderr)
		}
		for _, want := range test.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s: stdout lacks %q: %s", test.args, want, stdout)
			}
		}
	}
}

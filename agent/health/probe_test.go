package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// try makes one check with a time-out.
func try(t *testing.T, backend string, timeout time.Duration, check api.HealthCheck) error {
	t.Helper()
	return within(t.Context(), timeout, (&prober{}).probe(Target{Backend: netip.MustParseAddrPort(backend), Check: check}))
}

func TestHTTPPassesFrom200To399(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		w.Header().Set("Location", "/500")
		w.WriteHeader(status)
	}))
	defer server.Close()
	for status, want := range map[int]bool{200: true, 204: true, 301: true, 399: true, 400: false, 404: false, 500: false, 503: false} {
		err := try(t, server.Listener.Addr().String(), time.Second, api.HealthCheck{HTTP: &api.HTTPCheck{Path: fmt.Sprintf("/%d", status)}})
		if (err == nil) != want {
			t.Errorf("status %d: got %v, want passed to be %v", status, err, want)
		}
	}
}

func TestHTTPAsksTheBackendItself(t *testing.T) {
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = fmt.Sprintf("%s %s %s close=%v", r.Method, r.URL, r.Host, r.Close)
	}))
	defer server.Close()
	port := netip.MustParseAddrPort(server.Listener.Addr().String()).Port()
	err := try(t, "127.0.0.1:1", time.Second, api.HealthCheck{HTTP: &api.HTTPCheck{Path: "/healthz?full=1", Port: port, Host: "web.example"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := "GET /healthz?full=1 web.example close=true"; got != want {
		t.Errorf("the backend was asked %q, want %q", got, want)
	}
}

func TestHTTPHoldsItsTimeout(t *testing.T) {
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-done }))
	defer server.Close()
	defer close(done)
	start := time.Now()
	err := try(t, server.Listener.Addr().String(), 60*time.Millisecond, api.HealthCheck{HTTP: &api.HTTPCheck{}})
	if err == nil || err.Error() != "no answer within 60ms" {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %s", took)
	}
}

func TestHTTPReadsNoEndlessBody(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := io.WriteString(w, strings.Repeat("x", 4096)); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	if err := try(t, server.Listener.Addr().String(), 5*time.Second, api.HealthCheck{HTTP: &api.HTTPCheck{}}); err != nil {
		t.Error(err)
	}
}

func TestTCPLeavesNothingInTimeWait(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	reset := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			reset <- err
			return
		}
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
		reset <- err
	}()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	if err := try(t, "127.0.0.1:1", time.Second, api.HealthCheck{TCP: &api.TCPCheck{Port: port}}); err != nil {
		t.Fatal(err)
	}
	if err := <-reset; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server's end: got %v, want a reset", err)
	}
}

func shell(script string) api.HealthCheck {
	return api.HealthCheck{Exec: &api.ExecCheck{Command: []string{"sh", "-c", script}}}
}

func TestExecHasASmallEnvironment(t *testing.T) {
	t.Setenv("SECRET", "x")
	script := `test "$WEIR_BACKEND_ADDRESS,$WEIR_BACKEND_PORT,$PWD,$SECRET" = fd00::1,8080,/, && test -n "$PATH" && test ! -t 0`
	if err := try(t, "[fd00::1]:8080", time.Second, shell(script)); err != nil {
		t.Error(err)
	}
}

func TestExecTellsWhyItFailed(t *testing.T) {
	err := try(t, "127.0.0.1:1", time.Second, shell("echo no quorum >&2; echo more; exit 3"))
	if err == nil || err.Error() != "sh: exit status 3: no quorum" {
		t.Errorf("got %v", err)
	}
	err = try(t, "127.0.0.1:1", 5*time.Second, shell("head -c 3000000 /dev/zero | tr '\\0' x; exit 1"))
	if err == nil || len(err.Error()) > 250 {
		t.Errorf("a long line: got %d bytes, want at most 250", len(fmt.Sprint(err)))
	}
	err = try(t, "127.0.0.1:1", time.Second, api.HealthCheck{Exec: &api.ExecCheck{Command: []string{"/nonexistent/check"}}})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing command: got %v", err)
	}
}

// alive tells whether the process whose id is in the file runs.
func alive(t *testing.T, path string) bool {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(state), ") Z ")
}

func TestExecIsKilledWithItsChildrenAtTheTimeout(t *testing.T) {
	child := filepath.Join(t.TempDir(), "child")
	start := time.Now()
	err := try(t, "127.0.0.1:1", 200*time.Millisecond, shell("sleep 30 & echo $! > "+child+"; wait"))
	if err == nil || err.Error() != "no answer within 200ms" {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
	for deadline := time.Now().Add(2 * time.Second); alive(t, child); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the child outlived its check")
		}
	}
}

func TestExecDoesNotWaitForAChildThatKeepsItsOutput(t *testing.T) {
	start := time.Now()
	if err := try(t, "127.0.0.1:1", 5*time.Second, shell("sleep 1.5 & exit 0")); err != nil {
		t.Errorf("got %v, want passed", err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %s", took)
	}
}

func TestAProbeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	probe := (&prober{}).probe(Target{Backend: netip.MustParseAddrPort("127.0.0.1:1"), Check: shell("sleep 30")})
	start := time.Now()
	if err := within(ctx, time.Minute, probe); err == nil {
		t.Error("a killed command passed")
	}
	if took := time.Since(start); took > 900*time.Millisecond {
		t.Errorf("took %s", took)
	}
}

// Package e2e tests Weir end to end: real agents and real traffic in a lab,
// through the commands that people use.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/testenv"
)

const commandTimeout = 60 * time.Second

// binDir is where the commands are: WEIR_BIN, or built for this run.
var binDir string

func TestMain(m *testing.M) {
	binDir = os.Getenv("WEIR_BIN")
	if binDir == "" && os.Geteuid() == 0 {
		dir, err := os.MkdirTemp("", "weir-e2e-bin-")
		if err != nil {
			panic(err)
		}
		build := exec.Command("go", "build", "-o", dir, "../../cmd/...")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the commands: %v\n%s", err, out)
			os.Exit(1)
		}
		binDir = dir
		code := m.Run()
		os.RemoveAll(dir)
		os.Exit(code)
	}
	os.Exit(m.Run())
}

const labFile = `name: %s
networks: {private: 10.80.0.0/24, public: 203.0.113.0/24}
hosts:
- {name: a1, run: [agent], zone: private, networks: {private: 10.80.0.11}}
- {name: a2, run: [agent], zone: private, networks: {private: 10.80.0.12}}
- {name: p1, run: [agent], zone: public,  networks: {private: 10.80.0.31, public: 203.0.113.31}}
- {name: outsider, networks: {private: 10.80.0.99, public: 203.0.113.99}}
state: ./state.d
`

const services = `kind: service
name: web
namespace: shop
vips: ["198.18.0.10:80", "web:80"]
backends:
- {address: "10.80.0.11:8080", node: a1}
- {address: "10.80.0.12:8080", node: a2}
health: {http: {path: /healthz}, interval: 100ms, timeout: 500ms, failures: 2}
`

const policy = `kind: policy
zones:
  private: {nodes: {role: agent}}
  public:  {nodes: {role: public}}
rules:
- {name: edge,  from: [any], to: [public], allow: [tcp/80]}
- {name: inner, from: [public, private], to: [private], allow: [any]}
tests:
- {from: 203.0.113.99, to: private, port: tcp/8080, expect: deny}
`

// lab is a lab that is up for one test.
type lab struct {
	t        *testing.T
	name     string
	stateDir string
}

// up brings a lab up with the state files, and takes it away after the test.
func up(t *testing.T, state map[string]string) *lab {
	t.Helper()
	return upFrom(t, labFile, state)
}

// upFrom does the same with another lab; %s in it is the lab's name.
func upFrom(t *testing.T, labFile string, state map[string]string) *lab {
	t.Helper()
	testenv.NeedNetns(t)
	testenv.NeedBPF(t)
	dir := t.TempDir()
	l := &lab{t: t, name: fmt.Sprintf("e2e-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6), stateDir: filepath.Join(dir, "state.d")}
	if err := os.Mkdir(l.stateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range state {
		l.write(name, text)
	}
	file := filepath.Join(dir, "lab.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, labFile, l.name), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := run("weir-lab", "down", l.name); err != nil {
			t.Errorf("weir-lab down: %v\n%s", err, out)
		}
	})
	if out, err := run("weir-lab", "up", "-f", file, "--wait", "30s"); err != nil {
		t.Fatalf("weir-lab up: %v\n%s", err, out)
	}
	return l
}

// web is a lab with the service, its servers and the policy; the service's
// backends are up.
func web(t *testing.T) *lab {
	t.Helper()
	l := up(t, map[string]string{"services.yaml": services, "policy.yaml": policy})
	for i, host := range []string{"a1", "a2"} {
		l.must(host, "--detach", "web", "--", "weir-lab", "serve", "http", fmt.Sprintf("10.80.0.1%d:8080", i+1), "--name", host)
	}
	for _, host := range []string{"a1", "a2", "p1"} {
		l.eventually(5*time.Second, func() error { return l.backends(host, api.Up, 2) })
	}
	return l
}

func run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, name), args...)
	cmd.Env = append(os.Environ(), "PATH="+binDir+":"+os.Getenv("PATH"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// exec runs a command on a host; the arguments are those of weir-lab exec.
func (l *lab) exec(host string, args ...string) (string, error) {
	return run("weir-lab", append([]string{"exec", "--lab", l.name, host}, args...)...)
}

func (l *lab) must(host string, args ...string) string {
	l.t.Helper()
	out, err := l.exec(host, args...)
	if err != nil {
		l.t.Fatalf("on %s: %s: %v\n%s", host, strings.Join(args, " "), err, out)
	}
	return out
}

func (l *lab) curl(host, url string) (string, error) {
	return l.exec(host, "--", "curl", "-sS", "--max-time", "2", url)
}

func (l *lab) write(name, text string) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.stateDir, name), []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// backends tells whether the host's service has so many backends in the state.
func (l *lab) backends(host string, state api.BackendState, want int) error {
	out, err := l.exec(host, "--", "weir", "vip", "show", "web.shop", "-o", "json")
	if err != nil {
		return fmt.Errorf("weir vip show: %w: %s", err, out)
	}
	var v api.VIPStatus
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	got := 0
	for _, b := range v.Backends {
		if b.State == state {
			got++
		}
	}
	if got != want {
		return fmt.Errorf("on %s %d backends are %s, want %d: %+v", host, got, state, want, v.Backends)
	}
	return nil
}

func (l *lab) status(host string) api.Status {
	l.t.Helper()
	out, err := l.exec(host, "--", "weir", "status", "-o", "json")
	var s api.Status
	// A degraded node's status is followed by a word on stderr.
	if jsonErr := json.NewDecoder(strings.NewReader(out)).Decode(&s); jsonErr != nil {
		l.t.Fatalf("weir status: %v: %v\n%s", jsonErr, err, out)
	}
	return s
}

func (l *lab) eventually(within time.Duration, try func() error) {
	l.t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("not within %s: %v", within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

package process_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/agent/executor"
	"github.com/weirproject/weir/agent/executor/cgroup"
	"github.com/weirproject/weir/agent/executor/process"
	"github.com/weirproject/weir/agent/executor/shim"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/testenv"
)

// TestMain lets the test be its own shim, and a supervisor that can be killed.
func TestMain(m *testing.M) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case shim.Command:
			fail(shim.Run(os.Args[2]))
		case shim.InitCommand:
			fail(shim.Init())
		case "supervise":
			fail(supervise(os.Args[2], os.Args[3]))
		}
	}
	os.Exit(m.Run())
}

// node is a supervisor in a temporary folder.
type node struct {
	*executor.Supervisor
	t      *testing.T
	dir    string
	parent string
	stop   func()
}

func options(dir, parent string) executor.Options {
	return executor.Options{
		DataDir: dir + "/data", RunDir: dir + "/run", Host: func() string { return "127.0.0.1" }, DiskEvery: 50 * time.Millisecond,
		Executors: map[api.Runtime]executor.Executor{api.RuntimeProcess: process.New(process.Options{Parent: parent, MaxPIDs: 200})},
	}
}

func newNode(t *testing.T, change func(*executor.Options)) *node {
	t.Helper()
	testenv.NeedRoot(t)
	n := &node{t: t, dir: t.TempDir(), parent: fmt.Sprintf("weir-test-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)}
	for _, dir := range []string{n.dir, filepath.Dir(n.dir)} { // other users go through
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(n.clean)
	n.start(change)
	return n
}

func (n *node) start(change func(*executor.Options)) {
	o := options(n.dir, n.parent)
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if change != nil {
		change(&o)
	}
	var err error
	if n.Supervisor, err = executor.New(o); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = n.Run(ctx); close(done) }()
	n.stop = func() { cancel(); <-done }
}

// clean ends every task and takes the cgroups away, whatever happened.
func (n *node) clean() {
	if n.stop != nil {
		n.Set(nil)
		deadline := time.Now().Add(20 * time.Second)
		for len(n.Statuses()) > 0 && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		n.stop()
	}
	g, err := cgroup.Find("", n.parent, "")
	if err != nil {
		n.t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.Kill(ctx); err != nil {
		n.t.Error(err)
	}
	for i := 0; g.Remove() != nil && i < 100; i++ {
		time.Sleep(20 * time.Millisecond)
	}
	if err := g.Remove(); err != nil {
		n.t.Error(err)
	}
}

func (n *node) await(id string, what string, good func(api.TaskStatus) bool) api.TaskStatus {
	n.t.Helper()
	var s api.TaskStatus
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var err error
		if s, err = n.Status(id); err == nil && good(s) {
			return s
		}
	}
	n.t.Fatalf("task %s is not %s: %+v", id, what, s)
	return s
}

func (n *node) awaitState(id string, state api.TaskState) api.TaskStatus {
	n.t.Helper()
	return n.await(id, string(state), func(s api.TaskStatus) bool { return s.State == state })
}

func (n *node) output(id, stream string) string {
	n.t.Helper()
	r, err := n.Logs(context.Background(), id, stream, false, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Close()
	text, _ := io.ReadAll(r)
	return string(text)
}

func shell(id, command string) api.TaskSpec {
	return api.TaskSpec{ID: id, App: "/" + id, Runtime: api.RuntimeProcess, Command: command, CPUs: 0.1, Memory: 256 << 20, Grace: api.Duration(3 * time.Second)}
}

func TestTaskRunsWithItsEnvironmentAndEnds(t *testing.T) {
	n := newNode(t, nil)
	spec := shell("web.1", `echo "$HOST $PORT $PORT0 $PORT_HTTP $PORTS $MESOS_TASK_ID $GREETING"; pwd; echo oops >&2; exit 3`)
	spec.Ports = []api.TaskPort{{Name: "http", HostPort: 31000}}
	spec.Env = map[string]string{"GREETING": "hello"}
	n.Set([]api.TaskSpec{spec})
	s := n.awaitState("web.1", api.TaskFailed)
	if s.ExitCode != 3 || s.Reason != "ended with exit code 3" {
		t.Errorf("got %+v, want exit code 3", s)
	}
	want := "127.0.0.1 31000 31000 31000 31000 web.1 hello\n" + n.dir + "/data/sandbox/web.1\n"
	if got := n.output("web.1", "stdout"); got != want {
		t.Errorf("stdout is %q, want %q", got, want)
	}
	if got := n.output("web.1", "stderr"); got != "oops\n" {
		t.Errorf("stderr is %q, want oops", got)
	}
	n.Set([]api.TaskSpec{spec, shell("ok", "true")})
	n.awaitState("ok", api.TaskFinished)
}

func TestTaskRunsAsItsUserInASessionOfItsOwn(t *testing.T) {
	n := newNode(t, nil)
	spec := shell("user", "id -u; id -g; touch mine && echo written; ps -o sid= -p $$ | tr -d ' '; echo $$")
	spec.User = "nobody"
	n.Set([]api.TaskSpec{spec})
	n.awaitState("user", api.TaskFinished)
	lines := strings.Fields(n.output("user", "stdout"))
	if len(lines) != 5 || lines[0] != "65534" || lines[1] != "65534" || lines[2] != "written" || lines[3] != lines[4] {
		t.Errorf("got %q", lines)
	}
	spec = shell("nouser", "true")
	spec.User = "nobody-of-this-name"
	n.Set([]api.TaskSpec{spec})
	if s := n.awaitState("nouser", api.TaskFailed); !strings.Contains(s.Reason, "nobody-of-this-name") {
		t.Errorf("reason %q does not name the user", s.Reason)
	}
}

func TestForksAndDoubleForksEndWithTheirTask(t *testing.T) {
	n := newNode(t, nil)
	n.Set([]api.TaskSpec{shell("forks", `sleep 1000 & (setsid sh -c 'sleep 1001 & sleep 1002' &) ; echo $! > pid; sleep 0.2; exit 0`)})
	n.awaitState("forks", api.TaskFinished)
	g, err := cgroup.Find("", n.parent, "forks")
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := g.PIDs(); err != nil || len(pids) > 0 {
		t.Errorf("processes %v are left (%v)", pids, err)
	}
	for _, d := range g.Dirs() {
		if _, err := os.Stat(d); !os.IsNotExist(err) {
			t.Errorf("cgroup %s is left", d)
		}
	}
}

func TestTaskThatIgnoresSIGTERMIsKilledAfterItsGrace(t *testing.T) {
	n := newNode(t, nil)
	spec := shell("stubborn", `trap '' TERM; echo ready; while :; do sleep 0.05; done`)
	spec.Grace = api.Duration(300 * time.Millisecond)
	n.Set([]api.TaskSpec{spec})
	n.awaitState("stubborn", api.TaskRunning)
	for n.output("stubborn", "stdout") != "ready\n" {
		time.Sleep(5 * time.Millisecond)
	}
	spec.Kill = true
	begin := time.Now()
	n.Set([]api.TaskSpec{spec})
	s := n.awaitState("stubborn", api.TaskKilled)
	if s.Signal != int(unix.SIGKILL) || time.Since(begin) < spec.Grace.Std() {
		t.Errorf("got signal %d after %s", s.Signal, time.Since(begin))
	}
}

func TestServerBehindAShellHasItsGraceToo(t *testing.T) {
	n := newNode(t, nil)
	spec := shell("behind", `sh -c 'trap "sleep 0.3; echo drained; exit 0" TERM; echo ready; while :; do sleep 0.05; done' & wait; :`)
	n.Set([]api.TaskSpec{spec})
	n.awaitState("behind", api.TaskRunning)
	for n.output("behind", "stdout") != "ready\n" {
		time.Sleep(5 * time.Millisecond)
	}
	if err := n.Kill("behind", -1); err != nil {
		t.Fatal(err)
	}
	n.awaitState("behind", api.TaskKilled)
	if got := n.output("behind", "stdout"); got != "ready\ndrained\n" {
		t.Errorf("stdout is %q", got)
	}
}

func TestTaskThatEatsItsMemoryIsToldSo(t *testing.T) {
	n := newNode(t, nil)
	spec := shell("hungry", `tail /dev/zero`)
	spec.Memory = 48 << 20
	n.Set([]api.TaskSpec{spec})
	s := n.awaitState("hungry", api.TaskFailed)
	if s.Reason != "killed by the kernel: out of memory (48 MiB)" {
		t.Errorf("reason is %q", s.Reason)
	}
}

func TestTaskThatFillsItsDiskIsToldSo(t *testing.T) {
	n := newNode(t, nil)
	spec := shell("filler", `for i in $(seq 20); do head -c 2000000 /dev/zero > f$i; sleep 0.1; done; sleep 1000`)
	spec.Disk = 8 << 20
	n.Set([]api.TaskSpec{spec})
	s := n.awaitState("filler", api.TaskFailed)
	if !strings.HasPrefix(s.Reason, "killed: its files take") || !strings.HasSuffix(s.Reason, "may have 8 MiB") {
		t.Errorf("reason is %q", s.Reason)
	}
}

func TestForkBombStaysBelowItsLimit(t *testing.T) {
	n := newNode(t, nil)
	n.Set([]api.TaskSpec{shell("bomb", `i=0; while [ $i -lt 400 ]; do sleep 1000 & i=$((i+1)); done; sleep 1000`)})
	s := n.await("bomb", "ended or at its limit", func(s api.TaskStatus) bool {
		g, err := cgroup.Find("", n.parent, "bomb")
		if err != nil {
			t.Fatal(err)
		}
		pids, _ := g.PIDs()
		if len(pids) > 200 {
			t.Fatalf("%d processes, want 200 at most", len(pids))
		}
		return s.State.Ended() || len(pids) > 190
	})
	if !s.State.Ended() {
		if err := n.Kill("bomb", 0); err != nil {
			t.Fatal(err)
		}
	}
	n.await("bomb", "ended", func(s api.TaskStatus) bool { return s.State.Ended() })
}

func TestTaskWithANamespaceHasItsOwnNames(t *testing.T) {
	networks := &networks{}
	n := newNode(t, func(o *executor.Options) {
		o.Networks = networks
		o.ResolvConf = func() []byte { return []byte("nameserver 169.254.53.53\nsearch weir.internal\n") }
	})
	spec := shell("inside.1", `hostname; cat /etc/resolv.conf; grep 10.9.9.9 /etc/hosts; readlink /proc/self/ns/net; sleep 1000`)
	spec.Networks = []api.TaskNetwork{{Name: "blue"}}
	n.Set([]api.TaskSpec{spec})
	s := n.awaitState("inside.1", api.TaskRunning)
	if len(s.Addresses) != 1 || s.Addresses[0] != netip.MustParseAddr("10.9.9.9") {
		t.Errorf("addresses are %v", s.Addresses)
	}
	own, _ := os.Readlink("/proc/thread-self/ns/net")
	want := "inside-1\nnameserver 169.254.53.53\nsearch weir.internal\n10.9.9.9 inside-1\nnet:["
	n.await("inside.1", "speaking", func(api.TaskStatus) bool { return strings.Contains(n.output("inside.1", "stdout"), "net:[") })
	if got := n.output("inside.1", "stdout"); !strings.HasPrefix(got, want) || strings.Contains(got, own) {
		t.Errorf("stdout is %q, want %q and another namespace than %s", got, want, own)
	}
	var out strings.Builder
	if code := n.exec(&out, "inside.1", "hostname; readlink /proc/self/ns/net; exit 7"); code != 7 || !strings.HasPrefix(out.String(), "inside-1\nnet:[") || strings.Contains(out.String(), own) {
		t.Errorf("exec ended with %d and said %q", code, out.String())
	}
	n.Set(nil)
	for deadline := time.Now().Add(20 * time.Second); len(n.Statuses()) > 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if _, err := os.Stat(n.dir + "/run/netns/inside.1"); !os.IsNotExist(err) {
		t.Errorf("the namespace is left: %v", err)
	}
	if networks.detached != "inside.1" {
		t.Errorf("detached %q", networks.detached)
	}
}

type networks struct{ detached string }

func (n *networks) Attach(context.Context, string, string, []api.TaskNetwork, []api.TaskPort) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("10.9.9.9")}, nil
}

func (n *networks) Detach(_ context.Context, id string) error { n.detached = id; return nil }

func (n *node) exec(out io.Writer, id, command string) int {
	n.t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		n.t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		n.t.Fatal(err)
	}
	defer null.Close()
	copied := make(chan struct{})
	go func() { _, _ = io.Copy(out, read); close(copied) }()
	code, err := n.Exec(context.Background(), id, executor.Command{Args: []string{"/bin/sh", "-c", command}, Stdio: [3]*os.File{null, write, write}})
	write.Close()
	<-copied
	read.Close()
	if err != nil {
		n.t.Fatal(err)
	}
	return code
}

func TestChecksDecideOnHealth(t *testing.T) {
	status := make(chan int, 1)
	status <- 503
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		code := <-status
		status <- code
		w.WriteHeader(code)
	}))
	defer server.Close()
	port := uint16(server.Listener.Addr().(*net.TCPAddr).Port)
	n := newNode(t, nil)
	spec := shell("checked", "touch good; sleep 1000")
	fast := api.TaskCheck{Interval: api.Duration(20 * time.Millisecond), Timeout: api.Duration(5 * time.Second), Grace: api.Duration(time.Hour)}
	web, command := fast, fast
	web.Kind, web.Port, web.Path, web.Failures = "http", port, "/", 3
	command.Kind, command.Command = "command", "test -e good || { echo not good; false; }"
	ready := web
	ready.Codes = []int{204}
	spec.Checks, spec.Ready = []api.TaskCheck{web, command}, &ready
	n.Set([]api.TaskSpec{spec})
	s := n.await("checked", "failing within its grace", func(s api.TaskStatus) bool {
		return len(s.Checks) == 2 && s.Checks[0].Output != "" && s.Checks[1].Healthy && s.Ready != nil
	})
	if s.Healthy != nil || s.Checks[0].Failures != 0 || *s.Ready {
		t.Errorf("failures within the grace count: %+v", s)
	}
	<-status
	status <- 204
	n.await("checked", "healthy", func(s api.TaskStatus) bool { return s.Healthy != nil && *s.Healthy && *s.Ready })
	if err := os.Remove(n.dir + "/data/sandbox/checked/good"); err != nil {
		t.Fatal(err)
	}
	s = n.await("checked", "not healthy", func(s api.TaskStatus) bool { return s.Healthy != nil && !*s.Healthy })
	if s.Checks[1].Output != "exit code 1: not good" || s.State != api.TaskRunning {
		t.Errorf("got %+v; a check without failures never kills", s)
	}
	<-status
	status <- 500
	s = n.awaitState("checked", api.TaskFailed)
	if !strings.HasPrefix(s.Reason, "killed: its health check failed 3 times in a row: GET / answered 500") {
		t.Errorf("reason is %q", s.Reason)
	}
}

// supervise is a supervisor in a process of its own, until it is killed.
func supervise(dir, parent string) error {
	s, err := executor.New(options(dir, parent))
	if err != nil {
		return err
	}
	var specs []api.TaskSpec
	if err := shim.ReadFile(filepath.Join(dir, "specs.json"), &specs); err != nil {
		return err
	}
	go func() {
		s.Set(specs)
		for {
			_ = shim.WriteFile(filepath.Join(dir, "statuses.json"), s.Statuses())
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return s.Run(context.Background())
}

func TestTasksSurviveThatTheirAgentIsKilledAgainAndAgain(t *testing.T) {
	n := newNode(t, nil)
	n.stop() // the supervisors are other processes
	tasks, kills := 10, 20
	if os.Getenv("WEIR_TEST_LONG") != "" {
		tasks, kills = 50, 100
	}
	var specs []api.TaskSpec
	for i := range tasks {
		specs = append(specs, shell(fmt.Sprintf("task.%d", i), `echo $$ >> starts; exec sleep 1000`))
	}
	if err := shim.WriteFile(filepath.Join(n.dir, "specs.json"), specs); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i := range kills {
		cmd := exec.Command(self, "supervise", n.dir, n.parent)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(10+i*7%150) * time.Millisecond) // any line
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	n.start(nil)
	n.Set(specs)
	for _, spec := range specs {
		s := n.awaitState(spec.ID, api.TaskRunning)
		var text []byte
		n.await(spec.ID, "written down", func(api.TaskStatus) bool {
			text, _ = os.ReadFile(filepath.Join(n.dir, "data/sandbox", spec.ID, "starts"))
			return len(text) > 0
		})
		if starts := strings.Fields(string(text)); len(starts) != 1 || starts[0] != fmt.Sprint(s.PID) {
			t.Errorf("task %s has pid %d and was started as %v", spec.ID, s.PID, starts)
		}
	}
}

func TestTaskThatEndsWhileNoAgentRunsIsToldLater(t *testing.T) {
	n := newNode(t, nil)
	spec := shell("later", "while [ ! -e end ]; do sleep 0.02; done; exit 4")
	n.Set([]api.TaskSpec{spec})
	n.awaitState("later", api.TaskRunning)
	n.stop()
	if err := os.WriteFile(n.dir+"/data/sandbox/later/end", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	n.start(nil)
	if s := n.awaitState("later", api.TaskFailed); s.ExitCode != 4 {
		t.Errorf("got %+v, want exit code 4", s)
	}
}

func TestTaskWhoseShimIsKilledFailsAndLeavesNothing(t *testing.T) {
	n := newNode(t, nil)
	n.Set([]api.TaskSpec{shell("orphan", "sleep 1000 & sleep 1000")})
	s := n.awaitState("orphan", api.TaskRunning)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID))
	if err != nil {
		t.Fatal(err)
	}
	var parent int
	if _, err := fmt.Sscan(strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[1], &parent); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(parent, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := n.awaitState("orphan", api.TaskFailed); s.Reason != "its shim was killed" {
		t.Errorf("reason is %q", s.Reason)
	}
	g, _ := cgroup.Find("", n.parent, "orphan")
	if pids, _ := g.PIDs(); len(pids) > 0 {
		t.Errorf("processes %v are left", pids)
	}
}

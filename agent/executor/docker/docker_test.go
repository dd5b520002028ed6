package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/agent/executor"
	"github.com/weirproject/weir/agent/executor/cgroup"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/testenv"
)

const testImage = "weir.test/tool:v1"

// engine starts a Docker Engine in namespaces of its own, with nothing but
// temporary folders, and loads the test's image.
func engine(t *testing.T) string {
	t.Helper()
	testenv.NeedRoot(t)
	if _, err := exec.LookPath("dockerd"); err != nil {
		if strings.Contains(os.Getenv(testenv.RequireVariable), "docker") {
			t.Fatalf("needs dockerd, and %s requires it", testenv.RequireVariable)
		}
		t.Skip("needs dockerd")
	}
	dir, err := os.MkdirTemp("", "weir-d") // short, for the sockets in it
	if err != nil {
		t.Fatal(err)
	}
	socket := dir + "/docker.sock"
	cmd := exec.Command("dockerd", "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "--host", "unix://"+socket,
		"--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", "/weir-docker-test")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS, Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		timer := time.AfterFunc(20*time.Second, func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })
		_ = cmd.Wait()
		timer.Stop()
		if t.Failed() && testing.Verbose() {
			t.Log(log.String())
		}
		os.RemoveAll(dir)
	})
	c, err := client.New(client.WithHost("unix://" + socket))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err = c.Ping(context.Background(), client.PingOptions{}); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the engine does not answer: %v\n%s", err, log.String())
		}
	}
	load(t, c)
	return socket
}

func load(t *testing.T, c *client.Client) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tool")
	build := exec.Command("go", "build", "-o", path, "../container/testdata/tool")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tool: %v: %s", err, out)
	}
	tool, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "tool", Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(tool))})
	_, _ = w.Write(tool)
	_ = w.WriteHeader(&tar.Header{Name: "tmp", Mode: 0o777, Typeflag: tar.TypeDir})
	_ = w.Close()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	i, err := mutate.AppendLayers(empty.Image, layer)
	if err == nil {
		i, err = mutate.Config(i, v1.Config{Entrypoint: []string{"/tool"}, Cmd: []string{"id"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(testImage)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := tarball.Write(ref, i, &archive); err != nil {
		t.Fatal(err)
	}
	loaded, err := c.ImageLoad(context.Background(), &archive)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, loaded)
	loaded.Close()
}

type node struct {
	*executor.Supervisor
	t                   *testing.T
	dir, parent, socket string
	stop                func()
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, socket: engine(t), dir: t.TempDir(), parent: fmt.Sprintf("weir-test-d%d", os.Getpid())}
	n.start()
	t.Cleanup(n.clean)
	return n
}

func (n *node) start() {
	x, err := New(Options{Socket: n.socket, Node: "a1", Parent: n.parent, MaxPIDs: 100})
	if err != nil {
		n.t.Fatal(err)
	}
	o := executor.Options{DataDir: n.dir + "/data", RunDir: n.dir + "/run", Networks: networks{}, Executors: map[api.Runtime]executor.Executor{api.RuntimeDocker: x}}
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if n.Supervisor, err = executor.New(o); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = n.Run(ctx); close(done) }()
	n.stop = func() { cancel(); <-done }
}

func (n *node) clean() {
	n.Set(nil)
	for deadline := time.Now().Add(30 * time.Second); len(n.Statuses()) > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	n.stop()
	if g, err := cgroup.Find("", n.parent, ""); err == nil {
		for i := 0; g.Remove() != nil && i < 100; i++ {
			time.Sleep(20 * time.Millisecond)
		}
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*/" + n.parent) // of hierarchies that we have no limits in
	for _, d := range left {
		if err := os.Remove(d); err != nil {
			n.t.Errorf("cgroup is left: %v", err)
		}
	}
}

type networks struct{}

func (networks) Attach(_ context.Context, _, netns string, _ []api.TaskNetwork, _ []api.TaskPort) ([]netip.Addr, error) {
	if _, err := os.Stat(netns); err != nil {
		return nil, err
	}
	return []netip.Addr{netip.MustParseAddr("10.9.9.9")}, nil
}
func (networks) Detach(context.Context, string) error { return nil }

func (n *node) await(id string, state api.TaskState) api.TaskStatus {
	n.t.Helper()
	var s api.TaskStatus
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var err error
		if s, err = n.Status(id); err == nil && (s.State == state || s.State.Ended()) {
			break
		}
	}
	if s.State != state {
		n.t.Fatalf("task %s is not %s: %+v\n%s", id, state, s, n.output(id))
	}
	return s
}

func (n *node) output(id string) string {
	r, err := n.Logs(context.Background(), id, "stdout", false, 0)
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	text, _ := io.ReadAll(r)
	return string(text)
}

func spec(id string, args ...string) api.TaskSpec {
	return api.TaskSpec{
		ID: id, App: "/" + id, Runtime: api.RuntimeDocker, Args: args, CPUs: 0.1, Memory: 128 << 20, Grace: api.Duration(5 * time.Second),
		Container: &api.ContainerSpec{Image: testImage},
	}
}

// One engine serves all parts, for its start takes seconds.
func TestTasksRunByTheDockerEngine(t *testing.T) {
	n := newNode(t)
	short, long, hungry, refused, missing := spec("short", "id", "env=COLOUR", "write=/mnt/mesos/sandbox/out", "fail"), spec("long", "wait"), spec("hungry", "eat"), spec("refused"), spec("missing")
	short.Env = map[string]string{"COLOUR": "blue"}
	short.Container.Parameters = []api.DockerParam{{Key: "hostname", Value: "given"}}
	long.Networks = []api.TaskNetwork{{Name: "blue"}}
	hungry.Memory = 64 << 20
	refused.Container.Parameters = []api.DockerParam{{Key: "restart", Value: "always"}}
	missing.Container = &api.ContainerSpec{Image: "127.0.0.1:1/no/such:image"}
	specs := []api.TaskSpec{short, long, hungry, refused, missing}
	n.Set(specs)

	if s := n.await("short", api.TaskFailed); s.ExitCode != 9 {
		t.Errorf("got %+v, want exit code 9", s)
	}
	if out := n.output("short"); !strings.HasPrefix(out, "id 0 0 given / 1\nenv COLOUR blue\nwrite /mnt/mesos/sandbox/out <nil>\n") {
		t.Errorf("stdout is %q", out)
	}
	if s := n.await("hungry", api.TaskFailed); s.Reason != "killed by the kernel: out of memory (64 MiB)" {
		t.Errorf("reason is %q", s.Reason)
	}
	if s := n.await("refused", api.TaskFailed); s.Reason != `container.parameters[0]: "restart" is not taken over from docker run` {
		t.Errorf("reason is %q", s.Reason)
	}
	if s := n.await("missing", api.TaskFailed); !strings.HasPrefix(s.Reason, "pull image 127.0.0.1:1/no/such:image: ") {
		t.Errorf("reason is %q", s.Reason)
	}
	first := n.await("long", api.TaskRunning)
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(n.output("long"), "waiting") && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	n.execs()
	for range 3 { // the container stays, whatever becomes of us
		n.stop()
		n.start()
		n.Set(specs)
	}
	second := n.await("long", api.TaskRunning)
	if first.PID != second.PID || !first.Started.Equal(second.Started) || len(second.Addresses) != 1 {
		t.Errorf("the task was %+v and is %+v", first, second)
	}
	if u, _ := n.Status("long"); u.Memory == 0 {
		t.Errorf("it uses nothing: %+v", u)
	}
	if err := n.Kill("long", -1); err != nil {
		t.Fatal(err)
	}
	n.await("long", api.TaskKilled)
	if out := n.output("long"); !strings.Contains(out, "told to end") {
		t.Errorf("stdout is %q", out)
	}
}

func (n *node) execs() {
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
	code, err := n.Exec(context.Background(), "long", executor.Command{Args: []string{"/tool", "id", "read=/etc/hosts", "fail"}, Stdio: [3]*os.File{null, write, write}})
	write.Close()
	said, _ := io.ReadAll(read)
	if err != nil || code != 9 || !strings.Contains(string(said), " long / ") || !strings.Contains(string(said), "10.9.9.9 long;") {
		n.t.Errorf("exec ended with %d (%v) and said %q", code, err, said)
	}
}

func TestSizesAreReadAsDockerDoes(t *testing.T) {
	for text, want := range map[string]int64{"1024": 1024, "64m": 64 << 20, "1g": 1 << 30, "2K": 2048, "3b": 3, "4mb": 4 << 20, "": -1, "m": -1, "x": -1, "-1": -1} {
		got, err := size(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("size(%q) is %d, want %d", text, got, want)
		}
	}
}

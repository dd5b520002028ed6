package container

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/weirproject/weir/agent/executor"
	"github.com/weirproject/weir/agent/executor/cgroup"
	"github.com/weirproject/weir/agent/executor/shim"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/testenv"
)

// TestMain lets the test be its own shim.
func TestMain(m *testing.M) {
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == shim.Command:
		err = shim.Run(os.Args[2])
	case len(os.Args) > 1 && os.Args[1] == shim.InitCommand:
		err = shim.Init()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type file struct {
	name, content string
	mode          int64
	kind          byte
}

func layer(t *testing.T, files ...file) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Typeflag: f.kind, Size: int64(len(f.content))}
		if f.kind == tar.TypeSymlink {
			h.Linkname, h.Size, f.content = f.content, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// testImage has the tool in a lower layer, and changes of it above.
func testImage(t *testing.T) v1.Image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tool")
	build := exec.Command("go", "build", "-o", path, "./testdata/tool")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tool: %v: %s", err, out)
	}
	tool, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lower := layer(t,
		file{"tool", string(tool), 0o755, tar.TypeReg}, file{"etc/passwd", "root:x:0:0::/root:/\nann:x:1000:1001::/home/ann:/\n", 0o644, tar.TypeReg},
		file{"tmp", "", 0o777, tar.TypeDir}, file{"gone", "x", 0o644, tar.TypeReg}, file{"full/old", "x", 0o644, tar.TypeReg})
	upper := layer(t, file{".wh.gone", "", 0o644, tar.TypeReg}, file{"full/.wh..wh..opq", "", 0o644, tar.TypeReg}, file{"full/new", "y", 0o644, tar.TypeReg})
	i, err := mutate.AppendLayers(empty.Image, lower, upper)
	if err != nil {
		t.Fatal(err)
	}
	i, err = mutate.Config(i, v1.Config{Entrypoint: []string{"/tool"}, Cmd: []string{"id"}, Env: []string{"COLOUR=blue", "SHAPE=round"}, WorkingDir: "/tmp"})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

type node struct {
	*executor.Supervisor
	t      *testing.T
	dir    string
	parent string
}

func newNode(t *testing.T) *node {
	t.Helper()
	testenv.NeedRoot(t)
	if _, err := exec.LookPath(DefaultRuntime); err != nil {
		t.Skip("needs runc")
	}
	n := &node{t: t, dir: t.TempDir(), parent: fmt.Sprintf("weir-test-c%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)}
	o := executor.Options{
		DataDir: n.dir + "/data", RunDir: n.dir + "/run", Networks: networks{}, DiskEvery: 50 * time.Millisecond,
		Executors: map[api.Runtime]executor.Executor{api.RuntimeContainer: New(Options{Images: n.dir + "/images", State: n.dir + "/runc", Parent: n.parent, MaxPIDs: 100})},
	}
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	var err error
	if n.Supervisor, err = executor.New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = n.Run(ctx); close(done) }()
	t.Cleanup(func() { n.clean(); cancel(); <-done })
	return n
}

func (n *node) clean() {
	n.Set(nil)
	for deadline := time.Now().Add(20 * time.Second); len(n.Statuses()) > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
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
	// runc makes the group in hierarchies, too, that we have no limits in.
	others, _ := filepath.Glob("/sys/fs/cgroup/*/" + n.parent)
	for _, d := range others {
		if err := os.Remove(d); err != nil {
			n.t.Errorf("cgroup is left: %v", err)
		}
	}
}

type networks struct{}

func (networks) Attach(context.Context, string, string, []api.TaskNetwork, []api.TaskPort) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("10.9.9.9")}, nil
}
func (networks) Detach(context.Context, string) error { return nil }

func (n *node) await(id string, state api.TaskState) api.TaskStatus {
	n.t.Helper()
	var s api.TaskStatus
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
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

func (n *node) layout(image v1.Image) string {
	n.t.Helper()
	dir := n.dir + "/layout"
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = p.AppendImage(image, layout.WithAnnotations(map[string]string{refName: "v1"}))
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return "oci:" + dir + ":v1"
}

func spec(id, image string, args ...string) api.TaskSpec {
	return api.TaskSpec{
		ID: id, App: "/" + id, Runtime: api.RuntimeContainer, Args: args, CPUs: 0.1, Memory: 128 << 20, Grace: api.Duration(5 * time.Second),
		Container: &api.ContainerSpec{Image: image},
	}
}

func TestContainerIsIsolatedAndHasWhatItsImageSays(t *testing.T) {
	n := newNode(t)
	image := n.layout(testImage(t))
	s := spec("web.1", image, "id", "env=COLOUR", "env=SHAPE", "env=MESOS_SANDBOX", "env=HOME", "stat=/gone", "stat=/full/old", "read=/full/new",
		"write=/mnt/mesos/sandbox/out", "write=/new", "mount", "unshare", "read=/etc/resolv.conf", "read=/proc/kcore", "write=/proc/sys/kernel/hostname", "stat=/data/inside", "fail")
	s.User, s.Env = "ann", map[string]string{"SHAPE": "square"}
	s.Networks = []api.TaskNetwork{{Name: "blue"}}
	s.Container.Volumes = []api.Volume{{ContainerPath: "/data", HostPath: "vol"}}
	n.Set([]api.TaskSpec{s})
	if got := n.await("web.1", api.TaskFailed); got.ExitCode != 9 || len(got.Addresses) != 1 {
		t.Errorf("got %+v", got)
	}
	out := n.output("web.1")
	for _, want := range []string{
		"id 1000 1001 web-1 /tmp 1\n", "env COLOUR blue\n", "env SHAPE square\n", "env MESOS_SANDBOX /mnt/mesos/sandbox\n", "env HOME /home/ann\n",
		"stat /gone lstat /gone: no such file", "stat /full/old lstat /full/old: no such file", "read /full/new y <nil>",
		"write /mnt/mesos/sandbox/out <nil>", "write /new open /new: permission denied", "mount operation not permitted",
		"unshare operation not permitted", "stat /data/inside lstat /data/inside: no such file", "write /proc/sys/kernel/hostname open /proc/sys/kernel/hostname: ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), n.dir) {
		t.Errorf("mounts are left below %s (%v)", n.dir, err)
	}
}

func TestRootOfAContainerCannotReachTheNode(t *testing.T) {
	n := newNode(t)
	s := spec("root", n.layout(testImage(t)), "id", "mount", "unshare", "write=/proc/sys/vm/swappiness", "write=/new", "write=/sys/power/state")
	s.Container.ReadOnly = true
	n.Set([]api.TaskSpec{s})
	n.await("root", api.TaskFinished)
	out := n.output("root")
	for _, want := range []string{"id 0 0 ", "mount operation not permitted", "unshare operation not permitted", "swappiness open /proc/sys/vm/swappiness: read-only", "write /new open /new: read-only"} {
		if !strings.Contains(out, want) {
			t.Errorf("output %q lacks %q", out, want)
		}
	}
}

func TestContainerEndsBySIGTERMAndRunsCommands(t *testing.T) {
	n := newNode(t)
	s := spec("wait", n.layout(testImage(t)), "wait")
	n.Set([]api.TaskSpec{s})
	st := n.await("wait", api.TaskRunning)
	for !strings.Contains(n.output("wait"), "waiting") {
		time.Sleep(5 * time.Millisecond)
	}
	g, err := cgroup.Find("", n.parent, "wait")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", st.PID))
	if err != nil || strings.Count(string(text), n.parent+"/wait") < len(g.Dirs()) {
		t.Errorf("the container is not in every hierarchy of %v: %s (%v)", g, text, err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, _ := os.Open(os.DevNull)
	defer null.Close()
	code, err := n.Exec(context.Background(), "wait", executor.Command{Args: []string{"/tool", "id", "env=COLOUR", "fail"}, Stdio: [3]*os.File{null, write, write}})
	write.Close()
	said, _ := io.ReadAll(read)
	if err != nil || code != 9 || !strings.Contains(string(said), "env COLOUR blue\n") {
		t.Errorf("exec ended with %d (%v) and said %q", code, err, said)
	}
	s.Kill = true
	n.Set([]api.TaskSpec{s})
	n.await("wait", api.TaskKilled)
	if out := n.output("wait"); !strings.Contains(out, "told to end") {
		t.Errorf("output is %q", out)
	}
}

func TestContainerThatEatsItsMemoryIsToldSo(t *testing.T) {
	n := newNode(t)
	s := spec("hungry", n.layout(testImage(t)), "eat")
	s.Memory = 64 << 20
	n.Set([]api.TaskSpec{s})
	if got := n.await("hungry", api.TaskFailed); got.Reason != "killed by the kernel: out of memory (64 MiB)" {
		t.Errorf("reason is %q", got.Reason)
	}
}

func TestImagesComeFromRegistriesAndArchives(t *testing.T) {
	n := newNode(t)
	server := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, 0))))
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/shop/web:v1")
	if err != nil {
		t.Fatal(err)
	}
	image := testImage(t)
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	archive := n.dir + "/image.tar"
	if err := tarball.WriteToFile(archive, ref, image); err != nil {
		t.Fatal(err)
	}
	first, second := spec("pulled", ref.String()), spec("saved", "docker-archive:"+archive)
	n.Set([]api.TaskSpec{first, second})
	for _, id := range []string{"pulled", "saved"} {
		n.await(id, api.TaskFinished)
		if out := n.output(id); !strings.HasPrefix(out, "id 0 0 ") {
			t.Errorf("%s said %q", id, out)
		}
	}
	server.Close() // what is there needs no registry
	again, forced := spec("again", ref.String()), spec("forced", ref.String())
	forced.Container.ForcePull = true
	n.Set([]api.TaskSpec{first, second, again, forced})
	n.await("again", api.TaskFinished)
	if got := n.await("forced", api.TaskFailed); !strings.HasPrefix(got.Reason, "get image ") {
		t.Errorf("reason is %q", got.Reason)
	}
	layers, err := os.ReadDir(n.dir + "/images/layers")
	if err != nil || len(layers) != 2 {
		t.Errorf("%d layers are kept (%v), want each once: 2", len(layers), err)
	}
}

func TestWhatAContainerCannotHaveIsRefusedByName(t *testing.T) {
	n := newNode(t)
	image := n.layout(testImage(t))
	cases := map[string]func(*api.TaskSpec){
		"container.parameters: shm-size": func(s *api.TaskSpec) { s.Container.Parameters = []api.DockerParam{{Key: "shm-size", Value: "1g"}} },
		"container.image is missing":     func(s *api.TaskSpec) { s.Container.Image = "" },
		"container.tty":                  func(s *api.TaskSpec) { s.Container.TTY = true },
		`find user bob`:                  func(s *api.TaskSpec) { s.User = "bob" },
		"container.volumes[0].host_path": func(s *api.TaskSpec) {
			s.Container.Volumes = []api.Volume{{ContainerPath: "/x", HostPath: "/no/such/folder"}}
		},
		`container.add_capabilities[0]: there is no capability "FLY"`: func(s *api.TaskSpec) { s.Container.AddCapabilities = []string{"FLY"} },
	}
	i := 0
	var specs []api.TaskSpec
	wants := map[string]string{}
	for want, change := range cases {
		s := spec(fmt.Sprintf("bad.%d", i), image)
		change(&s)
		specs, wants[s.ID] = append(specs, s), want
		i++
	}
	n.Set(specs)
	for id, want := range wants {
		if s := n.await(id, api.TaskFailed); !strings.Contains(s.Reason, want) {
			t.Errorf("reason %q lacks %q", s.Reason, want)
		}
	}
}

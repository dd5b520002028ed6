package trace

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weirproject/weir/testenv"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// ownNetwork runs the test that calls it in a process with a network namespace
// of its own, where lo is up: whatever it leaves there is gone with the process.
// It gives false in the process that go test has started: the test is over then.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	testenv.NeedNetns(t)
	testenv.NeedBPF(t)
	const mark = "WEIR_TEST_OWN_NETWORK"
	if os.Getenv(mark) == t.Name() {
		command(t, "ip", "link", "set", "lo", "up")
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func command(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
}

// watcher keeps what a tracer has told of this network namespace.
type watcher struct {
	*Tracer
	t     *testing.T
	netns uint32
	mu    sync.Mutex // guards what follows
	flows []*Flow
	drops []*Drop
}

func watch(t *testing.T, o Options) *watcher {
	t.Helper()
	root, err := testenv.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	o.Log = slog.New(slog.DiscardHandler)
	if o.Cgroup == "" {
		o.Cgroup = root
	}
	tracer, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	w := &watcher{Tracer: tracer, t: t, netns: uint32(st.Ino)}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- tracer.Run(ctx, w.tell) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, tracer.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *watcher) tell(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Flow != nil && (e.Flow.Netns == w.netns || e.Flow.Process == os.Getpid()) {
		w.flows = append(w.flows, e.Flow)
	}
	if e.Drop != nil && e.Drop.Netns == w.netns {
		w.drops = append(w.drops, e.Drop)
	}
}

// flow waits for one that is as wanted.
func (w *watcher) flow(what string, wanted func(*Flow) bool) *Flow {
	w.t.Helper()
	return await(w, what, func() []*Flow { return w.flows }, wanted)
}

// drop waits for one that is as wanted.
func (w *watcher) drop(what string, wanted func(*Drop) bool) *Drop {
	w.t.Helper()
	return await(w, what, func() []*Drop { return w.drops }, wanted)
}

func await[T any](w *watcher, what string, all func() []*T, wanted func(*T) bool) *T {
	w.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		w.mu.Lock()
		seen := all()
		w.mu.Unlock()
		for _, one := range seen {
			if wanted(one) {
				return one
			}
		}
		if time.Now().After(end) {
			for _, one := range seen {
				w.t.Logf("%+v", *one)
			}
			w.t.Fatalf("nothing was told of %s", what)
		}
	}
}

// echo answers on TCP with what it got, until the end of the test.
func echo(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	return l
}

func dialAndClose(t *testing.T, address string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

package cgroup_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/agent/executor/cgroup"
	"github.com/weirproject/weir/testenv"
)

func group(t *testing.T) cgroup.Group {
	t.Helper()
	testenv.NeedRoot(t)
	parent := fmt.Sprintf("weir-test-g%d", os.Getpid())
	g, err := cgroup.Find("", parent, "task")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		top, err := cgroup.Find("", parent, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := top.Kill(ctx); err != nil {
			t.Error(err)
		}
		for i := 0; top.Remove() != nil && i < 100; i++ {
			time.Sleep(20 * time.Millisecond)
		}
		for _, d := range top.Dirs() {
			if _, err := os.Stat(d); err == nil {
				t.Errorf("%s is left", d)
			}
		}
	})
	return g
}

func TestLimitsAreWrittenAndMayGrowAndShrink(t *testing.T) {
	g := group(t)
	for _, mib := range []uint64{64, 256, 32} {
		if err := g.Make(cgroup.Limits{Shares: 0.5, Quota: 1.5, Memory: mib << 20, PIDs: 50}); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(g.V2, "memory.max")
		if !g.Limited {
			file = filepath.Join(g.V1["memory"], "memory.limit_in_bytes")
		}
		got, err := os.ReadFile(file)
		if want := fmt.Sprintln(mib << 20); err != nil || string(got) != want {
			t.Errorf("%s is %q (%v), want %q", file, got, err, want)
		}
	}
}

func TestKillEndsWhatForksMeanwhile(t *testing.T) {
	g := group(t)
	if err := g.Make(cgroup.Limits{PIDs: 100}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "read go; while :; do (sleep 1000 &) ; done")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if pids, _ := g.PIDs(); len(pids) > 20 {
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	killed := make(chan error, 1)
	go func() { killed <- g.Kill(ctx) }()
	_ = cmd.Wait() // or else it stays in the group as a zombie
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	if pids, err := g.PIDs(); err != nil || len(pids) > 0 {
		t.Errorf("processes %v are left (%v)", pids, err)
	}
}

func TestAGroupThatIsGoneIsNoError(t *testing.T) {
	g := group(t)
	if pids, err := g.PIDs(); err != nil || len(pids) > 0 {
		t.Errorf("got %v (%v)", pids, err)
	}
	if err := g.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := g.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	if u := g.Usage(); u != (cgroup.Usage{}) {
		t.Errorf("it uses %+v", u)
	}
}

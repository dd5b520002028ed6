package trace

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/weirproject/weir/testenv"
)

// newCgroup makes one that is removed when the test is over.
func newCgroup(t *testing.T) string {
	t.Helper()
	root, err := testenv.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(root, "weir-trace-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 100 {
			if err := os.Remove(dir); err == nil || os.IsNotExist(err) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s stays", dir)
	})
	return dir
}

// enter moves this process into a cgroup, and back out at the end.
func enter(t *testing.T, cgroup string) {
	t.Helper()
	root, err := testenv.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	move := func(to string) {
		if err := os.WriteFile(to+"/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { move(root) })
	move(cgroup)
}

func TestOnlyTheCgroupIsWatched(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	mine, another := newCgroup(t), newCgroup(t)
	w, deaf := watch(t, Options{Cgroup: mine}), watch(t, Options{Cgroup: another})
	enter(t, mine)
	l := echo(t, "127.0.0.1:8080")
	for range 3 {
		dialAndClose(t, l.Addr().String())
	}
	w.flow("the client's end", func(f *Flow) bool { return !f.Accepted && !f.Ended.IsZero() })
	w.flow("the server's end", func(f *Flow) bool { return f.Accepted && !f.Ended.IsZero() })
	deaf.mu.Lock()
	defer deaf.mu.Unlock()
	if len(deaf.flows) > 0 {
		t.Errorf("another cgroup's was told: %+v", *deaf.flows[0])
	}
}

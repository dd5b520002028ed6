package netspace_test

import (
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/weirproject/weir/netspace"
	"github.com/weirproject/weir/testenv"
	"golang.org/x/sys/unix"
)

func here(t *testing.T, path string) string {
	t.Helper()
	name, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestVisitsLeaveTheProcessWhereItWas(t *testing.T) {
	testenv.NeedNetns(t)
	home := here(t, "/proc/self/ns/net")
	var held *os.File
	err := netspace.Fresh(func() (err error) {
		held, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	var all sync.WaitGroup
	for range 200 { // so many that some begin on the first thread
		all.Go(func() {
			err := netspace.Enter(int(held.Fd()), func() error {
				if unix.Gettid() == unix.Getpid() {
					t.Error("the first thread was taken")
				}
				if here(t, "/proc/thread-self/ns/net") == home {
					t.Error("not in the namespace")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		if at, err := os.Readlink("/proc/self/task/" + thread.Name() + "/ns/net"); err == nil && at != home {
			t.Errorf("thread %s was left in %s", thread.Name(), at)
		}
	}
}

func TestErrorsComeBack(t *testing.T) {
	testenv.NeedNetns(t)
	want := errors.New("no")
	if err := netspace.Fresh(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
	if err := netspace.EnterPath("/proc/self/ns/uts", func() error { return nil }); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a namespace of another kind gave %v", err)
	}
	if err := netspace.EnterPath("/nowhere", func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a path that is not there gave %v", err)
	}
}

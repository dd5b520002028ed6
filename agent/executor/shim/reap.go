package shim

import (
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// reaper waits for every child of this process, its own and those that it got
// as a subreaper, so that none stays a zombie.
type reaper struct {
	mu      sync.Mutex // guards what follows; held over a start, so that no end is missed
	waiting map[int]chan unix.WaitStatus
	early   map[int]unix.WaitStatus // of children that nobody waits for yet
}

// newReaper makes this process the one that orphans below it go to.
func newReaper() (*reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl", err)
	}
	r := &reaper{waiting: map[int]chan unix.WaitStatus{}, early: map[int]unix.WaitStatus{}}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	go func() {
		for range ended {
			r.reap()
		}
	}()
	return r, nil
}

func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if c := r.waiting[pid]; c != nil {
			c <- status
			delete(r.waiting, pid)
		} else {
			r.early[pid] = status
		}
	}
}

// start makes a child and returns where its end is told.
func (r *reaper) start(path string, args []string, attr *os.ProcAttr) (int, <-chan unix.WaitStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := os.StartProcess(path, args, attr)
	if err != nil {
		return 0, nil, err
	}
	c := make(chan unix.WaitStatus, 1)
	pid := p.Pid // Release takes it away
	r.waiting[pid] = c
	return pid, c, p.Release()
}

// adopt returns where the end of a process is told that came to be below us.
func (r *reaper) adopt(pid int) <-chan unix.WaitStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := make(chan unix.WaitStatus, 1)
	if status, ok := r.early[pid]; ok {
		c <- status
		delete(r.early, pid)
	} else {
		r.waiting[pid] = c
	}
	return c
}

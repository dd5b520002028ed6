package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// killWithin is how long the kernel may take to end killed processes.
	killWithin = 30 * time.Second
	// drainWithin is how long output may come after the last process has ended:
	// somebody outside the task may hold its end of the pipe.
	drainWithin = time.Second
	// settle is how often a stopped task is looked at whose first process has
	// ended before the others.
	settle = 20 * time.Millisecond
)

// server is a shim at work.
type server struct {
	dir    string
	plan   Plan
	reaper *reaper

	pid     int
	started time.Time
	done    chan struct{} // closed when exit is set

	mu       sync.Mutex // guards what follows
	exit     *Exit
	stopped  bool
	reason   string    // of the first stop
	deadline time.Time // of the stop
	kill     *time.Timer
}

// Run is the shim of the task whose folder it is given. It returns nil when the
// task has ended, or when another shim has it, and an error when nothing could
// be written down.
func Run(dir string) error {
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	// An agent that looks whether the lock is taken takes it for a moment.
	for try := 0; unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil; try++ {
		if try == 10 {
			return nil // another shim has the task
		}
		time.Sleep(settle)
	}
	if _, err := os.Stat(filepath.Join(dir, exitFile)); err == nil {
		return nil
	}
	s := &server{dir: dir, done: make(chan struct{})}
	if err := ReadFile(filepath.Join(dir, planFile), &s.plan); err != nil {
		return err
	}
	if s.reaper, err = newReaper(); err != nil {
		return err
	}
	listener, err := listen(dir)
	if err != nil {
		return err
	}
	defer listener.Close()
	exit := s.live(listener)
	if err := WriteFile(filepath.Join(dir, exitFile), exit); err != nil {
		return err
	}
	s.mu.Lock()
	s.exit = &exit
	s.mu.Unlock()
	close(s.done)
	time.Sleep(50 * time.Millisecond) // for those who wait to be told; the file tells the others
	return nil
}

// listen makes the socket. Paths of sockets have 107 bytes at most, so it is
// named through the folder's descriptor.
func listen(dir string) (*net.UnixListener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := os.Remove(filepath.Join(dir, socketFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketFile)})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // its name is not valid any more
	return l, os.Chmod(filepath.Join(dir, socketFile), 0o600)
}

// live starts the task unless that was done before, and waits for its end.
func (s *server) live(listener *net.UnixListener) Exit {
	mark := filepath.Join(s.dir, startedFile)
	before, err := os.ReadFile(mark)
	if err == nil {
		return s.bury(string(before))
	}
	exit := Exit{Unstarted: true}
	ended, logs, err := s.begin(mark)
	if err != nil {
		exit.Reason = err.Error()
	} else {
		exit = Exit{Started: s.started}
		go s.accept(listener)
		status := <-ended
		s.mu.Lock()
		exit.Stopped, exit.Reason = s.stopped, s.reason
		deadline := s.deadline
		s.mu.Unlock()
		if status.Signaled() {
			exit.Signal = int(status.Signal())
		} else {
			exit.Code = status.ExitStatus()
		}
		if exit.Stopped {
			s.settle(deadline)
		}
	}
	usage := s.plan.Group.Usage()
	exit.CPU = usage.CPUSeconds
	if usage.OOMKills > 0 && !exit.Stopped && (exit.Signal == int(unix.SIGKILL) || exit.Code != 0) {
		exit.Reason = "killed by the kernel: out of memory (" + mebibytes(s.plan.Limit.Memory) + ")"
	}
	s.clean()
	if logs != nil {
		logs.wait()
	}
	exit.Ended = time.Now()
	return exit
}

// begin starts the task. The mark is on disk before anything runs.
func (s *server) begin(mark string) (<-chan unix.WaitStatus, *outputs, error) {
	f, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	_, err = f.WriteString(bootID())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, nil, err
	}
	if err := s.plan.Group.Make(s.plan.Limit); err != nil {
		return nil, nil, err
	}
	logs, stdio, err := s.openOutputs()
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		for _, f := range stdio {
			f.Close()
		}
	}()
	s.started = time.Now()
	var ended <-chan unix.WaitStatus
	if s.plan.Bundle != "" {
		s.pid, ended, err = s.startBundle(stdio)
	} else {
		s.pid, ended, err = s.startProcess(stdio)
	}
	return ended, logs, err
}

// bury ends a task whose shim was killed.
func (s *server) bury(boot string) Exit {
	exit := Exit{Reason: "its shim was killed", Ended: time.Now()}
	if boot != bootID() {
		exit.Reason = "its node was restarted"
	}
	s.clean()
	return exit
}

// settle waits, at most until the deadline, for what a stopped task has beside
// its first process: a shell often ends before the server that it started.
func (s *server) settle(deadline time.Time) {
	for time.Now().Before(deadline) {
		if pids, err := s.plan.Group.PIDs(); err == nil && len(pids) == 0 {
			return
		}
		time.Sleep(settle)
	}
}

// clean kills what is left and takes away all that was made.
func (s *server) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), killWithin)
	defer cancel()
	if err := s.plan.Group.Kill(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	s.removeBundle()
	for range 50 { // the kernel takes a moment to find a cgroup empty
		if err := s.plan.Group.Remove(); err == nil {
			return
		}
		time.Sleep(settle)
	}
}

// stop tells the task to end: SIGTERM now, SIGKILL after the grace. The first
// reason stays; a shorter grace takes over.
func (s *server) stop(grace time.Duration, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	deadline := time.Now().Add(grace)
	if s.stopped && !deadline.Before(s.deadline) {
		return nil
	}
	if !s.stopped {
		s.reason = reason
	}
	again := s.stopped
	s.stopped, s.deadline = true, deadline
	if s.kill != nil {
		s.kill.Stop()
	}
	s.kill = time.AfterFunc(max(grace, 0), func() {
		ctx, cancel := context.WithTimeout(context.Background(), killWithin)
		defer cancel()
		_ = s.plan.Group.Kill(ctx)
	})
	switch {
	case again || grace <= 0:
		return nil
	case s.plan.FirstOnly:
		return unix.Kill(s.pid, unix.SIGTERM)
	default:
		return s.plan.Group.Signal(unix.SIGTERM)
	}
}

// outputs copy what a task says into its logs.
type outputs struct {
	reads []*os.File
	group sync.WaitGroup
}

// openOutputs returns the ends that the task gets, its input first.
func (s *server) openOutputs() (*outputs, [3]*os.File, error) {
	var stdio [3]*os.File
	o := &outputs{}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, stdio, err
	}
	stdio[0] = null
	for i, name := range []string{"stdout", "stderr"} {
		log, err := openLog(filepath.Join(s.plan.Sandbox, name), s.plan.Owner, maxLog)
		if err != nil {
			return nil, stdio, err
		}
		read, write, err := os.Pipe()
		if err != nil {
			return nil, stdio, err
		}
		_ = write.Chown(s.plan.Owner.UID, s.plan.Owner.GID) // so that the task may open /dev/stdout
		stdio[i+1] = write
		o.reads = append(o.reads, read)
		o.group.Go(func() { _, _ = io.Copy(log, read); read.Close() })
	}
	return o, stdio, nil
}

// wait until all is written, or nothing more is to be expected.
func (o *outputs) wait() {
	for _, r := range o.reads {
		_ = r.SetReadDeadline(time.Now().Add(drainWithin))
	}
	o.group.Wait()
}

func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }

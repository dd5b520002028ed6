package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
)

// ErrEnded tells that the task has ended already.
var ErrEnded = errors.New("the task has ended")

// startWithin is how long a shim may take to start its task. One that is not
// there after a hundredth of that is started anew.
const startWithin = 2 * time.Minute

// Task is a task's folder, as seen by the agent. Any number of goroutines may
// use it.
type Task struct {
	dir string
	// binary is what is executed as the shim.
	binary string
}

// Open names the task with this folder; nothing is read. An empty binary is the
// one that runs.
func Open(dir, binary string) Task {
	if binary == "" {
		binary = "/proc/self/exe"
	}
	return Task{dir: dir, binary: binary}
}

// Planned tells whether the task has a plan, and thus may have been started.
func (t Task) Planned() bool {
	_, err := os.Stat(filepath.Join(t.dir, planFile))
	return err == nil
}

// Plan reads the task's plan.
func (t Task) Plan() (Plan, error) {
	var p Plan
	return p, ReadFile(filepath.Join(t.dir, planFile), &p)
}

// Start writes the plan and starts the shim. It may be called for a task that
// runs or has ended: then nothing happens.
func (t Task) Start(p Plan) error {
	if !t.Planned() {
		if err := WriteFile(filepath.Join(t.dir, planFile), p); err != nil {
			return err
		}
	}
	return t.revive()
}

// revive starts a shim, which does what is left to do.
func (t Task) revive() error {
	log, err := os.OpenFile(filepath.Join(t.dir, logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(t.binary, []string{"weir-shim", Command, t.dir}, &os.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + defaultPath, "GOMAXPROCS=1"}, Files: []*os.File{null, null, log}, Sys: &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start shim: %w", err)
	}
	go func() { _, _ = p.Wait() }() // else it stays a zombie until this process ends
	return nil
}

// Wait returns how the task ended; running is called once when it is known to
// run. A shim that was killed is started anew, to clean up. The error is
// ctx's, or tells that no shim can be started.
func (t Task) Wait(ctx context.Context, running func(pid int, since time.Time)) (Exit, error) {
	begin, patience := time.Now(), startWithin/100
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		var exit Exit
		err := ReadFile(filepath.Join(t.dir, exitFile), &exit)
		if err == nil {
			return exit, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return exit, err
		}
		waited, err := t.wait(ctx, running)
		if ctx.Err() != nil {
			return exit, ctx.Err()
		}
		if waited {
			begin, pause, patience = time.Now(), 5*time.Millisecond, 0
		} else if time.Since(begin) > startWithin {
			return exit, fmt.Errorf("reach the shim of %s: %w", filepath.Base(t.dir), err)
		}
		select {
		case <-ctx.Done():
			return exit, ctx.Err()
		case <-time.After(pause):
		}
		// A shim that has just been started has no lock yet.
		if time.Since(begin) >= patience && t.unattended() {
			if _, err := os.Stat(filepath.Join(t.dir, exitFile)); err != nil {
				if err := t.revive(); err != nil {
					return exit, err
				}
				patience += startWithin / 100
			}
		}
	}
}

// unattended tells that no shim has the task's lock.
func (t Task) unattended() bool {
	f, err := os.OpenFile(filepath.Join(t.dir, lockFile), os.O_RDWR, 0)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil // gone with f
}

// wait holds a connection to the shim until it ends.
func (t Task) wait(ctx context.Context, running func(int, time.Time)) (bool, error) {
	conn, in, err := t.ask(request{Verb: "wait"}, nil)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var r reply
	if err := in.Decode(&r); err != nil {
		return false, err
	}
	running(r.PID, r.Started)
	_ = in.Decode(&r) // the exit is in the file before it comes
	return true, nil
}

// Stop tells the task to end within the grace; the reason is kept with its
// exit. The error is ErrEnded when no shim is there.
func (t Task) Stop(grace time.Duration, reason string) error {
	conn, in, err := t.ask(request{Verb: "stop", Grace: api.Duration(grace), Reason: reason}, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	var r reply
	if err := in.Decode(&r); err != nil {
		return ErrEnded
	}
	if r.Error != "" {
		return errors.New(r.Error)
	}
	return nil
}

// Exec runs a command in the task's namespaces and cgroup, with these files as
// its standard ones, and returns its exit code, or 128 and its signal. The files
// stay open here. When ctx ends it is killed.
func (t Task) Exec(ctx context.Context, args []string, tty bool, stdio [3]*os.File) (int, error) {
	conn, in, err := t.ask(request{Verb: "exec", Args: args, TTY: tty}, stdio[:])
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for {
		var r reply
		if err := in.Decode(&r); err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			return 0, ErrEnded
		}
		switch {
		case r.Error != "":
			return 0, errors.New(r.Error)
		case r.Exit != nil && r.Exit.Signal != 0:
			return 128 + r.Exit.Signal, nil
		case r.Exit != nil:
			return r.Exit.Code, nil
		}
	}
}

// ask sends one request. A shim that has just been started may not listen yet.
func (t Task) ask(r request, files []*os.File) (*net.UnixConn, *json.Decoder, error) {
	d, err := os.Open(t.dir)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketFile)})
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrEnded, err)
	}
	line, err := json.Marshal(r)
	if err == nil {
		var rights []byte
		if len(files) > 0 {
			fds := make([]int, len(files))
			for i, f := range files {
				fds[i] = int(f.Fd())
			}
			rights = unix.UnixRights(fds...)
		}
		_, _, err = conn.WriteMsgUnix(append(line, '\n'), rights, nil)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, json.NewDecoder(bufio.NewReader(conn)), nil
}

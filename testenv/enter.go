package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// hostNamespaces are what a host has of its own.
const hostNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS

// onThread runs fn on an operating system thread of its own. The thread ends
// with fn, so fn may move it into other namespaces: the Go runtime destroys a
// thread whose goroutine ends locked, and starts no thread from a locked one.
// The exception is the process's first thread, which the runtime only parks. It
// would stay in the namespaces, keep them alive and show them in /proc, so fn
// never runs there.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			done <- fn()
			return
		}
		defer runtime.UnlockOSThread()
		done <- onThread(fn) // cannot come to this thread while we hold it
	}()
	return <-done
}

// enter moves the calling thread, which must be locked and never unlocked,
// into namespaces of the process: all of the wanted ones in one step.
func (p process) enter(namespaces int) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.pid, err)
	}
	defer unix.Close(fd)
	// Only now can the number not be given to another process any more.
	if !p.alive() {
		return fmt.Errorf("open process %d: %w", p.pid, os.ErrProcessDone)
	}
	// A thread that shares root and working directory with others may not
	// change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the working directory: %w", err)
	}
	if err := unix.Setns(fd, namespaces); err != nil {
		return fmt.Errorf("enter the namespaces of process %d: %w", p.pid, err)
	}
	return nil
}

// Do runs fn inside the host's namespaces, on a thread of its own. What fn
// does on other goroutines happens outside. The thread stays in the caller's
// cgroup: use Command for what the host's eBPF programs must see.
func (l *Lab) Do(host string, fn func() error) error {
	p, err := l.init(host)
	if err != nil {
		return err
	}
	return onThread(func() error {
		if err := p.enter(hostNamespaces); err != nil {
			return fmt.Errorf("host %s: %w", host, err)
		}
		return fn()
	})
}

// Exec replaces the calling process by the command, inside the host's
// namespaces and cgroup: standard streams, terminal, signals and exit status
// are the command's own. The working directory stays where the host's view has
// it and is / otherwise. It returns only with an error; one that wraps
// exec.ErrNotFound or fs.ErrPermission is about the command.
func (l *Lab) Exec(host string, argv []string, env []string) error {
	p, err := l.init(host)
	if err != nil {
		return err
	}
	dir, _ := os.Getwd()
	return onThread(func() error {
		// The cgroup first: its files are out of reach for a host whose view
		// has no cgroup mount.
		if err := os.WriteFile(l.hostCgroup(host)+"/cgroup.procs", []byte("0"), 0); err != nil {
			return fmt.Errorf("join the cgroup of host %s: %w", host, err)
		}
		if err := p.enter(hostNamespaces); err != nil {
			return fmt.Errorf("host %s: %w", host, err)
		}
		if dir == "" || os.Chdir(dir) != nil {
			if err := os.Chdir("/"); err != nil {
				return err
			}
		}
		path, err := exec.LookPath(argv[0])
		if err != nil {
			return err
		}
		return fmt.Errorf("run %s: %w", strings.Join(argv, " "), syscall.Exec(path, argv, env))
	})
}

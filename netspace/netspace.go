// Package netspace runs code in other network namespaces, on threads of its own.
package netspace

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Enter runs do on a thread that is in the network namespace of a file
// descriptor. Sockets that do opens in its own goroutine are there.
func Enter(fd int, do func() error) error {
	return change(func() error { return unix.Setns(fd, unix.CLONE_NEWNET) }, do)
}

// EnterPath is Enter for a namespace that a path names (/proc/PID/ns/net, a
// bind mount).
func EnterPath(path string, do func() error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer f.Close()
	return Enter(int(f.Fd()), do)
}

// Fresh runs do on a thread that is in a new network namespace. It ends with do
// unless do keeps it: by a file, a bind mount or a socket.
func Fresh(do func() error) error {
	return change(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, do)
}

func change(into, do func() error) error {
	result := make(chan error, 1)
	go aside(func() { result <- visit(into, do) })
	return <-result
}

// aside runs f on a locked thread that is not the process's first. That one is
// what /proc/PID/ns shows of us, and Go cannot end it: left in a foreign
// namespace it would keep that namespace alive for as long as we run.
func aside(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() { defer close(done); aside(f) }()
	<-done
}

// visit gives the thread back: one that ended would take the processes along
// that it has started and that are to die with it (PR_SET_PDEATHSIG). Only
// where there is no way back it stays locked, so that nobody else finds himself
// in the other namespace.
func visit(into, do func() error) error {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer home.Close()
	if err := into(); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err = do()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
		runtime.UnlockOSThread()
	}
	return err
}

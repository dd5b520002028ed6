package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockWait is how long a process that was killed may take to end: the kernel
// lets go of its lock only with its last thread.
const lockWait = 2 * time.Second

// lock makes sure that one agent alone works on this node. The kernel lets go
// of the lock when the process ends, however it ends.
func lock(runDir string) (unlock func(), err error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, fmt.Errorf("make run_dir: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(runDir, "agent.lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for end := time.Now().Add(lockWait); errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another weir-agent runs on this node (it holds %s): stop it first", f.Name())
		}
		return nil, fmt.Errorf("take the lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

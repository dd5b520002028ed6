package executor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/netspace"
)

// makeNetns makes a network namespace that lives at a path, with its lo up. One
// that is there stays.
func makeNetns(path string) error {
	if isNetns(path) {
		return nil
	}
	if err := touch(path); err != nil {
		return err
	}
	err := netspace.Fresh(func() error {
		if err := raiseLoopback(); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("make network namespace: %w", err)
	}
	return nil
}

// bindNetnsOf has a process's namespace live at a path.
func bindNetnsOf(pid int, path string) error {
	if isNetns(path) {
		return nil
	}
	if err := touch(path); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", pid), path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("hold the network namespace of process %d: %w", pid, err)
	}
	return nil
}

// touch makes the file that a namespace is mounted on.
func touch(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	return f.Close()
}

func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

func isNetns(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// removeNetns lets go of a namespace; it ends with its last process.
func removeNetns(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// inNetns calls do in a thread that is in the namespace; sockets that do opens
// in its own goroutine are there. An empty path is the node's.
func inNetns(path string, do func() error) error {
	if path == "" {
		return do()
	}
	return netspace.EnterPath(path, do)
}

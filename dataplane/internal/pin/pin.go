// Package pin keeps maps and links of eBPF in bpffs, so that they outlive the
// process: maps below a folder named after their layout, links at fixed names.
// It knows neither what the maps mean nor where programs are attached; the sinks
// below dataplane call it.
package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// bpffs is where bpffs belongs on every distribution.
const bpffs = "/sys/fs/bpf"

// Available says why nothing can be pinned on this kernel, or nil.
func Available() error {
	if _, err := os.Stat(bpffs); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no %s: the kernel has no eBPF (CONFIG_BPF_SYSCALL)", bpffs)
	}
	return nil
}

// Mount makes sure that dir is, or will be, in a bpffs. It mounts one at its
// usual place when that is bare, as in minimal systems.
func Mount(dir string) error {
	at := dir
	var info unix.Statfs_t
	for {
		err := unix.Statfs(at, &info)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return fmt.Errorf("look for bpffs at %s: %w", dir, err)
		}
		at = filepath.Dir(at)
	}
	if info.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if at != bpffs {
		return fmt.Errorf("%s is not in a bpffs: mount one there (mount -t bpf bpf %s)", dir, bpffs)
	}
	if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs at %s: %w", bpffs, err)
	}
	return nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

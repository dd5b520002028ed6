package testenv

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// view is what a host sees instead of the machine's files.
type view struct {
	disk  string // folder with etc/weir, var/lib/weir, resolv.conf, hosts
	state string // folder seen as /etc/weir/state.d; empty for none
}

// mount builds the view in the calling thread's new mount namespace, whose
// network namespace must be the host's already: a sysfs shows the network
// devices of the namespace that mounts it.
func (v view) mount() error {
	// A slave, not private: nothing we mount reaches the machine, but what the
	// machine unmounts goes away here too, so that a lab keeps no disk busy.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts slaves: %w", err)
	}
	// The state folder may lie below one of the mounts that follow.
	state, err := os.Open(cmp.Or(v.state, "/"))
	if err != nil {
		return err
	}
	defer state.Close()
	// The kernel drops a mount whose file is replaced by a rename elsewhere, so a
	// DHCP client that writes the machine's resolv.conf anew takes it away from
	// the hosts that are up.
	for _, name := range []string{"resolv.conf", "hosts"} {
		if err := bind(filepath.Join(v.disk, name), "/etc/"+name); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/etc/weir", "/var/lib/weir"} {
		if err := bind(filepath.Join(v.disk, dir), dir); err != nil {
			return err
		}
	}
	if v.state != "" {
		if err := bind(fmt.Sprintf("/proc/self/fd/%d", state.Fd()), "/etc/weir/state.d"); err != nil {
			return err
		}
	}
	if err := mount("tmpfs", "/run/weir", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	if err := v.mountSys(); err != nil {
		return err
	}
	// Every bpffs mount is an instance of its own: what the host pins goes with
	// the host, and the machine's pins are out of its reach.
	err = mount("bpf", "/sys/fs/bpf", 0, "mode=0700")
	if errors.Is(err, fs.ErrNotExist) { // a kernel without BPF
		return nil
	}
	return err
}

// mountSys puts a sysfs of the host's network namespace over the machine's and
// moves what is mounted below, such as the cgroups, along.
func (v view) mountSys() error {
	staging := filepath.Join(v.disk, "sys")
	if err := os.MkdirAll(staging, 0o755); err != nil {
		return err
	}
	below, err := mountsBelow("/sys")
	if err != nil {
		return err
	}
	if err := mount("sysfs", staging, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	for _, path := range below {
		target := filepath.Join(staging, strings.TrimPrefix(path, "/sys"))
		if path == "/sys/fs/bpf" || !isDir(target) {
			continue
		}
		if err := unix.Mount(path, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", path, err)
		}
	}
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the machine's /sys: %w", err)
	}
	if err := unix.Mount(staging, "/sys", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move sysfs to /sys: %w", err)
	}
	return nil
}

// mountsBelow lists the mounts whose parent is the mount on dir.
func mountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	parent := ""
	var below []string
	for line := range strings.Lines(string(data)) {
		// ID, parent's ID, device, root, mount point; see proc_pid_mountinfo(5).
		f := strings.Fields(line)
		switch {
		case len(f) < 5:
		case f[4] == dir:
			parent, below = f[0], nil // a later mount on dir hides the earlier
		case f[1] == parent:
			below = append(below, f[4])
		}
	}
	return below, nil
}

func bind(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind " + source + " to", Path: target, Err: err}
	}
	return nil
}

func mount(kind, target string, flags uintptr, data string) error {
	if err := unix.Mount("weir-lab", target, kind, flags, data); err != nil {
		return &os.PathError{Op: "mount " + kind + " on", Path: target, Err: err}
	}
	return nil
}

package program

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane/internal/pin"
)

// CgroupRoot finds where the cgroup v2 hierarchy is mounted, alone or beside
// version 1.
func CgroupRoot() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if isCgroup2(dir) == nil {
			return dir, nil
		}
	}
	return "", errors.New("no cgroup v2 is mounted at /sys/fs/cgroup or /sys/fs/cgroup/unified: boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none /sys/fs/cgroup/unified")
}

func isCgroup2(dir string) error {
	var info unix.Statfs_t
	if err := unix.Statfs(dir, &info); err != nil {
		return fmt.Errorf("look at cgroup %s: %w", dir, err)
	}
	if info.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("%s is not in a cgroup v2 hierarchy", dir)
	}
	return nil
}

// Supported says why eBPF cannot balance below the cgroup, or nil. It changes
// nothing.
func Supported(cgroup string) error {
	if err := isCgroup2(cgroup); err != nil {
		return err
	}
	if err := pin.Available(); err != nil {
		return err
	}
	// bpf_set_retval is the youngest of what the programs need.
	for _, need := range []struct {
		what  string
		probe func() error
	}{
		{"cgroup programs at connect(), with an error of their own (Linux 5.18)", func() error {
			return features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnSetRetval)
		}},
		{"socket cookies in programs at close() (Linux 5.9)", func() error {
			return features.HaveProgramHelper(ebpf.CGroupSock, asm.FnGetSocketCookie)
		}},
	} {
		switch err := need.probe(); {
		case errors.Is(err, ebpf.ErrNotSupported):
			return fmt.Errorf("the kernel is too old or built without it: it lacks %s", need.what)
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("eBPF is not allowed here: it takes root, or CAP_BPF and CAP_NET_ADMIN: %w", err)
		case err != nil:
			return fmt.Errorf("probe for %s: %w", need.what, err)
		}
	}
	return nil
}

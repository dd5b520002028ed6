package testenv

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// RequireVariable names what must not be skipped, separated by commas: root,
// bpf, vm, docker. CI sets it, so that a test which cannot run fails there.
const RequireVariable = "WEIR_TEST_REQUIRE"

// NeedRoot skips the test without root, or fails it where root is required.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root", "needs root")
	}
}

// NeedNetns skips the test where network namespaces cannot be made.
func NeedNetns(t testing.TB) { t.Helper(); NeedRoot(t) }

// NeedBPF skips the test where eBPF programs cannot be loaded and pinned.
func NeedBPF(t testing.TB) {
	t.Helper()
	NeedRoot(t)
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		missing(t, "bpf", "needs a kernel with BTF")
	}
	if _, err := CgroupRoot(); err != nil {
		missing(t, "bpf", err.Error())
	}
}

func missing(t testing.TB, what, why string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv(RequireVariable), ","), what) {
		t.Fatalf("%s, and %s requires %s", why, RequireVariable, what)
	}
	t.Skip(why)
}

// CgroupRoot finds where the cgroup v2 hierarchy is mounted.
func CgroupRoot() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", &os.PathError{Op: "find cgroup v2 mount in", Path: "/sys/fs/cgroup", Err: os.ErrNotExist}
}

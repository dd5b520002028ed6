package balancertest

import (
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/testenv"
)

// isolatedVariable is set in the process that Isolated starts.
const isolatedVariable = "WEIR_TEST_ISOLATED"

// Isolated runs the calling test in a process of its own, with a network
// namespace and a cgroup of its own, and returns false; there it returns true
// and the test's body runs. The cgroup is the one in /proc/self/cgroup.
func Isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv(isolatedVariable) != "" {
		return true
	}
	testenv.NeedNetns(t)
	root, err := testenv.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	cgroup, err := os.MkdirTemp(root, "weir-balancertest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, cgroup) })
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run", "^"+regexp.QuoteMeta(t.Name())+"$")
	again.Env = append(os.Environ(), isolatedVariable+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET, UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: unix.SIGKILL,
	}
	out, err := again.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if testing.Verbose() {
		t.Logf("%s", out)
	}
	return false
}

func removeCgroup(t *testing.T, path string) {
	var err error
	for range 100 { // a process that has ended leaves it a moment later
		if err = os.Remove(path); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("remove cgroup: %v", err)
}

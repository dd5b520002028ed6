package agent

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/weirproject/weir/testenv"
)

// ownNetwork runs the test that calls it in a process with a network namespace
// of its own, where lo is up: whatever it leaves there is gone with the process.
// In the process that go test has started it reports what became of that one,
// and gives false: the test is over then.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	testenv.NeedNetns(t)
	const mark = "WEIR_TEST_OWN_NETWORK"
	if os.Getenv(mark) == t.Name() {
		command(t, "ip", "link", "set", "lo", "up")
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch text := string(out); {
	case err != nil:
		t.Errorf("%v\n%s", err, text)
	case strings.Contains(text, "--- SKIP"):
		t.Skip(text)
	}
	return false
}

// command runs one and gives its output.
func command(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/testenv"
)

// TestPackagesInstallUpgradeAndGo makes the packages at two versions and has
// scripts/try-packages take them through their life, with traffic meanwhile.
func TestPackagesInstallUpgradeAndGo(t *testing.T) {
	testenv.NeedBPF(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(root + "/bin/weir-controller"); err != nil {
		t.Skip("bin/ has no commands: run make build before")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	old, fresh := t.TempDir(), t.TempDir()
	run("scripts/packages", old, "0.0.1")
	run("scripts/packages", fresh, "0.0.2")
	for _, pattern := range []string{"weir_*.deb", "weir-agent_*.deb", "weir-controller_*.deb", "weir-0*.rpm", "weir-agent-*.rpm", "weir-controller-*.rpm"} {
		if found, _ := filepath.Glob(filepath.Join(fresh, pattern)); len(found) != 1 {
			t.Errorf("%s: %d packages, want 1", pattern, len(found))
		}
	}
	hierarchy, err := testenv.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	cgroup, err := os.MkdirTemp(hierarchy, "weir-packages-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("find", cgroup, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+").Run()
		if _, err := os.Stat(cgroup); err == nil {
			t.Errorf("the cgroup %s is left", cgroup)
		}
	})
	t.Log(run("scripts/try-packages", old, fresh, cgroup))
}

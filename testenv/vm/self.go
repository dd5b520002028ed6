package vm

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// Self runs the calling test in a VM and returns false; inside the VM it
// returns true, and the test's body runs there. It builds the package's test
// binary for that: static, without the race detector. Options.Test and Args
// are set by Self. It calls Need first.
//
//	func TestInVM(t *testing.T) {
//		if !vm.Self(t, vm.Options{Modules: []string{"ip_vs"}}) {
//			return
//		}
//		...
//	}
func Self(t *testing.T, o Options) bool {
	t.Helper()
	if Inside() {
		return true
	}
	Need(t)
	o.Test = filepath.Join(t.TempDir(), "test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", o.Test, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the test for the VM: %v\n%s", err, out)
	}
	o.Args = []string{"-test.v", "-test.run", "^" + regexp.QuoteMeta(t.Name()) + "$"}
	var kept bytes.Buffer
	o.Output = io.Writer(&kept)
	if testing.Verbose() {
		o.Output = t.Output()
	}
	status, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if status != 0 {
		t.Fatal(fmt.Sprintf("the test failed in the VM with exit status %d\n", status) + kept.String())
	}
	return false
}

package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/weirproject/weir/testenv"
)

const (
	emulator = "qemu-system-x86_64"
	// busybox must be static; Debian's package busybox-static has it here.
	busybox = "/bin/busybox"
)

// kernel is one to boot, with its modules.
type kernel struct {
	image   string
	modules string // the folder named like the release
}

// Need skips the test where no VM can be started, or fails it where
// WEIR_TEST_REQUIRE has "vm".
func Need(t testing.TB) {
	t.Helper()
	if err := usable(); err != nil {
		why := "needs a VM: " + err.Error()
		if slices.Contains(strings.Split(os.Getenv(testenv.RequireVariable), ","), "vm") {
			t.Fatalf("%s, and %s requires vm", why, testenv.RequireVariable)
		}
		t.Skip(why)
	}
}

// usable tells in words what is missing.
func usable() error {
	if runtime.GOARCH != "amd64" {
		return errors.New("the kernel that is booted is for amd64")
	}
	if _, err := exec.LookPath(emulator); err != nil {
		return fmt.Errorf("%s is missing (package qemu-system-x86)", emulator)
	}
	if _, err := os.Stat(busybox); err != nil {
		return fmt.Errorf("%s is missing (package busybox-static)", busybox)
	}
	_, err := findKernel()
	return err
}

// findKernel finds what scripts/need-kernel has unpacked.
func findKernel() (kernel, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return kernel{}, fmt.Errorf("find the kernel to boot: %w", err)
	}
	root := filepath.Join(cache, "weir-test", "kernel")
	images, _ := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	modules, _ := filepath.Glob(filepath.Join(root, "lib", "modules", "*"))
	if len(images) != 1 || len(modules) != 1 {
		return kernel{}, fmt.Errorf("there is no kernel in %s (scripts/need-kernel puts it there)", root)
	}
	return kernel{image: images[0], modules: modules[0]}, nil
}

// Package vm runs a static Go test binary on another kernel: Debian's, booted
// by qemu without KVM, from an initramfs that the package makes, with no disk
// and no network. The machine's own kernel and boot files are not touched.
//
// Tests call Self; scripts/need-kernel puts the kernel in place. Emulation is
// 10 to 30 times slower than the machine, so nothing is measured in a VM, and
// one boot serves all tests of a package.
package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// DefaultTimeout of a run, from power on to power off.
const DefaultTimeout = 120 * time.Second

// exitMark begins the line of the console that tells the test's exit status.
const exitMark = "weir-vm-exit-status "

// Options of a run.
type Options struct {
	// Test is the path of a static binary.
	Test string
	// Args are its arguments.
	Args []string
	// Modules are loaded before it starts, with what they depend on.
	Modules []string
	// Loadable modules can be loaded by modprobe inside, with what they depend on.
	Loadable []string
	// Timeout of the run; DefaultTimeout when zero.
	Timeout time.Duration
	// Output gets what the test prints, and the console's other lines; nil means
	// nowhere.
	Output io.Writer
}

// Inside tells whether this process runs in a VM of this package.
func Inside() bool { return os.Getenv(insideVariable) != "" }

// Run boots a VM, runs the test in it and returns its exit status. An error
// means that it has not run to its end; the last lines of the console are
// in it.
func Run(ctx context.Context, o Options) (status int, err error) {
	k, err := findKernel()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "weir-vm-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	initramfs := filepath.Join(dir, "initramfs")
	if err := writeInitramfs(initramfs, k, o); err != nil {
		return 0, fmt.Errorf("make initramfs: %w", err)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	return boot(ctx, o, k.image, initramfs)
}

// boot runs qemu until it ends.
func boot(ctx context.Context, o Options, image, initramfs string) (int, error) {
	qemu := exec.CommandContext(ctx, emulator, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024", "-serial", "stdio",
		"-kernel", image, "-initrd", initramfs, "-append", "console=ttyS0 panic=-1 quiet loglevel=4")
	out, in, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer out.Close()
	qemu.Stdout, qemu.Stderr = in, in
	err = qemu.Start()
	in.Close()
	if err != nil {
		return 0, fmt.Errorf("start the VM: %w", err)
	}
	status, last := readConsole(out, o.Output)
	if err := qemu.Wait(); ctx.Err() != nil {
		return 0, fmt.Errorf("run in the VM: %w; its last lines:\n%s", context.Cause(ctx), last)
	} else if err != nil {
		return 0, fmt.Errorf("run the VM: %w; its last lines:\n%s", err, last)
	}
	if status < 0 {
		return 0, fmt.Errorf("run in the VM: it ended before the test; its last lines:\n%s", last)
	}
	return status, nil
}

// readConsole copies the console to output until the VM is off. The status is
// negative when the test did not tell one; last are the last lines.
func readConsole(console io.Reader, output io.Writer) (status int, last string) {
	status = -1
	var lines []string
	for r := bufio.NewReader(console); ; {
		line, err := r.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if n, ok := strings.CutPrefix(line, exitMark); ok {
			if s, err := strconv.Atoi(n); err == nil {
				status = s
			}
		} else if line != "" {
			if output != nil {
				fmt.Fprintln(output, line)
			}
			if lines = append(lines, line); len(lines) > 30 {
				lines = lines[1:]
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				lines = append(lines, err.Error())
			}
			return status, strings.Join(lines, "\n")
		}
	}
}

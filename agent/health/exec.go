package health

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func newExecProbe(command []string, backend netip.AddrPort) probeFunc {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"WEIR_BACKEND_ADDRESS=" + backend.Addr().String(),
		"WEIR_BACKEND_PORT=" + strconv.Itoa(int(backend.Port())),
	}
	return func(ctx context.Context) error { return probeExec(ctx, command, env) }
}

func probeExec(ctx context.Context, command, env []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = "/"
	cmd.Env = env
	// The whole process group goes at the time-out, children included.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return os.ErrProcessDone
	}
	// A child that left the group may hold our end of its output for ever.
	cmd.WaitDelay = 100 * time.Millisecond
	out := &firstLine{}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) { // that one exited with 0
		return nil
	}
	if said := out.String(); said != "" {
		return answered("%s: %w: %s", command[0], err, said)
	}
	return answered("%s: %w", command[0], err)
}

// firstLine keeps the first line written to it, 200 bytes at most, and drops
// the rest.
type firstLine struct {
	line  []byte
	ended bool
}

func (f *firstLine) Write(b []byte) (int, error) {
	if !f.ended {
		line, _, ended := bytes.Cut(b, []byte("\n"))
		f.line = append(f.line, line[:min(len(line), 200-len(f.line))]...)
		f.ended = ended
	}
	return len(b), nil
}

func (f *firstLine) String() string { return strings.ToValidUTF8(string(f.line), "?") }

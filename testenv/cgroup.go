package testenv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// wiresCgroup holds the process that keeps the wires' namespace. No host can
// have this name.
const wiresCgroup = ".wires"

// killCgroup ends every process in and below the cgroup and waits until the
// kernel has let go of them. A cgroup that does not exist is no error. It
// needs Linux 5.14.
func killCgroup(ctx context.Context, path string) error {
	err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		if _, missing := os.Stat(path); missing != nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("kill cgroup %s: %w", path, err)
	}
	for {
		events, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
		if errors.Is(err, fs.ErrNotExist) || strings.Contains(string(events), "populated 0") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the processes of cgroup %s to end: %w", path, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// removeCgroup removes the empty cgroup with all below it, which the lab's
// processes may have made.
func removeCgroup(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}

// inCgroup tells whether the process is in the cgroup itself.
func inCgroup(path string, pid int) bool {
	procs, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(procs)) {
		if strings.TrimSpace(line) == strconv.Itoa(pid) {
			return true
		}
	}
	return false
}

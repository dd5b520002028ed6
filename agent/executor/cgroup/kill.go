package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// PIDs of every process in the group and in those below it; none when the group
// is gone.
func (g Group) PIDs() ([]int, error) {
	var all []int
	for _, d := range g.dirs() {
		err := filepath.WalkDir(d, func(path string, e os.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				if isGone(err) {
					return nil
				}
				return err
			}
			data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			if isGone(err) {
				return nil
			}
			for _, line := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(line); err == nil && pid > 0 && !slices.Contains(all, pid) {
					all = append(all, pid)
				}
			}
			return err
		})
		if err != nil {
			return all, fmt.Errorf("list the processes of cgroup %s: %w", d, err)
		}
	}
	return all, nil
}

// Signal sends a signal to every process of the group. One that forks at the
// same time may leave a child that it misses; Kill misses none.
func (g Group) Signal(signal unix.Signal) error {
	pids, err := g.PIDs()
	for _, pid := range pids {
		if e := unix.Kill(pid, signal); e != nil && e != unix.ESRCH {
			err = errors.Join(err, fmt.Errorf("signal process %d: %w", pid, e))
		}
	}
	return err
}

// Kill ends every process of the group, those too that are being forked, and
// returns when none is left. cgroup.kill (Linux 5.14) does it in one step;
// otherwise the group is frozen while its processes are killed.
func (g Group) Kill(ctx context.Context) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		killed := g.V2 != "" && write(filepath.Join(g.V2, "cgroup.kill"), "1") == nil
		pids, err := g.PIDs()
		if err == nil && len(pids) == 0 {
			return nil
		}
		if !killed || pause > 10*time.Millisecond {
			g.freeze(true)
			_ = g.Signal(unix.SIGKILL)
			g.freeze(false)
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("kill cgroup %s: %d processes are left", g.Path, len(pids)), err)
		case <-time.After(pause):
		}
	}
}

// freeze stops or continues every process, where the node can.
func (g Group) freeze(frozen bool) {
	if d := g.V1["freezer"]; d != "" {
		state := "THAWED"
		if frozen {
			state = "FROZEN"
		}
		_ = write(filepath.Join(d, "freezer.state"), state)
		return
	}
	state := "0"
	if frozen {
		state = "1"
	}
	_ = write(filepath.Join(g.V2, "cgroup.freeze"), state)
}

// Remove takes the empty group away, and what an OCI runtime made below it.
func (g Group) Remove() error {
	var faults []error
	for _, d := range g.dirs() {
		var below []string
		_ = filepath.WalkDir(d, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				below = append(below, path)
			}
			return nil
		})
		for _, path := range slices.Backward(below) {
			if err := unix.Rmdir(path); err != nil && !isGone(err) {
				faults = append(faults, &os.PathError{Op: "remove cgroup", Path: path, Err: err})
			}
		}
		if filepath.Dir(g.Path) != "/" {
			_ = unix.Rmdir(filepath.Dir(d)) // the last one takes the group of all with it
		}
	}
	return errors.Join(faults...)
}

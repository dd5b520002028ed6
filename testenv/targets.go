package testenv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mountTargets are the folders that every host has of its own. A machine
// without Weir lacks them, and a mount needs a folder to lie on: they are made
// while a lab is up and removed with the last one.
var mountTargets = []string{"/etc/weir", "/var/lib/weir", "/run/weir"}

// targetMode of a mount target that a lab made. The sticky bit, without meaning
// here, is the mark of a lab: it is set in the same step in which the folder
// is made, so that no crash leaves a folder without it.
const targetMode = os.ModeSticky | 0o755

// lockTargets keeps two commands from making and removing targets at once. It
// locks a folder that every machine has, since a lock file would stay behind.
func lockTargets(ctx context.Context, how int) (unlock func(), err error) {
	f, err := os.Open("/run")
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, f, how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock /run: %w", err)
	}
	return func() { f.Close() }, nil
}

// makeTargets makes the missing targets, under lockTargets.
func makeTargets() error {
	for _, dir := range mountTargets {
		if err := os.Mkdir(dir, targetMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make mount target: %w", err)
		}
	}
	return nil
}

// labTargets lists the targets that a lab made.
func labTargets() []string {
	var ours []string
	for _, dir := range mountTargets {
		if info, err := os.Lstat(dir); err == nil && info.IsDir() && info.Mode()&os.ModeSticky != 0 {
			ours = append(ours, dir)
		}
	}
	return ours
}

// removeTargets removes those targets that a lab made and no lab uses. The
// kernel would let us remove a folder under the mounts of other namespaces, and
// these mounts with it, so the mounts are looked for first.
func removeTargets(ctx context.Context) error {
	unlock, err := lockTargets(ctx, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	ours := labTargets()
	if len(ours) == 0 || mountedElsewhere(ours) {
		return nil
	}
	for _, dir := range ours {
		err := os.Remove(dir)
		if errors.Is(err, unix.ENOTEMPTY) { // somebody put files here: now theirs
			err = os.Chmod(dir, 0o755)
		}
		if err != nil {
			return fmt.Errorf("remove mount target: %w", err)
		}
	}
	return nil
}

// mountedElsewhere tells whether any process sees a mount on one of the dirs.
func mountedElsewhere(dirs []string) bool {
	tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, table := range tables {
		data, err := os.ReadFile(table)
		if err != nil {
			continue // the process has ended, and its mounts with it
		}
		for _, dir := range dirs {
			if strings.Contains(string(data), " "+dir+" ") {
				return true
			}
		}
	}
	return false
}

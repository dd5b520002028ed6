package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/agent/executor/shim"
	"github.com/weirproject/weir/api"
)

// collectEvery is how often old sandboxes are looked for.
const collectEvery = time.Minute

// makeSandbox makes the folder that the task works in, and fetches into it.
func (t *task) makeSandbox(ctx context.Context) error {
	owner := t.owner()
	if err := os.MkdirAll(t.launch.Sandbox, 0o755); err != nil {
		return err
	}
	if err := os.Chown(t.launch.Sandbox, owner.UID, owner.GID); err != nil {
		return err
	}
	for _, f := range t.launch.Spec.Fetch {
		if err := t.s.fetch(ctx, t.launch.Sandbox, f, owner); err != nil {
			return fmt.Errorf("fetch %s: %w", withoutPassword(f.URI), err)
		}
	}
	return nil
}

// owner of the sandbox: the task's user. One that the node does not know may be
// the image's; an unknown one of a process is found out when it is started.
func (t *task) owner() shim.User {
	who, err := FindUser(t.launch.Spec.User)
	if err != nil {
		return shim.User{}
	}
	return who
}

// watchDisk kills the task when its files take more than its spec allows. A walk
// that takes long is done less often.
func (t *task) watchDisk(ctx context.Context) {
	limit := t.launch.Spec.Disk
	every := t.s.options.DiskEvery
	for pause := every; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		start := time.Now()
		used, err := diskUse(ctx, t.launch.Sandbox, t.launch.Dir)
		pause = max(every, 10*time.Since(start))
		if err != nil || used <= limit {
			continue
		}
		t.kill(fmt.Sprintf("killed: its files take %d MiB, and it may have %d MiB", used>>20, limit>>20), 0)
		return
	}
}

// diskUse is what folders take, mounts in them aside: blocks, so that holes
// count nothing, and a file with two names once.
func diskUse(ctx context.Context, dirs ...string) (uint64, error) {
	var sum uint64
	seen := map[uint64]bool{}
	for _, dir := range dirs {
		var top unix.Stat_t
		if err := unix.Lstat(dir, &top); err != nil {
			return 0, err
		}
		err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				return nil // gone meanwhile
			}
			info, err := e.Info()
			if err != nil {
				return nil
			}
			stat, ok := info.Sys().(*syscall.Stat_t)
			if !ok {
				return nil
			}
			if stat.Dev != top.Dev {
				if e.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
			if stat.Nlink > 1 && !e.IsDir() {
				if seen[stat.Ino] {
					return nil
				}
				seen[stat.Ino] = true
			}
			sum += uint64(stat.Blocks) * 512
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return sum, nil
}

// collect removes old sandboxes of tasks that are forgotten, until ctx ends.
func (s *Supervisor) collect(ctx context.Context) {
	ticker := time.NewTicker(collectEvery)
	defer ticker.Stop()
	for {
		s.collectOnce(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// collectOnce removes what is older than it is kept, and more, the oldest
// first, while the disk is nearly full.
func (s *Supervisor) collectOnce(now time.Time) {
	for _, root := range []string{filepath.Join(s.options.DataDir, "sandbox"), s.cacheDir()} {
		for _, e := range s.unused(root) {
			if now.Sub(e.ModTime()) < s.options.Keep && !nearlyFull(root) {
				break
			}
			path := filepath.Join(root, e.Name())
			if err := os.RemoveAll(path); err != nil {
				s.log.Warn("old files of a task not removed", "path", path, "error", err)
				continue
			}
			s.log.Info("old files of a task removed", "path", path)
		}
	}
}

// unused entries of a folder, the oldest first.
func (s *Supervisor) unused(root string) []fs.FileInfo {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("old files of tasks not found", "path", root, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []fs.FileInfo
	for _, e := range entries {
		if s.tasks[e.Name()] != nil || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if info, err := e.Info(); err == nil {
			all = append(all, info)
		}
	}
	slices.SortFunc(all, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	return all
}

// nearlyFull tells that less than a tenth of a disk is free.
func nearlyFull(path string) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && s.Bavail < s.Blocks/10
}

// observe starts what looks at a running task until ctx ends.
func (t *task) observe(ctx context.Context, beside interface{ Go(func()) }) {
	if t.launch.Spec.Disk > 0 {
		beside.Go(func() { t.watchDisk(ctx) })
	}
	spec := t.launch.Spec
	t.update(func(s *api.TaskStatus) { // those of the agent before stay
		if len(s.Checks) != len(spec.Checks) {
			s.Checks = make([]api.CheckStatus, len(spec.Checks))
		}
	})
	for i := range spec.Checks {
		beside.Go(func() { t.check(ctx, i) })
	}
	if spec.Ready != nil {
		beside.Go(func() { t.checkReady(ctx) })
	}
}

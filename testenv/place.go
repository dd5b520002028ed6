package testenv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultRoot is the folder that holds one folder per lab.
const DefaultRoot = "/run/weir-lab"

// place is where a lab lives: its folder and its cgroup, both named after it.
type place struct {
	root, name string
	cgroups    string // mount of the cgroup v2 hierarchy
}

// newPlace finds a lab's place; nothing needs to exist there.
func newPlace(root, name string) (place, error) {
	if root == "" {
		root = DefaultRoot
	}
	if !nameSyntax.MatchString(name) {
		return place{}, fmt.Errorf("lab name %q %s", name, nameRule)
	}
	cgroups, err := CgroupRoot()
	return place{root, name, cgroups}, err
}

// cgroupParent holds the cgroups of all labs of this root.
func (p place) cgroupParent() string { return filepath.Join(p.cgroups, filepath.Base(p.root)) }

// cgroup is the lab's own, with one below it for each host.
func (p place) cgroup() string { return filepath.Join(p.cgroupParent(), p.name) }

// dir is the lab's folder.
func (p place) dir() string { return filepath.Join(p.root, p.name) }

func (p place) file(parts ...string) string {
	return filepath.Join(append([]string{p.dir()}, parts...)...)
}

// disk is the part of the host's view that survives a loss of power.
func (p place) disk(host string, parts ...string) string {
	return filepath.Join(append([]string{p.dir(), "hosts", host}, parts...)...)
}

func (p place) hostCgroup(host string) string { return filepath.Join(p.cgroup(), host) }

// exists tells whether anything of the lab is there, were it only the remains
// of a crashed Up.
func (p place) exists() bool {
	for _, path := range []string{p.dir(), p.cgroup()} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// create makes the lab's folder. It fails with fs.ErrExist when anything of the
// lab is there.
func (p place) create() error {
	if isDir(p.cgroup()) {
		return fs.ErrExist
	}
	for {
		if err := os.MkdirAll(p.root, 0o755); err != nil {
			return err
		}
		err := os.Mkdir(p.dir(), 0o755)
		// The last lab's Down may remove the root between the two steps.
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
}

// createCgroup makes a cgroup of the lab; host may be wiresCgroup.
func (p place) createCgroup(host string) error {
	for {
		err := os.MkdirAll(p.hostCgroup(host), 0o755)
		if !errors.Is(err, fs.ErrNotExist) { // the parent went, as in create
			return err
		}
	}
}

// lock keeps other commands that change the lab out until unlock is called. It
// waits for them, and lets nobody wait for a dead one: the kernel drops the
// lock of a process that ends. The lock is the folder itself, so that no file
// is left behind; a folder that was replaced meanwhile is locked anew.
func (p place) lock(ctx context.Context) (unlock func(), err error) {
	for {
		f, err := os.Open(p.dir())
		if err != nil {
			return nil, fmt.Errorf("lock lab %q: %w", p.name, err)
		}
		if err = flock(ctx, f, unix.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock lab %q: another command is changing it: %w", p.name, err)
		}
		locked, _ := f.Stat()
		if now, err := os.Stat(p.dir()); err == nil && os.SameFile(locked, now) {
			return func() { f.Close() }, nil
		}
		f.Close()
	}
}

func flock(ctx context.Context, f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// places lists the labs below root, complete or not, by name.
func places(root string) ([]place, error) {
	any, err := newPlace(root, "any")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, dir := range []string{any.root, any.cgroupParent()} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() && nameSyntax.MatchString(e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	var all []place
	for _, name := range slices.Compact(names) {
		any.name = name
		all = append(all, any)
	}
	return all, nil
}

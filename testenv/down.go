package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Down ends the lab of that name below root (empty: DefaultRoot) with all that
// belongs to it, complete or not. The error wraps ErrNotUp when there is none.
func Down(ctx context.Context, root, name string) error {
	p, err := newPlace(root, name)
	if err != nil {
		return err
	}
	if !p.exists() {
		return fmt.Errorf("lab %q %w", name, ErrNotUp)
	}
	if isDir(p.dir()) {
		unlock, err := p.lock(ctx)
		switch {
		case errors.Is(err, os.ErrNotExist): // another Down was faster
		case err != nil:
			return err
		default:
			defer unlock()
		}
	}
	return p.remove(ctx)
}

// DownAll ends every lab below root and returns the names of those that ended.
func DownAll(ctx context.Context, root string) ([]string, error) {
	all, err := places(root)
	if err != nil {
		return nil, err
	}
	var ended []string
	var failed []error
	for _, p := range all {
		err := Down(ctx, root, p.name)
		if err == nil {
			ended = append(ended, p.name)
		} else if !errors.Is(err, ErrNotUp) {
			failed = append(failed, err)
		}
	}
	// A crash may have left mount targets without any lab.
	return ended, errors.Join(errors.Join(failed...), removeTargets(ctx))
}

// Down ends the lab.
func (l *Lab) Down(ctx context.Context) error { return Down(ctx, l.root, l.name) }

// remove works from what exists and not from what was recorded. The end of the
// processes ends namespaces, links, mounts and pins; then the cgroups are empty
// and the folder is a folder.
func (p place) remove(ctx context.Context) error {
	if err := killCgroup(ctx, p.cgroup()); err != nil {
		return fmt.Errorf("take lab %q down: %w", p.name, err)
	}
	if err := errors.Join(removeCgroup(p.cgroup()), os.RemoveAll(p.dir())); err != nil {
		return fmt.Errorf("take lab %q down: %w", p.name, err)
	}
	// Both hold only labs: they go with the last one, and stay for others.
	_, _ = os.Remove(p.cgroupParent()), os.Remove(p.root)
	return removeTargets(ctx)
}

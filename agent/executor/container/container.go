// Package container runs a task in an OCI image without a daemon: the image is
// pulled or read from a file, its layers are unpacked once each, an overlay of
// them is the root, and an OCI runtime (runc) starts it, held by a shim as every
// other task is.
//
// A container has few capabilities, no system calls that reach behind its
// namespaces, and neither of the node's secrets in /proc and /sys, unless it is
// privileged.
package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weirproject/weir/agent/executor"
	"github.com/weirproject/weir/agent/executor/cgroup"
	"github.com/weirproject/weir/agent/executor/shim"
)

// DefaultRuntime is the OCI runtime when none is named.
const DefaultRuntime = "runc"

// Options of the executor.
type Options struct {
	// Binary that is executed as the shim; empty: the one that runs.
	Binary string
	// Runtime is the OCI runtime's command; empty means runc. State is where it
	// keeps what it knows of containers.
	Runtime, State string
	// Images is the folder of images and their layers.
	Images string
	// Cgroup is the folder in the version 2 hierarchy below which tasks live;
	// empty: its top. Parent is the name of the group that holds them all.
	Cgroup, Parent string
	// MaxPIDs is how many processes and threads a task may have; 0: no limit.
	MaxPIDs int
}

// New makes the executor.
func New(o Options) *executor.Shims {
	if o.Runtime == "" {
		o.Runtime = DefaultRuntime
	}
	return executor.NewShims(&planner{options: o, images: newStore(o.Images)}, o.Binary)
}

type planner struct {
	options Options
	images  *store
}

// Prepare brings the image.
func (p *planner) Prepare(ctx context.Context, l executor.Launch) error {
	c := l.Spec.Container
	switch {
	case c == nil || c.Image == "":
		return errors.New("container.image is missing")
	case len(c.Parameters) > 0:
		return fmt.Errorf("container.parameters: %s is an option of Docker, and this container has no daemon", c.Parameters[0].Key)
	case c.TTY:
		return errors.New("container.tty: a container without a daemon has no terminal of its own")
	}
	i, err := p.images.get(ctx, c.Image, c.ForcePull)
	if err != nil {
		return fmt.Errorf("get image %s: %w", c.Image, err)
	}
	return shim.WriteFile(filepath.Join(l.Dir, "image.json"), i)
}

// Plan writes the bundle and makes the shim's plan.
func (p *planner) Plan(_ context.Context, l executor.Launch) (shim.Plan, error) {
	var i image
	if err := shim.ReadFile(filepath.Join(l.Dir, "image.json"), &i); err != nil {
		return shim.Plan{}, err
	}
	group, err := cgroup.Find(p.options.Cgroup, p.options.Parent, l.Spec.ID)
	if err != nil {
		return shim.Plan{}, err
	}
	who, home, err := findUser(p.images.layers(i), pick(l.Spec.User, i.Config.User))
	if err != nil {
		return shim.Plan{}, err
	}
	rootfs, upper, work := filepath.Join(l.Dir, "rootfs"), filepath.Join(l.Dir, "upper"), filepath.Join(l.Dir, "work")
	for _, d := range []string{rootfs, upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return shim.Plan{}, err
		}
	}
	if err := os.Chown(l.Sandbox, who.UID, who.GID); err != nil { // the image's user, whom the node may not know
		return shim.Plan{}, err
	}
	config, err := newConfig(l, i, who, home, group.Path)
	if err != nil {
		return shim.Plan{}, err
	}
	config.Root.Path = rootfs
	data, err := json.Marshal(config)
	if err != nil {
		return shim.Plan{}, err
	}
	if err := os.WriteFile(filepath.Join(l.Dir, "config.json"), data, 0o600); err != nil {
		return shim.Plan{}, err
	}
	lower := p.images.layers(i)
	slices.Reverse(lower) // overlayfs has the uppermost first
	return shim.Plan{
		ID: l.Spec.ID, Group: group, Sandbox: l.Sandbox, Owner: who,
		Limit:   cgroup.Limits{Shares: l.Spec.CPUs, Quota: l.Spec.CPULimit, Memory: l.Spec.Memory, PIDs: p.options.MaxPIDs},
		Runtime: p.options.Runtime, State: p.options.State, Bundle: l.Dir, FirstOnly: true,
		Before: []shim.Mount{{
			Type: "overlay", Source: "overlay", Target: rootfs,
			Data: fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(lower, ":"), upper, work),
		}},
	}, nil
}

// Remove has nothing to take away: the shim undoes the mounts, and the folder
// goes with the task.
func (p *planner) Remove(context.Context, executor.Launch) error { return nil }

// pick is the first that is not empty.
func pick(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

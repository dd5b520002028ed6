// Package process runs a task as a plain process of the node: in a cgroup and a
// session of its own, as its user, in the node's network or in a network
// namespace of its own.
package process

import (
	"context"
	"errors"

	"github.com/weirproject/weir/agent/executor"
	"github.com/weirproject/weir/agent/executor/cgroup"
	"github.com/weirproject/weir/agent/executor/shim"
)

// Options of the executor.
type Options struct {
	// Binary that is executed as the shim; empty: the one that runs.
	Binary string
	// Cgroup is the folder in the version 2 hierarchy below which tasks live;
	// empty: its top. Parent is the name of the group that holds them all.
	Cgroup, Parent string
	// MaxPIDs is how many processes and threads a task may have; 0: no limit.
	MaxPIDs int
}

// New makes the executor.
func New(o Options) *executor.Shims { return executor.NewShims(&planner{o}, o.Binary) }

type planner struct{ options Options }

// Prepare has nothing to bring.
func (p *planner) Prepare(context.Context, executor.Launch) error { return nil }

// Remove has nothing to take away.
func (p *planner) Remove(context.Context, executor.Launch) error { return nil }

// Plan makes the shim's plan of a task.
func (p *planner) Plan(_ context.Context, l executor.Launch) (shim.Plan, error) {
	spec := l.Spec
	args := spec.Args
	switch {
	case spec.Command != "" && len(args) > 0:
		return shim.Plan{}, errors.New("command and args are both given")
	case spec.Command != "":
		args = []string{"/bin/sh", "-c", spec.Command}
	case len(args) == 0:
		return shim.Plan{}, errors.New("command is missing, and so are args")
	}
	who, err := executor.FindUser(spec.User)
	if err != nil {
		return shim.Plan{}, err
	}
	group, err := cgroup.Find(p.options.Cgroup, p.options.Parent, spec.ID)
	if err != nil {
		return shim.Plan{}, err
	}
	return shim.Plan{
		ID: spec.ID, Group: group, Sandbox: l.Sandbox, Owner: who,
		Limit: cgroup.Limits{Shares: spec.CPUs, Quota: spec.CPULimit, Memory: spec.Memory, PIDs: p.options.MaxPIDs},
		Process: shim.Process{
			Args: args, Env: l.Env, Dir: l.Sandbox, User: who,
			Netns: l.Netns, Host: l.Host, Binds: l.Files,
		},
	}, nil
}

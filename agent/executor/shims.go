package executor

import (
	"context"
	"time"

	"github.com/weirproject/weir/agent/executor/shim"
)

// Planner makes shims' plans of tasks: it is all that differs between a plain
// process and a container.
type Planner interface {
	// Prepare brings what the plan needs and takes long.
	Prepare(ctx context.Context, l Launch) error
	// Plan makes the plan; it may write into the launch's folder.
	Plan(ctx context.Context, l Launch) (shim.Plan, error)
	// Remove takes away what Plan made.
	Remove(ctx context.Context, l Launch) error
}

// Shims is the Executor of tasks that have shims.
type Shims struct {
	planner Planner
	binary  string
}

// NewShims makes an Executor. The binary is what is executed as the shim, and
// must call shim.Run and shim.Init; empty is the one that runs.
func NewShims(p Planner, binary string) *Shims { return &Shims{planner: p, binary: binary} }

func (x *Shims) task(l Launch) shim.Task { return shim.Open(l.Dir, x.binary) }

// Prepare implements Executor.
func (x *Shims) Prepare(ctx context.Context, l Launch) error { return x.planner.Prepare(ctx, l) }

// Begun implements Executor.
func (x *Shims) Begun(l Launch) bool { return x.task(l).Planned() }

// Start implements Executor.
func (x *Shims) Start(ctx context.Context, l Launch) error {
	plan, err := x.planner.Plan(ctx, l)
	if err != nil {
		return err
	}
	return x.task(l).Start(plan)
}

// Wait implements Executor.
func (x *Shims) Wait(ctx context.Context, l Launch, running func(int, time.Time)) (Exit, error) {
	return x.task(l).Wait(ctx, running)
}

// Stop implements Executor.
func (x *Shims) Stop(_ context.Context, l Launch, grace time.Duration, reason string) error {
	return x.task(l).Stop(grace, reason)
}

// Usage implements Executor.
func (x *Shims) Usage(l Launch) Usage {
	plan, err := x.task(l).Plan()
	if err != nil {
		return Usage{}
	}
	u := plan.Group.Usage()
	return Usage{CPUSeconds: u.CPUSeconds, Memory: u.Memory}
}

// Exec implements Executor.
func (x *Shims) Exec(ctx context.Context, l Launch, c Command) (int, error) {
	return x.task(l).Exec(ctx, c.Args, c.TTY, c.Stdio)
}

// Remove implements Executor.
func (x *Shims) Remove(ctx context.Context, l Launch) error { return x.planner.Remove(ctx, l) }

// Package fake is an Executor without processes, for tests of what stands above
// executors.
package fake

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/weirproject/weir/agent/executor"
)

// Executor holds tasks in memory; they run until End is called. It may outlive
// the Supervisor that uses it, as real tasks do. The zero value is ready.
type Executor struct {
	// Prepared is called by Prepare; nil: nothing happens.
	Prepared func(ctx context.Context, id string) error

	mu    sync.Mutex // guards what follows
	tasks map[string]*task
}

type task struct {
	starts int
	since  time.Time
	exit   executor.Exit
	done   chan struct{}
}

// Starts is how often a task was started.
func (x *Executor) Starts(id string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t := x.tasks[id]; t != nil {
		return t.starts
	}
	return 0
}

// End has a task end; one that is not there or has ended stays as it is.
func (x *Executor) End(id string, exit executor.Exit) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.tasks[id]
	if t == nil {
		return
	}
	select {
	case <-t.done:
	default:
		exit.Started, exit.Ended = t.since, time.Now()
		t.exit = exit
		close(t.done)
	}
}

// Prepare implements executor.Executor.
func (x *Executor) Prepare(ctx context.Context, l executor.Launch) error {
	if x.Prepared == nil {
		return nil
	}
	return x.Prepared(ctx, l.Spec.ID)
}

// Begun implements executor.Executor.
func (x *Executor) Begun(l executor.Launch) bool { return x.Starts(l.Spec.ID) > 0 }

// Start implements executor.Executor.
func (x *Executor) Start(_ context.Context, l executor.Launch) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.tasks == nil {
		x.tasks = map[string]*task{}
	}
	if t := x.tasks[l.Spec.ID]; t != nil {
		t.starts++
		return nil
	}
	x.tasks[l.Spec.ID] = &task{starts: 1, since: time.Now(), done: make(chan struct{})}
	return nil
}

// Wait implements executor.Executor.
func (x *Executor) Wait(ctx context.Context, l executor.Launch, running func(int, time.Time)) (executor.Exit, error) {
	x.mu.Lock()
	t := x.tasks[l.Spec.ID]
	x.mu.Unlock()
	if t == nil {
		return executor.Exit{}, errors.New("the task is not there")
	}
	running(1, t.since)
	select {
	case <-ctx.Done():
		return executor.Exit{}, ctx.Err()
	case <-t.done:
		return t.exit, nil
	}
}

// Stop implements executor.Executor: the task ends at once.
func (x *Executor) Stop(_ context.Context, l executor.Launch, _ time.Duration, reason string) error {
	x.End(l.Spec.ID, executor.Exit{Signal: 15, Stopped: true, Reason: reason})
	return nil
}

// Usage implements executor.Executor.
func (x *Executor) Usage(executor.Launch) executor.Usage { return executor.Usage{} }

// Exec implements executor.Executor: every command ends with 0.
func (x *Executor) Exec(context.Context, executor.Launch, executor.Command) (int, error) {
	return 0, nil
}

// Remove implements executor.Executor.
func (x *Executor) Remove(context.Context, executor.Launch) error { return nil }

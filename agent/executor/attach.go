package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/weirproject/weir/api"
)

// attach makes the namespace and its networks.
func (t *task) attach(ctx context.Context) error {
	if t.launch.Netns == "" {
		return nil
	}
	if t.s.options.Networks == nil {
		return errors.New("this node has no networks of containers: the task can have the host's only")
	}
	if t.makesNetns() { // the addresses are known when it runs
		return t.writeNames(nil)
	}
	if err := makeNetns(t.launch.Netns); err != nil {
		return err
	}
	return t.join(ctx)
}

func (t *task) makesNetns() bool {
	n, ok := t.executor.(Namespacer)
	return ok && n.MakesNetns()
}

// attachLate attaches a running task to its networks, in the namespace of its
// first process.
func (t *task) attachLate(ctx context.Context, pid int) {
	if t.launch.Netns == "" || !t.makesNetns() {
		return
	}
	err := bindNetnsOf(pid, t.launch.Netns)
	if err == nil {
		err = t.join(ctx)
	}
	if err != nil && ctx.Err() == nil {
		t.kill(err.Error(), 0)
	}
}

func (t *task) join(ctx context.Context) error {
	spec := t.launch.Spec
	addresses, err := t.s.options.Networks.Attach(ctx, spec.ID, t.launch.Netns, spec.Networks, spec.Ports)
	if err != nil {
		return fmt.Errorf("attach to networks: %w", err)
	}
	t.update(func(s *api.TaskStatus) { s.Addresses = addresses })
	return t.writeNames(addresses)
}

package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// KillAgent ends the host's agent with SIGKILL and touches nothing else. It
// fails when the agent does not run.
func (l *Lab) KillAgent(ctx context.Context, host string) error {
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := l.agent(host)
	if err != nil {
		return err
	}
	if !p.alive() {
		return fmt.Errorf("the agent of host %s does not run", host)
	}
	if err := unix.Kill(p.pid, unix.SIGKILL); err != nil {
		return fmt.Errorf("kill the agent of host %s: %w", host, err)
	}
	return p.waitEnd(ctx)
}

// KillDetached ends a command that Detach started, and its children that did
// not leave its process group, with SIGKILL. It fails when it does not run.
func (l *Lab) KillDetached(ctx context.Context, host, name string) error {
	if _, err := l.host(host); err != nil {
		return err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := readProcess(l.disk(host, name+detachedSuffix))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if !p.alive() {
		return fmt.Errorf("%s does not run on host %s", name, host)
	}
	if err := unix.Kill(-p.pid, unix.SIGKILL); err != nil {
		return fmt.Errorf("kill %s on host %s: %w", name, host, err)
	}
	return p.waitEnd(ctx)
}

// waitEnd returns when the process has ended.
func (p process) waitEnd(ctx context.Context) error {
	for p.alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of process %d: %w", p.pid, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// PowerOff ends every process of the host at once and takes its links down.
// What is on its disk stays: /etc/weir and /var/lib/weir.
func (l *Lab) PowerOff(ctx context.Context, host string) error {
	if _, err := l.host(host); err != nil {
		return err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return l.powerOff(ctx, l.index(host))
}

// Start boots the host after PowerOff, or starts its controller or agent alone
// after one was killed, and returns when they are ready (wait; 0 means 30 s).
// Detached commands are not started again. It fails when all of it runs already.
func (l *Lab) Start(ctx context.Context, host string, wait time.Duration) error {
	h, err := l.host(host)
	if err != nil {
		return err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	_, off := l.init(host)
	agent, _ := l.agent(host)
	controller, _ := l.controller(host)
	if off == nil && (!h.RunsAgent() || agent.alive()) && (!h.RunsController() || controller.alive()) {
		return fmt.Errorf("host %s runs already", host)
	}
	if off != nil {
		// A host whose first process was killed may still have others.
		if err := l.powerOff(ctx, l.index(host)); err != nil {
			return err
		}
		if err := l.boot(ctx, l.index(host)); err != nil {
			return fmt.Errorf("boot host %s: %w", host, err)
		}
	}
	if wait == 0 {
		wait = 30 * time.Second
	}
	if h.RunsController() && (off != nil || !controller.alive()) {
		if err := l.startController(host); err != nil {
			return err
		}
		if err := l.waitController(ctx, host, wait); err != nil {
			return err
		}
	}
	if !h.RunsAgent() || off == nil && agent.alive() {
		return nil
	}
	if err := l.startAgent(host); err != nil {
		return err
	}
	return l.waitReady(ctx, host, wait)
}

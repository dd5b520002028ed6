// Package docker runs a task by the Docker Engine of the node, over its API.
//
// Our containers have names and labels of ours, by which they are found again; no other is touched. A
// container is created first, a mark is left, and then it is started: so none is
// started twice, whatever dies in between.
package docker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/agent/executor"
	"github.com/weirproject/weir/agent/executor/cgroup"
)

// DefaultSocket is where the engine listens.
const DefaultSocket = "/var/run/docker.sock"

// The labels of our containers.
const (
	LabelTask = "io.weir.task"
	LabelNode = "io.weir.node"
)

const (
	// startedFile is the mark in the task's folder; its content is of no use.
	startedFile = "docker-started"
	// reasonFile has why the task was told to end.
	reasonFile = "docker-stopped"
	// retry is how long the engine is given that does not answer.
	retry = time.Second
)

// Options of the executor.
type Options struct {
	// Socket of the engine; empty means DefaultSocket.
	Socket string
	// Node is the name of this node.
	Node string
	// Cgroup is the folder in the version 2 hierarchy below which tasks live;
	// empty: its top. Parent is the name of the group that holds them all.
	Cgroup, Parent string
	// MaxPIDs is how many processes and threads a task may have; 0: no limit.
	MaxPIDs int
}

// Executor runs containers by an engine. Any number of goroutines may use it.
type Executor struct {
	options Options
	engine  *client.Client
}

// New makes the executor. The engine is asked for nothing yet; the version of
// its API is negotiated at the first request.
func New(o Options) (*Executor, error) {
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	engine, err := client.New(client.WithHost("unix://" + o.Socket))
	if err != nil {
		return nil, fmt.Errorf("make a client of the Docker Engine: %w", err)
	}
	return &Executor{options: o, engine: engine}, nil
}

// name of a task's container.
func containerName(l executor.Launch) string { return "weir-" + l.Spec.ID }

// MakesNetns implements executor.Namespacer.
func (x *Executor) MakesNetns() bool { return true }

// Prepare brings the image.
func (x *Executor) Prepare(ctx context.Context, l executor.Launch) error {
	c := l.Spec.Container
	if c == nil || c.Image == "" {
		return errors.New("container.image is missing")
	}
	if !c.ForcePull {
		if _, err := x.engine.ImageInspect(ctx, c.Image); err == nil {
			return nil
		} else if !errdefs.IsNotFound(err) {
			return fmt.Errorf("look for image %s: %w", c.Image, err)
		}
	}
	pull, err := x.engine.ImagePull(ctx, c.Image, client.ImagePullOptions{})
	if err != nil {
		return fmt.Errorf("pull image %s: %w", c.Image, err)
	}
	defer pull.Close()
	if err := pull.Wait(ctx); err != nil {
		return fmt.Errorf("pull image %s: %w", c.Image, err)
	}
	return nil
}

// Begun implements executor.Executor.
func (x *Executor) Begun(l executor.Launch) bool {
	_, err := os.Stat(filepath.Join(l.Dir, startedFile))
	return err == nil
}

// Start implements executor.Executor.
func (x *Executor) Start(ctx context.Context, l executor.Launch) error {
	info, err := x.engine.Info(ctx, client.InfoOptions{})
	if err != nil {
		return fmt.Errorf("ask the Docker Engine: %w", err)
	}
	o, err := x.create(l, info.Info.CgroupDriver)
	if err != nil {
		return err
	}
	if _, err := x.engine.ContainerCreate(ctx, o); err != nil && !errdefs.IsConflict(err) { // it may be there from before a crash
		return fmt.Errorf("create container: %w", err)
	}
	if err := leave(filepath.Join(l.Dir, startedFile), ""); err != nil {
		return err
	}
	if _, err := x.engine.ContainerStart(ctx, containerName(l), client.ContainerStartOptions{}); err != nil && ctx.Err() == nil {
		return fmt.Errorf("start container: %w", err)
	}
	return nil
}

// leave writes a file that is on disk when it returns.
func leave(path, text string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// Wait implements executor.Executor. While the engine does not answer, it waits.
func (x *Executor) Wait(ctx context.Context, l executor.Launch, running func(int, time.Time)) (executor.Exit, error) {
	for {
		exit, ended, err := x.look(ctx, l, running)
		if ended {
			return exit, err
		}
		select {
		case <-ctx.Done():
			return exit, ctx.Err()
		case <-time.After(retry):
		}
	}
}

// look waits for the container's end once.
func (x *Executor) look(ctx context.Context, l executor.Launch, running func(int, time.Time)) (exit executor.Exit, ended bool, err error) {
	name := containerName(l)
	found, err := x.engine.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	switch {
	case errdefs.IsNotFound(err):
		return executor.Exit{Reason: "its container was removed by somebody else"}, true, nil
	case err != nil:
		return exit, false, err
	}
	state := found.Container.State
	switch state.Status {
	case container.StateCreated: // the agent died between the mark and the start
		_, err := x.engine.ContainerStart(ctx, name, client.ContainerStartOptions{})
		if err != nil && ctx.Err() == nil {
			return executor.Exit{Reason: "start container: " + err.Error(), Unstarted: true}, true, nil
		}
		return x.look(ctx, l, running)
	case container.StateExited, container.StateDead:
		return x.exit(l, state), true, nil
	}
	x.join(l, state.Pid)
	since, _ := time.Parse(time.RFC3339Nano, state.StartedAt)
	running(state.Pid, since)
	wait := x.engine.ContainerWait(ctx, name, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case <-wait.Result:
		return x.look(ctx, l, running)
	case err := <-wait.Error:
		return exit, false, err
	}
}

// exit tells how a container ended. The engine adds 128 to a signal's number.
func (x *Executor) exit(l executor.Launch, s *container.State) executor.Exit {
	exit := executor.Exit{Code: s.ExitCode, Reason: s.Error}
	exit.Started, _ = time.Parse(time.RFC3339Nano, s.StartedAt)
	exit.Ended, _ = time.Parse(time.RFC3339Nano, s.FinishedAt)
	if signal := s.ExitCode - 128; signal > 0 && signal < 65 && unix.SignalName(unix.Signal(signal)) != "" {
		exit.Code, exit.Signal = 0, signal
	}
	reason, err := os.ReadFile(filepath.Join(l.Dir, reasonFile))
	exit.Stopped = err == nil
	switch {
	case exit.Stopped:
		exit.Reason = string(reason)
	case s.OOMKilled:
		exit.Reason = fmt.Sprintf("killed by the kernel: out of memory (%d MiB)", l.Spec.Memory>>20)
	}
	return exit
}

// group is the container's place in the version 2 hierarchy where that has no
// limits: the engine knows version 1 alone there, and leaves it where it is.
func (x *Executor) group(l executor.Launch) cgroup.Group {
	g, err := cgroup.Find(x.options.Cgroup, x.options.Parent, l.Spec.ID)
	if err != nil || g.Limited {
		return cgroup.Group{}
	}
	return cgroup.Group{V2: g.V2}
}

func (x *Executor) join(l executor.Launch, pid int) {
	if g := x.group(l); g.V2 != "" && os.MkdirAll(g.V2, 0o755) == nil {
		_ = g.AddV2(pid) // it may have ended
	}
}

// Stop implements executor.Executor.
func (x *Executor) Stop(ctx context.Context, l executor.Launch, grace time.Duration, reason string) error {
	path := filepath.Join(l.Dir, reasonFile)
	if _, err := os.Stat(path); err != nil { // the first reason stays
		if err := leave(path, reason); err != nil {
			return err
		}
	}
	if grace <= 0 {
		_, err := x.engine.ContainerKill(ctx, containerName(l), client.ContainerKillOptions{Signal: "SIGKILL"})
		return gone(err)
	}
	seconds := int(math.Ceil(grace.Seconds()))
	go func() {
		// The engine answers when the container has ended. An agent that is started
		// meanwhile tells it again.
		ctx, cancel := context.WithTimeout(ctx, grace+time.Minute)
		defer cancel()
		_, _ = x.engine.ContainerStop(ctx, containerName(l), client.ContainerStopOptions{Timeout: &seconds})
	}()
	return nil
}

func gone(err error) error {
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) { // not there, or not running
		return executor.ErrEnded
	}
	return err
}

// Remove implements executor.Executor. The container's logs go with it.
func (x *Executor) Remove(ctx context.Context, l executor.Launch) error {
	if g := x.group(l); g.V2 != "" {
		_ = g.Remove()
	}
	if err := x.keepLogs(ctx, l); err != nil && !errors.Is(err, executor.ErrEnded) { // there may never have been one
		return fmt.Errorf("keep the container's logs: %w", err)
	}
	_, err := x.engine.ContainerRemove(ctx, containerName(l), client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container: %w", err)
	}
	return nil
}

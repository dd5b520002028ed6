package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"github.com/weirproject/weir/agent/executor"
	"github.com/weirproject/weir/agent/executor/container"
	"github.com/weirproject/weir/agent/executor/docker"
	"github.com/weirproject/weir/agent/executor/process"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

const (
	// taskGroup is the cgroup that holds those of all tasks.
	taskGroup = "weir-tasks"
	// maxTaskPIDs is how many processes and threads a task may have, so that a
	// fork bomb leaves room for the node.
	maxTaskPIDs = 4096
)

// tasksComponent runs the tasks that the snapshot has for this node.
type tasksComponent struct {
	agent      *Agent
	supervisor *executor.Supervisor
	wanted     atomic.Int64 // tasks of the last snapshot
}

// newTasks finds the tasks of the agent that ran before. Nothing is started or
// ended before the first snapshot.
func (a *Agent) newTasks() (*tasksComponent, error) {
	// Without cgroup v2 there is no eBPF that tasks would have to be below.
	group, _ := a.cgroup()
	engine, err := docker.New(docker.Options{Node: a.config.Node.Name, Cgroup: group, Parent: taskGroup, MaxPIDs: maxTaskPIDs})
	if err != nil {
		return nil, err
	}
	// A node without runc or Docker says so when a task needs it.
	runtimes := map[api.Runtime]executor.Executor{
		api.RuntimeProcess: process.New(process.Options{Cgroup: group, Parent: taskGroup, MaxPIDs: maxTaskPIDs}),
		api.RuntimeContainer: container.New(container.Options{
			Cgroup: group, Parent: taskGroup, MaxPIDs: maxTaskPIDs,
			Images: a.dataPath("images"), State: filepath.Join(a.config.RunDir, "containers"),
		}),
		api.RuntimeDocker: engine,
	}
	s, err := executor.New(executor.Options{
		Log: a.log, DataDir: a.config.DataDir, RunDir: a.config.RunDir, Executors: runtimes,
		Host: a.taskHost, OnChange: a.tellTask, Networks: a.networks,
		ResolvConf: func() []byte { return ResolvConf(a.config, nil) },
	})
	if err != nil {
		return nil, fmt.Errorf("look for tasks: %w", err)
	}
	return &tasksComponent{agent: a, supervisor: s}, nil
}

// taskHost is how tasks know their node: its first address, or its name.
func (a *Agent) taskHost() string {
	addresses := a.config.Node.Addresses
	if s := a.snapshot.Load(); s != nil && len(addresses) == 0 {
		addresses = s.Node.Addresses
	}
	if len(addresses) > 0 {
		return addresses[0].String()
	}
	return a.config.Node.Name
}

// tellTask tells the controllers of a task at once.
func (a *Agent) tellTask(s api.TaskStatus) {
	if a.joined != nil {
		a.joined.tell(api.Report{Tasks: []api.TaskStatus{s}})
	}
}

func (t *tasksComponent) backend() string     { return "executor" }
func (t *tasksComponent) followsStates() bool { return false }
func (t *tasksComponent) close() error        { return nil }
func (t *tasksComponent) detail() string {
	if n := t.wanted.Load(); n > 0 {
		return fmt.Sprintf("%d tasks", n)
	}
	return ""
}

// apply begins and ends tasks; how they fare is told by the supervisor.
func (t *tasksComponent) apply(_ context.Context, s *api.Snapshot) (dataplane.Changes, error) {
	t.wanted.Store(int64(len(s.Run)))
	begun, ended := t.supervisor.Set(s.Run)
	return dataplane.Changes{Written: begun, Removed: ended}, nil
}

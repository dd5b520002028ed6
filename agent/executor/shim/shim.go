// Package shim is the small process that stands between a task and the agent:
// one per task, made by re-executing the agent's own binary. It holds the task's
// output, waits for its end and writes down how it ended, so that the agent may
// be killed, restarted and upgraded at any moment without the task noticing.
//
// A shim starts its task at most once, ever: it holds a lock on the task's
// folder for its life, and leaves a mark before the start. Whoever finds the
// mark without the lock and without an exit knows that the shim was killed;
// then what is left of the task is killed too, and the task has failed.
//
// The shim decides nothing: the agent tells it through a socket in the folder.
package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/weirproject/weir/agent/executor/cgroup"
	"github.com/weirproject/weir/api"
)

// Command and InitCommand are the arguments by which a binary that has this
// package is asked to be a shim (followed by the folder), or to become a task.
const (
	Command     = "shim"
	InitCommand = "shim-init"
)

// The files in a task's folder.
const (
	planFile    = "plan.json"
	lockFile    = "lock"
	startedFile = "started" // holds the id of the boot in which the task was started
	exitFile    = "exit.json"
	socketFile  = "shim.sock"
	logFile     = "shim.log" // what went wrong in the shim itself
)

// Plan is all that a shim needs to know of its task.
type Plan struct {
	ID    string        `json:"id"`
	Group cgroup.Group  `json:"group"`
	Limit cgroup.Limits `json:"limit"`
	// Sandbox is where stdout and stderr are written, and Owner whose they are.
	Sandbox string `json:"sandbox"`
	Owner   User   `json:"owner"`
	// Process is what runs, unless there is a Bundle.
	Process Process `json:"process"`
	// Runtime is the path of an OCI runtime, such as runc, that runs the Bundle;
	// State is where it keeps its own state.
	Runtime string `json:"runtime,omitempty"`
	Bundle  string `json:"bundle,omitempty"`
	State   string `json:"state,omitempty"`
	// Before are mounts that the shim makes for the bundle and takes away at the
	// end, in order.
	Before []Mount `json:"before,omitempty"`
	// FirstOnly sends the signal of a stop to the first process alone, as is the
	// custom of containers; otherwise every process gets it.
	FirstOnly bool `json:"first_only,omitempty"`
}

// Mount is one mount(2).
type Mount struct {
	Type, Source, Target, Data string
}

// Process is what a shim executes.
type Process struct {
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	User User     `json:"user"`
	// Netns is the path of the network namespace that it gets; empty: the shim's.
	// With one it has a mount namespace and a host name of its own too.
	Netns string `json:"netns,omitempty"`
	Host  string `json:"host,omitempty"`
	// Binds are files that stand in the place of others, in its mount namespace:
	// target to source.
	Binds map[string]string `json:"binds,omitempty"`
}

// User that a process runs as.
type User struct {
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups,omitempty"`
}

// Exit is how a task ended.
type Exit struct {
	Code   int `json:"code,omitempty"`
	Signal int `json:"signal,omitempty"`
	// Reason in words: why it was killed, or could not be started.
	Reason string `json:"reason,omitempty"`
	// Stopped tells that it ended because it was told to.
	Stopped bool `json:"stopped,omitempty"`
	// Unstarted tells that no process came to be.
	Unstarted bool      `json:"unstarted,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended"`
	CPU       float64   `json:"cpu_seconds,omitempty"`
}

// request is what an agent asks on one connection.
type request struct {
	Verb   string       `json:"verb"` // wait, stop, or exec
	Grace  api.Duration `json:"grace,omitempty"`
	Reason string       `json:"reason,omitempty"`
	Args   []string     `json:"args,omitempty"`
	TTY    bool         `json:"tty,omitempty"`
}

// reply is one line of the answer.
type reply struct {
	PID     int       `json:"pid,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Exit    *Exit     `json:"exit,omitempty"`
	Error   string    `json:"error,omitempty"`
}

// WriteFile writes a value so that after a crash the old file or the new one is
// there, whole.
func WriteFile(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// ReadFile reads what WriteFile wrote. The error is os.ErrNotExist when there
// is no file.
func ReadFile(path string, value any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(data)
}

// Package executor runs the tasks that a node shall run and tells what becomes
// of them. An Executor knows one way of running (a plain process, a container,
// the Docker Engine); the Supervisor does what is the same for all: the sandbox
// and its files, the network namespace, checks, the disk limit, records on disk.
//
// All that it knows of a task is on disk before the task runs, and what holds a
// task is not this process: an agent that is killed, restarted or upgraded finds
// its tasks again, running or ended. None is started twice.
//
// It never decides what runs where, and never starts a task anew that has ended:
// the controllers do.
package executor

import (
	"context"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/weirproject/weir/agent/executor/shim"
	"github.com/weirproject/weir/api"
)

// ErrEnded tells that a task has ended, so that nothing can be asked of it.
var ErrEnded = shim.ErrEnded

// Exit is how a task ended.
type Exit = shim.Exit

// Launch is a task with all that the node adds to its spec.
type Launch struct {
	Spec api.TaskSpec
	// Dir is the task's own folder, where an executor keeps its handle. Sandbox
	// is the folder that the task works in.
	Dir, Sandbox string
	// Env is the whole environment, sorted: name=value.
	Env []string
	// Netns is the path of the task's network namespace; empty: the node's.
	Netns string
	// Host is the task's own host name; empty where it has no namespace.
	Host string
	// Files stand in the place of others in the task: target to source.
	Files map[string]string
}

// Usage of resources, now.
type Usage struct {
	CPUSeconds float64
	Memory     uint64 // bytes
}

// Executor is one way of running tasks. Every method may be called again after
// a crash, for a task that runs, has ended, or is not there.
type Executor interface {
	// Prepare brings what the task needs and takes long, such as its image.
	Prepare(ctx context.Context, l Launch) error
	// Begun tells whether Start may have been called for the task: then Wait
	// tells the rest, and Prepare and Start are not called again.
	Begun(l Launch) bool
	// Start has the task started, at most once ever. That the task cannot be
	// executed may be told by Wait instead.
	Start(ctx context.Context, l Launch) error
	// Wait returns how the task ended, and calls running once it is known to
	// run. The error is ctx's, or tells that the task is lost from sight.
	Wait(ctx context.Context, l Launch, running func(pid int, since time.Time)) (Exit, error)
	// Stop tells the task to end within the grace, 0 for at once. It does not
	// wait. The reason, if any, comes back in the Exit. The error is ErrEnded when
	// there is nothing to stop.
	Stop(ctx context.Context, l Launch, grace time.Duration, reason string) error
	// Usage of the task, as far as it is known.
	Usage(l Launch) Usage
	// Exec runs a command beside the task and returns its exit code.
	Exec(ctx context.Context, l Launch, c Command) (int, error)
	// Remove takes away what is left of a task that has ended, its logs aside.
	Remove(ctx context.Context, l Launch) error
}

// Command runs inside a task.
type Command struct {
	Args []string
	// TTY makes Stdio[0] the controlling terminal; all three are the same then.
	TTY   bool
	Stdio [3]*os.File
}

// Logger is an Executor that keeps the logs of its tasks elsewhere than in the
// files stdout and stderr of the sandbox.
type Logger interface {
	// Logs returns what the task wrote to a stream, stdout or stderr.
	Logs(ctx context.Context, l Launch, stream string, follow bool) (io.ReadCloser, error)
}

// Namespacer is an Executor whose tasks have network namespaces that it makes
// itself: they are attached when the task runs.
type Namespacer interface{ MakesNetns() bool }

// Networks attaches tasks to networks of containers.
type Networks interface {
	// Attach gives the namespace its interfaces and returns the task's
	// addresses. It may be called again for a task that is attached.
	Attach(ctx context.Context, taskID string, netns string, networks []api.TaskNetwork, ports []api.TaskPort) ([]netip.Addr, error)
	// Detach returns what the task had; it may have had nothing.
	Detach(ctx context.Context, taskID string) error
}

package api

import (
	"net/netip"
	"time"
)

// TaskState is where a task is in its life.
type TaskState string

// The states of a task, in the order of its life.
const (
	TaskStaging  TaskState = "staging"  // fetched, pulled, unpacked
	TaskStarting TaskState = "starting" // its process is being made
	TaskRunning  TaskState = "running"
	TaskKilling  TaskState = "killing"  // told to end; has its grace period
	TaskFinished TaskState = "finished" // ended by itself with exit code 0
	TaskFailed   TaskState = "failed"   // ended otherwise, or could not be started
	TaskKilled   TaskState = "killed"   // ended because it was told to
	TaskLost     TaskState = "lost"     // its node is dead, or knows nothing of it
)

// Ended tells whether a task in this state has no process any more.
func (s TaskState) Ended() bool {
	return s == TaskFinished || s == TaskFailed || s == TaskKilled || s == TaskLost
}

// Task is one instance of an app, as every node knows it: for its names and
// for the zones of its app.
type Task struct {
	// ID is unique in the cluster.
	ID string `json:"id"`
	// App that it is an instance of, such as /shop/web; of a job its run.
	App string `json:"app"`
	// Service is the framework that launched it; empty for the built-in
	// scheduler.
	Service string `json:"service,omitempty"`
	// Labels of the app.
	Labels map[string]string `json:"labels,omitempty"`
	// Node that it runs on.
	Node string `json:"node"`
	// Addresses of its own that other nodes reach; none when it shares the
	// node's.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Ports     []TaskPort   `json:"ports,omitempty"`
	State     TaskState    `json:"state"`
	// Down says why it is given no traffic, such as "is starting" or "fails its
	// health check"; empty for one that runs and is healthy.
	Down string `json:"down,omitempty"`
}

// TaskPort is one port of a task.
type TaskPort struct {
	Name string `json:"name,omitempty"`
	// Port at the task's own addresses; 0 when it has none.
	Port uint16 `json:"port,omitempty"`
	// HostPort at the node's addresses; 0 for none.
	HostPort uint16   `json:"host_port,omitempty"`
	Protocol Protocol `json:"protocol,omitempty"` // empty means tcp
}

// TaskStatus is what a node observes of a task that it runs or has run.
type TaskStatus struct {
	ID    string    `json:"id"`
	App   string    `json:"app"`
	State TaskState `json:"state"`
	// Since is when the state began.
	Since   time.Time `json:"since"`
	Started time.Time `json:"started,omitzero"`
	// ExitCode and Signal of a task that has ended by itself.
	ExitCode int `json:"exit_code,omitempty"`
	Signal   int `json:"signal,omitempty"`
	// Reason in words, such as "killed by the kernel: out of memory (128 MiB)".
	Reason    string       `json:"reason,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Healthy is nil while no check has an opinion.
	Healthy *bool `json:"healthy,omitempty"`
	// Checks has the last result of each of the spec's checks.
	Checks []CheckStatus `json:"checks,omitempty"`
	// Ready is nil unless the spec has a readiness check.
	Ready *bool `json:"ready,omitempty"`
	// PID of the task's first process on its node.
	PID int `json:"pid,omitempty"`
	// Use of resources, now.
	CPUSeconds float64 `json:"cpu_seconds,omitempty"`
	Memory     uint64  `json:"memory,omitempty"` // bytes
}

// CheckStatus is the last result of a task's health check.
type CheckStatus struct {
	Healthy  bool      `json:"healthy"`
	Failures int       `json:"failures"` // in a row
	Last     time.Time `json:"last"`
	Output   string    `json:"output,omitempty"` // why it failed
}

// LocalTask is a task as the node that runs it shows it: its spec, without the
// environment, which may hold secrets, and its status.
type LocalTask struct {
	Spec    TaskSpec   `json:"spec"`
	Status  TaskStatus `json:"status"`
	Sandbox string     `json:"sandbox"` // its folder on the node
}

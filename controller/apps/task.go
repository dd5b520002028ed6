package apps

import (
	"net/netip"
	"strings"

	"github.com/weirproject/weir/api"
)

// words are the states of tasks as Mesos calls them, and as Marathon does.
var words = map[api.TaskState][2]string{
	api.TaskStaging: {"TASK_STAGING", "Staging"}, api.TaskStarting: {"TASK_STARTING", "Starting"}, api.TaskRunning: {"TASK_RUNNING", "Running"},
	api.TaskKilling: {"TASK_KILLING", "Killing"}, api.TaskFinished: {"TASK_FINISHED", "Finished"}, api.TaskFailed: {"TASK_FAILED", "Failed"},
	api.TaskKilled: {"TASK_KILLED", "Killed"}, api.TaskLost: {"TASK_LOST", "Unreachable"},
}

// MarathonState is the state of the task as Mesos calls it.
func (t *Task) MarathonState() string { return words[t.State()][0] }

// Condition is the state of the task as Marathon's events call it.
func (t *Task) Condition() string { return words[t.State()][1] }

// Instance is the id without what tells apart the tasks of one instance.
func (t *Task) Instance() string {
	id, _, _ := strings.Cut(t.ID, "._app")
	return id
}

// IPAddress of a task, as Marathon writes it.
type IPAddress struct {
	IPAddress string `json:"ipAddress"`
	Protocol  string `json:"protocol"` // IPv4 or IPv6
}

// IPAddresses of the task: its own, or its node's where it has none.
func (t *Task) IPAddresses() []IPAddress {
	list := []IPAddress{}
	add := func(a netip.Addr) {
		protocol := "IPv4"
		if a.Is6() {
			protocol = "IPv6"
		}
		list = append(list, IPAddress{a.String(), protocol})
	}
	for _, a := range t.Status.Addresses {
		add(a)
	}
	if a, err := netip.ParseAddr(t.Host); err == nil && len(list) == 0 && t.Status.State != "" {
		add(a)
	}
	return list
}

// HostPorts of the task, one per port of its app; never nil.
func (t *Task) HostPorts() []int {
	list := []int{}
	for i, p := range t.Ports {
		if i > 0 && p.HostPort != 0 && t.Ports[i-1].HostPort == p.HostPort {
			continue // the other protocol of the same port
		}
		if p.HostPort != 0 {
			list = append(list, int(p.HostPort))
		}
	}
	return list
}

// Healthy tells whether the task runs and passes its checks, if it has any.
func (t *Task) Healthy() bool {
	return t.State() == api.TaskRunning && (t.Checks == 0 || t.Status.Healthy != nil && *t.Status.Healthy)
}

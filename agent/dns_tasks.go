package agent

import (
	"net/netip"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dnsproxy"
)

// taskNames turns a snapshot's tasks into those that have names. It keeps what it
// made: tasks that are as they were share their memory with the last list, so
// that the names' compiler sees at a glance that they have not changed.
type taskNames struct {
	nodes  []api.Node
	tasks  []api.Task
	made   []dnsproxy.Task // one for each of tasks
	listed []dnsproxy.Task // of these, the ones that have not ended
}

// of gives the tasks with names of a snapshot. Both lists are sorted by id.
func (t *taskNames) of(s *api.Snapshot) []dnsproxy.Task {
	sameNodes := sameList(t.nodes, s.Nodes)
	if sameNodes && sameList(t.tasks, s.Tasks) {
		return t.listed
	}
	addresses := make(map[string][]netip.Addr, len(s.Nodes))
	for i := range s.Nodes {
		addresses[s.Nodes[i].Name] = s.Nodes[i].Addresses
	}
	made, listed := make([]dnsproxy.Task, len(s.Tasks)), make([]dnsproxy.Task, 0, len(s.Tasks))
	old := 0
	for i := range s.Tasks {
		now := &s.Tasks[i]
		for old < len(t.tasks) && t.tasks[old].ID < now.ID {
			old++
		}
		if sameNodes && old < len(t.tasks) && sameTask(&t.tasks[old], now) {
			made[i] = t.made[old]
		} else {
			made[i] = taskName(now, addresses[now.Node])
		}
		if !now.State.Ended() {
			listed = append(listed, made[i])
		}
	}
	t.nodes, t.tasks, t.made, t.listed = s.Nodes, s.Tasks, made, listed
	return listed
}

// sameList tells whether two lists are one.
func sameList[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// sameTask compares what names follow from. Lists that are not shared count as
// different: that costs only a little work.
func sameTask(a, b *api.Task) bool {
	return a.ID == b.ID && a.App == b.App && a.Service == b.Service && a.Node == b.Node && a.State == b.State && a.Down == b.Down &&
		sameList(a.Addresses, b.Addresses) && sameList(a.Ports, b.Ports)
}

func taskName(t *api.Task, node []netip.Addr) dnsproxy.Task {
	named := dnsproxy.Task{
		ID: t.ID, Path: strings.Split(strings.Trim(t.App, "/"), "/"), Service: t.Service, Node: t.Node, NodeAddresses: node,
		Addresses: t.Addresses, Down: t.Down,
	}
	if t.State != api.TaskRunning && named.Down == "" {
		named.Down = "is " + string(t.State)
	}
	for _, p := range t.Ports {
		named.Ports = append(named.Ports, dnsproxy.TaskPort{Name: p.Name, Port: p.Port, HostPort: p.HostPort, Protocol: p.Protocol})
	}
	return named
}

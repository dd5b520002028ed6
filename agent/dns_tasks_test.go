package agent

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dnsproxy"
)

func TestTasksHaveNamesWithTheirNodesAddresses(t *testing.T) {
	node := []netip.Addr{netip.MustParseAddr("10.80.0.11")}
	own := []netip.Addr{netip.MustParseAddr("10.96.1.2")}
	s := &api.Snapshot{
		Nodes: []api.Node{{Name: "a1", Addresses: node}},
		Tasks: []api.Task{
			{ID: "1", App: "/shop/web", Node: "a1", State: api.TaskRunning, Addresses: own, Ports: []api.TaskPort{{Name: "http", Port: 80, HostPort: 31000}}},
			{ID: "2", App: "/shop/web", Node: "a1", State: api.TaskStaging},
			{ID: "3", App: "/shop/web", Node: "a1", State: api.TaskFailed},
			{ID: "4", App: "/shop/web", Node: "a1", State: api.TaskRunning, Down: "fails its health check"},
		},
	}
	var names taskNames
	got := names.of(s)
	if len(got) != 3 || got[0].Down != "" || got[1].Down != "is staging" || got[2].Down != "fails its health check" {
		t.Fatalf("got %+v", got)
	}
	if one := got[0]; !slices.Equal(one.Path, []string{"shop", "web"}) || one.NodeAddresses[0] != node[0] || one.Addresses[0] != own[0] || one.Ports[0] != (dnsproxy.TaskPort{Name: "http", Port: 80, HostPort: 31000}) {
		t.Errorf("got %+v", one)
	}
	if again := names.of(s); &again[0] != &got[0] {
		t.Error("the same tasks were made anew")
	}
	// One more, and one that is healthy now: the others share what they had.
	next := *s
	next.Tasks = append(slices.Clone(s.Tasks), api.Task{ID: "5", App: "/db", Node: "gone", State: api.TaskRunning})
	next.Tasks[3].Down = ""
	later := names.of(&next)
	if len(later) != 4 || &later[0].Ports[0] != &got[0].Ports[0] || later[2].Down != "" || later[3].NodeAddresses != nil {
		t.Errorf("got %+v", later)
	}
	moved := next
	moved.Nodes = []api.Node{{Name: "a1", Addresses: own}}
	if last := names.of(&moved); last[0].NodeAddresses[0] != own[0] {
		t.Errorf("the node's new address is not told: %+v", last[0])
	}
}

package scheduler_test

import (
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

// started is a table with its first plan carried out.
func started(t *testing.T, s *scheduler.State) (*scheduler.Table, *scheduler.Plan) {
	t.Helper()
	table := scheduler.NewTable(s)
	p := table.Plan(epoch)
	carry(s, p, epoch)
	return table, p
}

func TestTablePlansWhatHasChangedOnly(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(4, 2), Targets: []scheduler.Target{target(newApp("/a", 2)), target(newApp("/b", 2))}}
	table, _ := started(t, s)
	for _, i := range s.Instances {
		table.SetInstance(i)
	}
	if p := table.Plan(epoch); !p.Empty() {
		t.Fatalf("nothing has changed, and the plan is %+v", p)
	}
	table.SetTargets("/a", []scheduler.Target{{App: newApp("/a", 3), Count: 3}})
	if p := table.Plan(epoch); len(p.Launch) != 1 || p.Launch[0].App != "/a" {
		t.Errorf("one more of /a is wanted, and the plan is %+v", p)
	}
	table.SetTargets("/b", nil)
	if p := table.Plan(epoch); len(p.Kill) != 2 || p.Kill[0].App != "/b" {
		t.Errorf("/b is removed, and the plan is %+v", p)
	}
}

func TestWaitingAppIsPlacedWhenThereIsRoom(t *testing.T) {
	large := newApp("/large", 1, func(a *api.App) { a.CPUs = 4 })
	for name, free := range map[string]func(*scheduler.Table, *scheduler.State){
		"a task is forgotten": func(table *scheduler.Table, s *scheduler.State) { table.RemoveInstance(s.Instances[0].ID) },
		"a task has ended": func(table *scheduler.Table, s *scheduler.State) {
			i := s.Instances[0]
			i.State = api.TaskKilled
			table.SetInstance(i)
		},
		"a node comes": func(table *scheduler.Table, _ *scheduler.State) { table.SetNode(node(1, 1)) },
		"a node grows": func(table *scheduler.Table, _ *scheduler.State) {
			n := node(0, 1)
			n.Resources.CPUs = 8
			table.SetNode(n)
		},
		"it asks for less": func(table *scheduler.Table, _ *scheduler.State) {
			a := large
			a.CPUs = 1
			table.SetTargets(a.ID, []scheduler.Target{target(a)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scheduler.State{Nodes: nodes(1, 1), Targets: []scheduler.Target{target(newApp("/small", 1))}}
			table, _ := started(t, s)
			table.SetTargets("/large", []scheduler.Target{target(large)})
			if p := table.Plan(epoch); !p.Empty() || len(p.Pending) != 1 {
				t.Fatalf("without room the plan is %+v", p)
			}
			// What waits is told with every plan.
			if p := table.Plan(epoch); len(p.Pending) != 1 {
				t.Fatalf("then nothing is told of what waits: %+v", p)
			}
			if name == "a task is forgotten" || name == "a task has ended" {
				table.SetTargets("/small", nil)
				table.Plan(epoch)
			}
			free(table, s)
			if p := table.Plan(epoch); len(p.Launch) != 1 || p.Launch[0].App != "/large" || len(p.Pending) != 0 {
				t.Errorf("with room the plan is %+v", p)
			}
		})
	}
}

func TestTableComesBackAtTheTimeItNames(t *testing.T) {
	a := newApp("/a", 1)
	s := &scheduler.State{Nodes: nodes(1, 1), Targets: []scheduler.Target{target(a)}, Histories: []scheduler.History{{App: "/a", Version: "v1", Failures: 1, Failed: epoch}}}
	table := scheduler.NewTable(s)
	p := table.Plan(epoch)
	if !p.Empty() || !p.Next.Equal(epoch.Add(time.Second)) {
		t.Fatalf("in the back-off the plan is %+v", p)
	}
	if p = table.Plan(p.Next); len(p.Launch) != 1 || !p.Next.IsZero() {
		t.Errorf("after it the plan is %+v", p)
	}
}

func TestInstancesMayBeToldBeforeTheirNode(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(1, 1), Targets: []scheduler.Target{target(newApp("/a", 1))}}
	started(t, s)
	table := scheduler.NewTable(&scheduler.State{Seed: 9})
	table.SetInstance(s.Instances[0])
	table.SetNode(s.Nodes[0])
	table.SetTargets("/a", s.Targets)
	if p := table.Plan(epoch); !p.Empty() {
		t.Errorf("plan is %+v", p)
	}
}

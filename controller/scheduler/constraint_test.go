package scheduler_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

// Six nodes: n0 to n5 in racks r0, r1, r2 by turns, zones z0 and z1 by turns.
func TestEachOperatorPlacesAsItSays(t *testing.T) {
	for _, c := range []struct {
		name       string
		instances  int
		constraint []string
		field      func(scheduler.Node) string
		want       map[string]int
		pending    int
		reason     string
	}{
		{"unique host", 8, []string{"hostname", "UNIQUE"}, name, map[string]int{"n0": 1, "n1": 1, "n2": 1, "n3": 1, "n4": 1, "n5": 1}, 2, "constraint @hostname UNIQUE"},
		{"unique rack", 4, []string{"@rack", "UNIQUE"}, rack, map[string]int{"r0": 1, "r1": 1, "r2": 1}, 1, "constraint @rack UNIQUE"},
		{"cluster value", 4, []string{"@rack", "CLUSTER", "r1"}, rack, map[string]int{"r1": 4}, 0, ""},
		{"cluster any", 6, []string{"@zone", "CLUSTER"}, zone, map[string]int{"z0": 6}, 0, ""},
		{"cluster host", 3, []string{"@hostname", "CLUSTER"}, name, map[string]int{"n0": 3}, 0, ""},
		{"group by rack", 9, []string{"@rack", "GROUP_BY"}, rack, map[string]int{"r0": 3, "r1": 3, "r2": 3}, 0, ""},
		{"group by zone", 7, []string{"@zone", "GROUP_BY"}, zone, map[string]int{"z0": 4, "z1": 3}, 0, ""},
		{"group by more than known", 5, []string{"@rack", "GROUP_BY", "4"}, rack, map[string]int{"r0": 1, "r1": 1, "r2": 1}, 2, "constraint @rack GROUP_BY 4: only 3 values are known"},
		{"group by host", 6, []string{"hostname", "GROUP_BY"}, name, map[string]int{"n0": 1, "n1": 1, "n2": 1, "n3": 1, "n4": 1, "n5": 1}, 0, ""},
		{"max per rack", 7, []string{"@rack", "MAX_PER", "2"}, rack, map[string]int{"r0": 2, "r1": 2, "r2": 2}, 1, "constraint @rack MAX_PER 2"},
		{"max per host", 7, []string{"@hostname", "MAX_PER", "1"}, name, map[string]int{"n0": 1, "n1": 1, "n2": 1, "n3": 1, "n4": 1, "n5": 1}, 1, "constraint @hostname MAX_PER 1"},
		{"like", 2, []string{"@hostname", "LIKE", "n[45]"}, name, map[string]int{"n4": 1, "n5": 1}, 0, ""},
		{"like matches the whole", 1, []string{"disk", "LIKE", "s"}, name, map[string]int{}, 1, "constraint disk LIKE s"},
		{"unlike", 2, []string{"@hostname", "UNLIKE", "n[0-3]"}, name, map[string]int{"n4": 1, "n5": 1}, 0, ""},
		{"unlike of nothing", 6, []string{"gpu", "UNLIKE", "old"}, zone, map[string]int{"z0": 3, "z1": 3}, 0, ""},
		{"like of nothing", 1, []string{"gpu", "LIKE", ".*"}, name, map[string]int{}, 1, "constraint gpu LIKE .*"},
		{"is", 3, []string{"disk", "IS", "ssd"}, zone, map[string]int{"z0": 3}, 0, ""},
		{"region", 1, []string{"@region", "IS", "elsewhere"}, name, map[string]int{}, 1, "constraint @region IS elsewhere"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newApp("/web", c.instances, constrain(c.constraint...), func(a *api.App) { a.CPUs = 0.5 })
			s := &scheduler.State{Nodes: nodes(6, 3), Targets: []scheduler.Target{target(a)}}
			p := settle(t, s, epoch)
			if got := counts(s, c.field); !maps.Equal(got, c.want) {
				t.Errorf("instances are at %v, want %v", got, c.want)
			}
			pending := 0
			for _, x := range p.Pending {
				pending += x.Count
				if !slices.ContainsFunc(x.Reasons, func(r scheduler.Reason) bool { return r.Text == c.reason && r.Nodes > 0 }) {
					t.Errorf("reasons are %v, want %q among them", x.Reasons, c.reason)
				}
			}
			if pending != c.pending {
				t.Errorf("%d are pending, want %d", pending, c.pending)
			}
		})
	}
}

func TestIsComparesNumbers(t *testing.T) {
	n := node(0, 1)
	n.Attributes = map[string]string{"disks": "4.0"}
	s := &scheduler.State{Nodes: []scheduler.Node{n}, Targets: []scheduler.Target{target(newApp("/web", 1, constrain("disks", "IS", "4")))}}
	if p := scheduler.Place(s, epoch); len(p.Launch) != 1 {
		t.Errorf("the plan is %+v, want one launch", p)
	}
}

func TestRolesKeepPublicNodesApart(t *testing.T) {
	public, agent, controller := node(0, 1), node(1, 1), node(2, 1)
	public.Role, controller.Role = api.RolePublic, api.RoleController
	for _, c := range []struct {
		roles []string
		want  map[string]int
	}{
		{nil, map[string]int{"n1": 3}},
		{[]string{"*"}, map[string]int{"n1": 3}},
		{[]string{"slave_public"}, map[string]int{"n0": 3}},
		{[]string{"public"}, map[string]int{"n0": 3}},
		{[]string{"*", "slave_public"}, map[string]int{"n0": 2, "n1": 1}},
		{[]string{"controller"}, map[string]int{"n2": 3}},
	} {
		a := newApp("/web", 3, func(a *api.App) { a.AcceptedResourceRoles = c.roles })
		s := &scheduler.State{Nodes: []scheduler.Node{public, agent, controller}, Targets: []scheduler.Target{target(a)}}
		settle(t, s, epoch)
		if got := counts(s, name); !maps.Equal(got, c.want) {
			t.Errorf("with %v instances are at %v, want %v", c.roles, got, c.want)
		}
	}
}

func TestSpreadGivesWayWhereConstraintsDoNot(t *testing.T) {
	// Rack r1 has no room: GROUP_BY waits, spread goes on in the other racks.
	all := nodes(6, 3)
	all[1].Resources.CPUs, all[4].Resources.CPUs = 0, 0
	soft := newApp("/soft", 4, func(a *api.App) { a.Spread, a.CPUs = []string{"rack"}, 0.1 })
	hard := newApp("/hard", 4, constrain("@rack", "GROUP_BY"), func(a *api.App) { a.CPUs = 0.1 })
	for _, c := range []struct {
		app  api.App
		want map[string]int
	}{{soft, map[string]int{"r0": 2, "r2": 2}}, {hard, map[string]int{"r0": 1, "r2": 1}}} {
		s := &scheduler.State{Nodes: all, Targets: []scheduler.Target{target(c.app)}}
		settle(t, s, epoch)
		if got := counts(s, rack); !maps.Equal(got, c.want) {
			t.Errorf("instances of %s are at %v, want %v", c.app.ID, got, c.want)
		}
	}
}

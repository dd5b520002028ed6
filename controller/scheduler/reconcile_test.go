package scheduler_test

import (
	"maps"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

func TestPlaceOfASatisfiedStateIsEmpty(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(4, 2), Targets: []scheduler.Target{target(newApp("/shop/web", 3)), target(newApp("/db", 1)), target(newApp("/asleep", 0))}}
	p := settle(t, s, epoch)
	if len(s.Instances) != 4 || len(p.Pending) != 0 || !p.Next.IsZero() {
		t.Errorf("%d instances, plan %+v", len(s.Instances), p)
	}
	id := regexp.MustCompile(`^(shop_web|db)\.instance-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\._app\.1$`)
	for _, i := range s.Instances {
		if !id.MatchString(i.ID) {
			t.Errorf("id %s is not one of Marathon's", i.ID)
		}
	}
}

func TestSameStateGivesTheSamePlan(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(20, 5), Seed: 7}
	for _, id := range []string{"/a", "/b", "/c", "/d"} {
		s.Targets = append(s.Targets, target(newApp(id, 5)))
	}
	one, two := scheduler.Place(s, epoch), scheduler.Place(s, epoch)
	s.Seed++
	three := scheduler.Place(s, epoch)
	for k := range one.Launch {
		if one.Launch[k].Spec.ID != two.Launch[k].Spec.ID || one.Launch[k].Node != two.Launch[k].Node {
			t.Fatalf("launch %d is %+v and %+v", k, one.Launch[k], two.Launch[k])
		}
		if one.Launch[k].Spec.ID == three.Launch[k].Spec.ID {
			t.Fatalf("another seed gives the same id %s", one.Launch[k].Spec.ID)
		}
	}
}

func TestSmallTasksLeaveRoomForLargeOnes(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(2, 1)}
	s.Nodes[0].Resources.Memory, s.Nodes[1].Resources.Memory = 8<<30, 8<<30
	for _, id := range []string{"/a", "/b", "/c"} {
		s.Targets = append(s.Targets, target(newApp(id, 1)))
	}
	settle(t, s, epoch)
	s.Targets = append(s.Targets, target(newApp("/large", 1, func(a *api.App) { a.CPUs = 4 })))
	if p := settle(t, s, epoch); len(p.Pending) != 0 {
		t.Errorf("the large one waits: %+v", p.Pending)
	}
}

func TestInstancesOfAnAppAreOnDifferentNodes(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(4, 2), Targets: []scheduler.Target{target(newApp("/web", 6, func(a *api.App) { a.CPUs = 0.1 }))}}
	settle(t, s, epoch)
	for n, count := range counts(s, name) {
		if count > 2 {
			t.Errorf("%s has %d of 6", n, count)
		}
	}
}

func TestDrainStartsElsewhereBeforeItStops(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(3, 3), Targets: []scheduler.Target{target(newApp("/web", 3, constrain("@rack", "MAX_PER", "2")))}}
	settle(t, s, epoch)
	old := s.Instances[0].Node
	for k := range s.Nodes {
		s.Nodes[k].Draining = s.Nodes[k].Name == old
	}
	p := scheduler.Place(s, epoch)
	if len(p.Launch) != 1 || len(p.Kill) != 0 || p.Launch[0].Node == old || p.Launch[0].Replaces != s.Instances[0].ID {
		t.Fatalf("first plan is %+v", p)
	}
	carry(s, p, epoch)
	fresh := &s.Instances[3]
	fresh.State = api.TaskStarting
	if p := scheduler.Place(s, epoch); !p.Empty() {
		t.Fatalf("before the new one serves, plan is %+v", p)
	}
	// That the node is not drained any more does not bring a fourth one.
	s.Nodes[0].Draining, s.Nodes[1].Draining, s.Nodes[2].Draining = false, false, false
	if p := scheduler.Place(s, epoch); !p.Empty() {
		t.Fatalf("after the drain was taken back, plan is %+v", p)
	}
	fresh.State = api.TaskRunning
	p = scheduler.Place(s, epoch)
	if len(p.Kill) != 1 || p.Kill[0].Node != old || len(p.Launch) != 0 {
		t.Errorf("then plan is %+v", p)
	}
}

func TestDrainWaitsWhereNothingElseFits(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(2, 2), Targets: []scheduler.Target{target(newApp("/web", 2, constrain("hostname", "UNIQUE")))}}
	settle(t, s, epoch)
	s.Nodes[0].Draining = true
	p := scheduler.Place(s, epoch)
	if !p.Empty() || len(p.Pending) != 1 || p.Pending[0].Count != 1 {
		t.Errorf("plan is %+v", p)
	}
}

func TestLostInstancesAreReplacedAndNeverServeAgain(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(3, 3), Targets: []scheduler.Target{target(newApp("/web", 2))}}
	settle(t, s, epoch)
	lost := s.Instances[0]
	at := slices.IndexFunc(s.Nodes, func(n scheduler.Node) bool { return n.Name == lost.Node })
	s.Nodes[at].Health, s.Nodes[at].Since = api.NodeDead, epoch
	p := scheduler.Place(s, epoch.Add(29*time.Second))
	if !p.Empty() || !p.Next.Equal(epoch.Add(30*time.Second)) {
		t.Fatalf("after 29 s plan is %+v", p)
	}
	p = scheduler.Place(s, epoch.Add(30*time.Second))
	if len(p.Launch) != 1 || len(p.Forget) != 1 || p.Forget[0] != lost.ID || p.Launch[0].Node == lost.Node || len(p.Kill) != 0 {
		t.Fatalf("after 30 s plan is %+v", p)
	}
	carry(s, p, epoch.Add(30*time.Second))
	s.Nodes[at].Health = api.NodeAlive
	if p = scheduler.Place(s, epoch.Add(32*time.Second)); !p.Empty() {
		t.Errorf("when the node is back, plan is %+v", p)
	}
}

func TestLostInstanceWithoutAReplacementGoesOnWhenItsNodeIsBack(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(1, 1), Targets: []scheduler.Target{target(newApp("/web", 1))}}
	settle(t, s, epoch)
	s.Nodes[0].Health = api.NodeDead
	p := scheduler.Place(s, epoch.Add(time.Hour))
	if !p.Empty() || len(p.Pending) != 1 || p.Pending[0].Reasons[0].Kind != "dead" {
		t.Fatalf("while the only node is dead, plan is %+v", p)
	}
	s.Nodes[0].Health = api.NodeAlive
	if p = scheduler.Place(s, epoch.Add(time.Hour)); !p.Empty() || len(p.Pending) != 0 {
		t.Errorf("afterwards plan is %+v", p)
	}
}

func TestUnreachableStrategyIsTheApps(t *testing.T) {
	for text, c := range map[string]struct {
		strategy api.AppUnreachable
		after    time.Duration
		launched int
		told     int // to end, in place of being forgotten
	}{
		"disabled":     {api.AppUnreachable{Disabled: true}, 24 * time.Hour, 0, 0},
		"at once":      {api.AppUnreachable{}, 0, 1, 0},
		"later":        {api.AppUnreachable{InactiveAfterSeconds: 100, ExpungeAfterSeconds: 200}, 99 * time.Second, 0, 0},
		"later, then":  {api.AppUnreachable{InactiveAfterSeconds: 100, ExpungeAfterSeconds: 200}, 100 * time.Second, 1, 1},
		"forgotten":    {api.AppUnreachable{InactiveAfterSeconds: 100, ExpungeAfterSeconds: 200}, 200 * time.Second, 1, 0},
		"kept a while": {api.AppUnreachable{InactiveAfterSeconds: 100, ExpungeAfterSeconds: 200}, 150 * time.Second, 1, 1},
	} {
		s := &scheduler.State{Nodes: nodes(2, 2), Targets: []scheduler.Target{target(newApp("/web", 1, func(a *api.App) { a.UnreachableStrategy = &c.strategy }))}}
		settle(t, s, epoch)
		for k := range s.Nodes {
			if s.Nodes[k].Name == s.Instances[0].Node {
				s.Nodes[k].Health = api.NodeDead
			}
		}
		if p := scheduler.Place(s, epoch.Add(c.after)); len(p.Launch) != c.launched || len(p.Kill)+len(p.Forget) != c.launched || len(p.Kill) != c.told {
			t.Errorf("%s: plan is %+v", text, p)
		}
	}
}

func TestInstancesOfNodesThatAreGoneAreForgotten(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(2, 2), Targets: []scheduler.Target{target(newApp("/web", 2))}}
	settle(t, s, epoch)
	s.Nodes = s.Nodes[1:]
	if p := scheduler.Place(s, epoch); len(p.Forget) != 1 || len(p.Launch) != 1 || len(p.Kill) != 0 {
		t.Errorf("plan is %+v", p)
	}
}

func TestBackOffGrowsWithFailuresAndNotWithKills(t *testing.T) {
	a := newApp("/web", 1)
	h := scheduler.History{}
	now := epoch
	want := time.Second
	for n := range 50 {
		h = h.Ended(&a, "v1", api.TaskFailed, now)
		h = h.Ended(&a, "v1", api.TaskKilled, now)
		h = h.Ended(&a, "v1", api.TaskLost, now)
		if got := h.Next(&a).Sub(now); (got - want).Abs() > time.Millisecond {
			t.Fatalf("after failure %d it waits %s, want %s", n+1, got, want)
		}
		s := &scheduler.State{Nodes: nodes(1, 1), Targets: []scheduler.Target{target(a)}, Histories: []scheduler.History{h}}
		p := scheduler.Place(s, now)
		if len(p.Launch) != 0 || len(p.Pending) != 1 || !p.Pending[0].Next.Equal(h.Next(&a)) || !p.Next.Equal(h.Next(&a)) {
			t.Fatalf("in the back-off plan is %+v", p)
		}
		now = h.Next(&a)
		if p := scheduler.Place(s, now); len(p.Launch) != 1 {
			t.Fatalf("after it plan is %+v", p)
		}
		want = min(time.Duration(float64(want)*1.15), 300*time.Second)
	}
	if h.Reset().Next(&a) != (time.Time{}) {
		t.Error("a reset leaves a delay")
	}
	b := a
	b.Version = "v2"
	if !h.Next(&b).IsZero() {
		t.Error("a new version waits for the old one's failures")
	}
	if quiet := h.Ended(&a, "v1", api.TaskFailed, h.Next(&a).Add(2*time.Minute)); quiet.Failures != 1 {
		t.Errorf("after a quiet time there are %d failures", quiet.Failures)
	}
}

func TestScaleDownKeepsTheBalance(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(9, 3), Targets: []scheduler.Target{target(newApp("/web", 9, constrain("@rack", "GROUP_BY")))}}
	settle(t, s, epoch)
	s.Targets[0].Count = 3
	settle(t, s, epoch)
	if got, want := counts(s, rack), map[string]int{"r0": 1, "r1": 1, "r2": 1}; !maps.Equal(got, want) {
		t.Errorf("instances are at %v, want %v", got, want)
	}
}

func TestKillSelection(t *testing.T) {
	for selection, want := range map[string]int{api.KillYoungestFirst: 2, api.KillOldestFirst: 0} {
		s := &scheduler.State{Nodes: nodes(3, 1), Targets: []scheduler.Target{target(newApp("/web", 3, func(a *api.App) { a.KillSelection = selection }))}}
		settle(t, s, epoch)
		for k := range s.Instances {
			s.Instances[k].Launched = epoch.Add(time.Duration(k) * time.Second)
		}
		s.Targets[0].Count = 2
		if p := scheduler.Place(s, epoch); len(p.Kill) != 1 || p.Kill[0].ID != s.Instances[want].ID {
			t.Errorf("with %s plan is %+v", selection, p)
		}
		// What does not serve goes first, whatever its age.
		no := false
		s.Instances[1].Healthy = &no
		if p := scheduler.Place(s, epoch); len(p.Kill) != 1 || p.Kill[0].ID != s.Instances[1].ID {
			t.Errorf("with %s and an unhealthy one plan is %+v", selection, p)
		}
	}
}

func TestBreakerHoldsMassKillsBack(t *testing.T) {
	a := newApp("/web", 30, func(a *api.App) { a.CPUs, a.HealthChecks = 0.1, []api.AppCheck{{Protocol: "HTTP"}} })
	s := &scheduler.State{Nodes: nodes(10, 1), Targets: []scheduler.Target{target(a)}}
	settle(t, s, epoch)
	sick := func() {
		no := false
		for k := range s.Instances {
			s.Instances[k].Healthy, s.Instances[k].Checks = &no, []api.CheckStatus{{Failures: 3}}
		}
	}
	now, killed := epoch, 0
	h := scheduler.History{}
	for range 180 {
		sick()
		s.Histories = []scheduler.History{h}
		p := scheduler.Place(s, now)
		for _, k := range p.Kill {
			if !k.Unhealthy {
				t.Fatalf("killed %+v", k)
			}
			killed++
			h = h.Killed(now)
		}
		if len(p.Breakers) != 1 || p.Breakers[0].Held < 27 || !p.Breakers[0].Until.After(now) || p.Next.After(p.Breakers[0].Until) {
			t.Fatalf("breakers are %+v, next %s", p.Breakers, p.Next)
		}
		h.App = "/web"
		carry(s, p, now)
		now = now.Add(time.Second)
	}
	if killed != 9 {
		t.Errorf("in three minutes %d of 30 were killed, want 9", killed)
	}
}

func TestSingleUnhealthyInstanceIsReplaced(t *testing.T) {
	for failures, want := range map[int]int{2: 0, 3: 1} {
		a := newApp("/web", 1, func(a *api.App) { a.HealthChecks = []api.AppCheck{{Protocol: "HTTP"}} })
		s := &scheduler.State{Nodes: nodes(1, 1), Targets: []scheduler.Target{target(a)}}
		settle(t, s, epoch)
		no := false
		s.Instances[0].Healthy, s.Instances[0].Checks = &no, []api.CheckStatus{{Failures: failures}}
		if p := scheduler.Place(s, epoch); len(p.Kill) != want || len(p.Launch) != want {
			t.Errorf("after %d failures plan is %+v", failures, p)
		}
	}
}

func TestEveryNodeHasOne(t *testing.T) {
	a := newApp("/agent", int(api.EveryNode), func(a *api.App) { a.CPUs = 1 })
	s := &scheduler.State{Nodes: nodes(4, 2), Targets: []scheduler.Target{target(a)}}
	s.Nodes[3].Role = api.RolePublic
	settle(t, s, epoch)
	if got, want := counts(s, name), map[string]int{"n0": 1, "n1": 1, "n2": 1}; !maps.Equal(got, want) {
		t.Fatalf("instances are at %v, want %v", got, want)
	}
	s.Nodes = append(s.Nodes, node(4, 2))
	s.Nodes[0].Draining = true
	s.Nodes[1].Role = api.RolePublic
	settle(t, s, epoch)
	if got, want := counts(s, name), map[string]int{"n2": 1, "n4": 1}; !maps.Equal(got, want) {
		t.Errorf("instances are at %v, want %v", got, want)
	}
	if n := scheduler.NewTable(s).Eligible(&a); n != 2 {
		t.Errorf("%d nodes are eligible, want 2", n)
	}
	// A node that was lost for an hour still has its own when it is back.
	s.Nodes[2].Health = api.NodeDead
	if p := scheduler.Place(s, epoch.Add(time.Hour)); !p.Empty() {
		t.Errorf("for a lost node plan is %+v", p)
	}
}

func TestRemovedAppEnds(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(2, 1), Targets: []scheduler.Target{target(newApp("/web", 2)), target(newApp("/db", 1))}}
	settle(t, s, epoch)
	s.Targets = s.Targets[:1]
	p := scheduler.Place(s, epoch)
	if len(p.Kill) != 1 || p.Kill[0].App != "/db" || p.Kill[0].Reason != "the app was removed" {
		t.Errorf("plan is %+v", p)
	}
}

func TestRebalanceMovesAsFewAsItTakes(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(3, 3)[:1], Targets: []scheduler.Target{target(newApp("/web", 3, constrain("@rack", "GROUP_BY")))}}
	settle(t, s, epoch)
	s.Nodes = nodes(3, 3)
	if p := scheduler.Place(s, epoch); !p.Empty() {
		t.Fatalf("unasked, plan is %+v", p)
	}
	s.Rebalance = []string{"/web"}
	p := scheduler.Place(s, epoch)
	if len(p.Launch) != 2 || len(p.Kill) != 0 {
		t.Fatalf("asked, plan is %+v", p)
	}
	settle(t, s, epoch)
	if got, want := counts(s, rack), map[string]int{"r0": 1, "r1": 1, "r2": 1}; !maps.Equal(got, want) {
		t.Errorf("instances are at %v, want %v", got, want)
	}
}

func TestHeadroomStaysFree(t *testing.T) {
	s := &scheduler.State{Nodes: nodes(1, 1), Headroom: 0.25, Targets: []scheduler.Target{target(newApp("/web", 10))}}
	p := settle(t, s, epoch)
	if len(s.Instances) != 3 || p.Pending[0].Reasons[0].Text != "insufficient cpus" {
		t.Errorf("%d instances, pending %+v", len(s.Instances), p.Pending)
	}
}

func TestReasonsNameWhatIsMissing(t *testing.T) {
	all := nodes(9, 3)
	all[0].Health, all[1].Draining, all[2].Health, all[3].Role = api.NodeDead, true, api.NodeSuspect, api.RolePublic
	all[4].Resources.CPUs, all[5].Resources.Memory, all[6].Resources.Disk = 0.5, 1<<20, 0
	all[7].Attributes = nil
	a := newApp("/web", 2, constrain("disk", "LIKE", "ssd|hdd"), func(a *api.App) {
		a.Disk, a.RequirePorts, a.PortDefinitions = 10, true, []api.AppPort{{Port: 8080}}
	})
	s := &scheduler.State{Nodes: all, Targets: []scheduler.Target{target(a)}}
	p := settle(t, s, epoch)
	got := map[string]int{}
	for _, r := range p.Pending[0].Reasons {
		got[r.Text] += r.Nodes
	}
	want := map[string]int{
		"is dead": 1, "is drained": 1, "does not answer": 1, "role public is not accepted": 1, "insufficient cpus": 1, "insufficient mem": 1,
		"insufficient disk": 1, "constraint disk LIKE ssd|hdd": 1, "port 8080 is taken": 1,
	}
	if !maps.Equal(got, want) || p.Pending[0].Nodes != 9 {
		t.Errorf("reasons are %v, want %v", got, want)
	}
	if e := scheduler.NewTable(s).Explain(target(a), epoch); len(e.Reasons) != len(want) {
		t.Errorf("explained: %+v", e)
	}
}

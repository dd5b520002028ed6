package scheduler_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// node is n<i> in rack r<i%racks>, zone z<i%2>.
func node(i, racks int) scheduler.Node {
	return scheduler.Node{Node: api.Node{
		Name: fmt.Sprintf("n%d", i), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 80, byte(i >> 8), byte(i)})},
		Domain:     api.FaultDomain{Region: "here", Zone: fmt.Sprintf("z%d", i%2), Rack: fmt.Sprintf("r%d", i%racks)},
		Attributes: map[string]string{"disk": []string{"ssd", "hdd"}[i%2]},
		Resources:  api.Resources{CPUs: 4, Memory: 8 << 30, Disk: 100 << 30},
	}, Since: epoch}
}

func nodes(n, racks int) []scheduler.Node {
	all := make([]scheduler.Node, n)
	for i := range all {
		all[i] = node(i, racks)
	}
	return all
}

func newApp(id string, instances int, change ...func(*api.App)) api.App {
	a := api.NewApp()
	a.ID, a.Cmd, a.Instances, a.Version = id, "run", api.Instances(instances), "v1"
	for _, f := range change {
		f(&a)
	}
	a.Complete()
	return a
}

func target(a api.App) scheduler.Target { return scheduler.Target{App: a, Count: int(a.Instances)} }

func constrain(words ...string) func(*api.App) {
	return func(a *api.App) { a.Constraints = append(a.Constraints, words) }
}

// carry does to the state what a plan says, as the controllers and nodes would;
// tasks run and are healthy at once.
func carry(s *scheduler.State, p *scheduler.Plan, now time.Time) {
	for _, k := range p.Kill {
		at := slices.IndexFunc(s.Instances, func(i scheduler.Instance) bool { return i.ID == k.ID })
		spec := *s.Instances[at].Spec
		spec.Kill = true
		s.Instances[at].Spec = &spec
		if !isDead(s, k.Node) {
			s.Instances = slices.Delete(s.Instances, at, at+1)
		}
	}
	for _, id := range p.Forget {
		s.Instances = slices.DeleteFunc(s.Instances, func(i scheduler.Instance) bool { return i.ID == id })
	}
	for _, l := range p.Launch {
		spec := l.Spec
		healthy := true
		s.Instances = append(s.Instances, scheduler.Instance{
			ID: spec.ID, App: l.App, Version: l.Version, Node: l.Node, Spec: &spec, State: api.TaskRunning, Since: now,
			Launched: now, Replaces: l.Replaces, Healthy: &healthy, Ready: &healthy,
		})
	}
	s.Seed++
}

func isDead(s *scheduler.State, name string) bool {
	return slices.ContainsFunc(s.Nodes, func(n scheduler.Node) bool { return n.Name == name && n.Health == api.NodeDead })
}

// settle plans and carries out until there is nothing left to do.
func settle(t testing.TB, s *scheduler.State, now time.Time) *scheduler.Plan {
	t.Helper()
	for range 20 {
		p := scheduler.Place(s, now)
		if p.Empty() {
			return p
		}
		carry(s, p, now)
		s.Rebalance = nil
	}
	t.Fatal("there is always something left to do")
	return nil
}

// counts has how many instances run in every value of a field.
func counts(s *scheduler.State, field func(scheduler.Node) string) map[string]int {
	all := map[string]int{}
	for _, i := range s.Instances {
		at := slices.IndexFunc(s.Nodes, func(n scheduler.Node) bool { return n.Name == i.Node })
		all[field(s.Nodes[at])]++
	}
	return all
}

func rack(n scheduler.Node) string { return n.Domain.Rack }
func zone(n scheduler.Node) string { return n.Domain.Zone }
func name(n scheduler.Node) string { return n.Name }

package deploy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/deploy"
	"github.com/weirproject/weir/controller/scheduler"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func app(id string, instances int, version string, change ...func(*api.App)) api.App {
	a := api.NewApp()
	a.ID, a.Cmd, a.Instances, a.Version, a.CPUs = id, "run "+version, api.Instances(instances), version, 0.1
	for _, f := range change {
		f(&a)
	}
	a.Complete()
	return a
}

func strategy(least, over float64) func(*api.App) {
	return func(a *api.App) {
		a.UpgradeStrategy = &api.AppUpgrade{MinimumHealthCapacity: &least, MaximumOverCapacity: &over}
	}
}

func group(apps ...api.App) deploy.Group { return deploy.Group{ID: "/", Apps: apps} }

func plan(t testing.TB, from, to deploy.Group) deploy.Deployment {
	t.Helper()
	d, err := deploy.Plan(from, to, "d1", epoch)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// world is a cluster that does what deployment and scheduler say. Tasks behave
// as outcome says, which is asked once for each step of time and task.
type world struct {
	t       testing.TB
	state   scheduler.State
	now     time.Time
	outcome func(i *scheduler.Instance)
	// after looks at the world when something has changed.
	after func()
}

func newWorld(t testing.TB, nodes int) *world {
	w := &world{t: t, now: epoch, outcome: behave, after: func() {}}
	for i := range nodes {
		w.state.Nodes = append(w.state.Nodes, scheduler.Node{Node: api.Node{
			Name: fmt.Sprintf("n%d", i), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 80, 0, byte(i + 1)})},
			Resources: api.Resources{CPUs: 16, Memory: 64 << 30, Disk: 100 << 30},
		}, Since: epoch})
	}
	return w
}

// behave starts tasks and ends those that are told to.
func behave(i *scheduler.Instance) {
	healthy := true
	switch {
	case i.Stopping():
		i.State = api.TaskKilled
	case i.State == api.TaskStaging:
		i.State, i.Healthy, i.Ready = api.TaskRunning, &healthy, &healthy
	}
}

// pass lets a second go by: tasks do as they do, and what has ended is gone.
func (w *world) pass() {
	w.now = w.now.Add(time.Second)
	for k := range w.state.Instances {
		before := w.state.Instances[k].State
		w.outcome(&w.state.Instances[k])
		if i := &w.state.Instances[k]; i.State != before {
			i.Since = w.now
		}
	}
	w.after()
	w.state.Instances = slices.DeleteFunc(w.state.Instances, func(i scheduler.Instance) bool { return i.State.Ended() })
}

// place carries out what the scheduler plans for these targets.
func (w *world) place(targets []scheduler.Target) *scheduler.Plan {
	w.state.Targets = targets
	w.state.Seed++
	p := scheduler.Place(&w.state, w.now)
	for _, k := range p.Kill {
		i := w.find(k.ID)
		spec := *i.Spec
		spec.Kill = true
		i.Spec = &spec
	}
	for _, l := range p.Launch {
		spec := l.Spec
		w.state.Instances = append(w.state.Instances, scheduler.Instance{
			ID: spec.ID, App: l.App, Version: l.Version, Node: l.Node, Spec: &spec, State: api.TaskStaging,
			Since: w.now, Launched: w.now, Replaces: l.Replaces,
		})
	}
	w.after()
	return p
}

func (w *world) find(id string) *scheduler.Instance {
	at := slices.IndexFunc(w.state.Instances, func(i scheduler.Instance) bool { return i.ID == id })
	return &w.state.Instances[at]
}

// run lets a deployment go on until it has ended, for at most so many seconds.
func (w *world) run(d deploy.Deployment, seconds int) deploy.Result {
	w.t.Helper()
	var r deploy.Result
	for range seconds {
		r = w.advance(d)
		d = r.Deployment
		w.place(r.Targets)
		if d.State != deploy.Running {
			return r
		}
		w.pass()
	}
	return r
}

func (w *world) advance(d deploy.Deployment) deploy.Result {
	everywhere := map[string]int{}
	table := scheduler.NewTable(&w.state)
	for _, c := range d.Changes {
		if c.To != nil && c.To.Instances == api.EveryNode {
			everywhere[c.App] = table.Eligible(c.To)
		}
	}
	lost := map[string]bool{}
	for _, n := range w.state.Nodes {
		if n.Health == api.NodeDead {
			lost[n.Name] = true
		}
	}
	return deploy.Advance(d, deploy.Observed{Instances: w.state.Instances, Lost: lost, Everywhere: everywhere}, w.now)
}

// start brings apps up, as they are without a deployment.
func (w *world) start(apps ...api.App) {
	for range 3 {
		var targets []scheduler.Target
		for i := range apps {
			targets = append(targets, deploy.Steady(&apps[i], w.state.Instances)...)
		}
		w.place(targets)
		w.pass()
	}
}

// versions counts an app's instances that have not ended, by version, and those
// of all versions that serve.
func (w *world) versions(id string) (all map[string]int, total, serving int) {
	all = map[string]int{}
	for k := range w.state.Instances {
		i := &w.state.Instances[k]
		if i.App != id || i.State.Ended() {
			continue
		}
		all[i.Version]++
		total++
		if i.Serving() {
			serving++
		}
	}
	return all, total, serving
}

func steps(d deploy.Deployment) string {
	var all []string
	for _, s := range d.Steps {
		var names []string
		for _, a := range s {
			names = append(names, strings.TrimSuffix(string(a.Type), "Application")+" "+a.App)
		}
		all = append(all, strings.Join(names, ", "))
	}
	return strings.Join(all, " | ")
}

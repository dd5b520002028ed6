package scheduler_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

// history is a cluster to which things happen, followed by a table.
type history struct {
	*rapid.T
	state scheduler.State
	table *scheduler.Table
	now   time.Time
	apps  map[string]*api.App
	// unhealthy has when instances of an app were ended for their health.
	unhealthy map[string][]time.Time
	made      int
}

// Whatever happens: no node is given more than it has, no port twice, no
// constraint is broken, nothing that serves ends without need, the breaker
// holds, and a plan that was carried out is followed by an empty one.
func TestPlansHoldWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := &history{T: rt, now: epoch, apps: map[string]*api.App{}, unhealthy: map[string][]time.Time{}}
		for i := range rapid.IntRange(1, 12).Draw(rt, "nodes") {
			h.state.Nodes = append(h.state.Nodes, node(i, 3))
		}
		h.made = len(h.state.Nodes)
		h.table = scheduler.NewTable(&h.state)
		rt.Repeat(map[string]func(*rapid.T){
			"app": h.changeApp, "node": h.changeNode, "nodes": h.comeAndGo, "task": h.changeTask, "time": h.pass, "": h.plan,
		})
	})
}

func (h *history) changeApp(t *rapid.T) {
	id := rapid.SampledFrom([]string{"/a", "/b", "/c", "/d"}).Draw(t, "app")
	delete(h.apps, id)
	var targets []scheduler.Target
	if rapid.IntRange(0, 9).Draw(t, "fate") > 0 {
		a := newApp(id, rapid.IntRange(0, 9).Draw(t, "instances"), func(a *api.App) {
			a.CPUs, a.Mem = rapid.SampledFrom([]float64{0.1, 0.5, 1.5}).Draw(t, "cpus"), 64
			a.Version = rapid.SampledFrom([]string{"v1", "v2"}).Draw(t, "version")
			a.HealthChecks = []api.AppCheck{{Protocol: "HTTP"}}
			a.RequirePorts = rapid.Bool().Draw(t, "fixed port")
			a.PortDefinitions = []api.AppPort{{Port: 8080 * min(1, len(id)-1)}}
			a.Constraints = append(a.Constraints, rapid.SliceOfNDistinct(rapid.SampledFrom(constraints), 0, 2,
				func(c []string) string { return c[0] + c[1] }).Draw(t, "constraints")...)
			a.Version += fmt.Sprint(a.Constraints) // another constraint needs other tasks
		})
		h.apps[id] = &a
		targets = []scheduler.Target{target(a)}
	}
	h.state.Targets = slices.DeleteFunc(h.state.Targets, func(t scheduler.Target) bool { return t.App.ID == id })
	h.state.Targets = append(h.state.Targets, targets...)
	h.table.SetTargets(id, targets)
	if rapid.IntRange(0, 3).Draw(t, "rebalance") == 0 {
		h.table.Rebalance(id)
	}
}

var constraints = [][]string{
	{"hostname", "UNIQUE"}, {"hostname", "MAX_PER", "2"}, {"@rack", "GROUP_BY"}, {"@rack", "GROUP_BY", "4"}, {"@zone", "GROUP_BY"},
	{"@zone", "CLUSTER"}, {"@rack", "MAX_PER", "3"}, {"disk", "IS", "ssd"}, {"@hostname", "UNLIKE", "n[12]"}, {"@rack", "UNIQUE"},
}

func (h *history) changeNode(t *rapid.T) {
	if len(h.state.Nodes) == 0 {
		return
	}
	n := &h.state.Nodes[rapid.IntRange(0, len(h.state.Nodes)-1).Draw(t, "node")]
	health := rapid.SampledFrom([]api.NodeHealth{api.NodeAlive, api.NodeAlive, api.NodeSuspect, api.NodeDead}).Draw(t, "health")
	if health != n.Health {
		n.Health, n.Since = health, h.now
	}
	n.Draining = rapid.IntRange(0, 3).Draw(t, "draining") == 0
	h.table.SetNode(*n)
	if n.Health == api.NodeDead {
		return
	}
	// A node that is back ends what it is told to end.
	h.end(func(i *scheduler.Instance) bool { return i.Node == n.Name && i.Stopping() })
}

func (h *history) comeAndGo(t *rapid.T) {
	if len(h.state.Nodes) > 0 && rapid.Bool().Draw(t, "goes") {
		at := rapid.IntRange(0, len(h.state.Nodes)-1).Draw(t, "node")
		h.table.RemoveNode(h.state.Nodes[at].Name)
		h.state.Nodes = slices.Delete(h.state.Nodes, at, at+1)
		return
	}
	n := node(h.made, 3)
	h.made++
	h.state.Nodes = append(h.state.Nodes, n)
	h.table.SetNode(n)
}

func (h *history) end(which func(*scheduler.Instance) bool) {
	h.state.Instances = slices.DeleteFunc(h.state.Instances, func(i scheduler.Instance) bool {
		if which(&i) {
			h.table.RemoveInstance(i.ID)
			return true
		}
		return false
	})
}

func (h *history) changeTask(t *rapid.T) {
	if len(h.state.Instances) == 0 {
		return
	}
	i := &h.state.Instances[rapid.IntRange(0, len(h.state.Instances)-1).Draw(t, "instance")]
	if isDead(&h.state, i.Node) {
		return
	}
	yes, no := true, false
	switch rapid.IntRange(0, 3).Draw(t, "outcome") {
	case 0:
		id := i.ID
		h.end(func(i *scheduler.Instance) bool { return i.ID == id })
		return
	case 1:
		i.Healthy, i.Checks = &no, []api.CheckStatus{{Failures: 3}}
	case 2:
		i.Healthy, i.Checks = &yes, []api.CheckStatus{{Healthy: true}}
	case 3:
		i.State = api.TaskRunning
	}
	h.table.SetInstance(*i)
}

func (h *history) pass(t *rapid.T) {
	h.now = h.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
	for k := range h.state.Instances {
		i := &h.state.Instances[k]
		if i.State == api.TaskStaging && !isDead(&h.state, i.Node) {
			i.State = api.TaskRunning
			h.table.SetInstance(*i)
		}
	}
	h.end(func(i *scheduler.Instance) bool { return i.Stopping() && !isDead(&h.state, i.Node) })
}

// plan has the table plan, checks it, and carries it out.
func (h *history) plan(t *rapid.T) {
	h.T = t
	before := h.serving()
	p := h.table.Plan(h.now)
	h.carry(p)
	h.checkServing(p, before)
	h.checkNodes()
	h.checkLaunches(p)
	h.checkBreaker(p)
	if again := h.table.Plan(h.now); !again.Empty() {
		t.Fatalf("after %+v\nthe table plans %+v", p, again)
	}
	s := h.state
	for id, at := range h.unhealthy {
		s.Histories = append(s.Histories, scheduler.History{App: id, Unhealthy: at})
	}
	if again := scheduler.Place(&s, h.now); !again.Empty() {
		t.Fatalf("after %+v\na new table plans %+v", p, again)
	}
}

// carry does what a plan says; what ends does so in time.
func (h *history) carry(p *scheduler.Plan) {
	for _, k := range p.Kill {
		at := slices.IndexFunc(h.state.Instances, func(i scheduler.Instance) bool { return i.ID == k.ID })
		if at < 0 || h.state.Instances[at].Stopping() {
			h.Fatalf("ends %+v, which is not there or is told already", k)
		}
		spec := *h.state.Instances[at].Spec
		spec.Kill = true
		h.state.Instances[at].Spec = &spec
		if k.Unhealthy {
			h.unhealthy[k.App] = append(h.unhealthy[k.App], h.now)
		}
	}
	for _, id := range p.Forget {
		h.state.Instances = slices.DeleteFunc(h.state.Instances, func(i scheduler.Instance) bool { return i.ID == id })
	}
	for _, l := range p.Launch {
		spec := l.Spec
		h.state.Instances = append(h.state.Instances, scheduler.Instance{
			ID: spec.ID, App: l.App, Version: l.Version, Node: l.Node, Spec: &spec, State: api.TaskStaging, Since: h.now, Launched: h.now, Replaces: l.Replaces,
		})
	}
}

// serving counts what of each wanted version may be given traffic.
func (h *history) serving() map[string]int {
	all := map[string]int{}
	for k := range h.state.Instances {
		i := &h.state.Instances[k]
		if a := h.apps[i.App]; a != nil && a.Version == i.Version && i.Serving() && h.node(i.Node) != nil && !isDead(&h.state, i.Node) {
			all[i.App]++
		}
	}
	return all
}

func (h *history) checkServing(p *scheduler.Plan, before map[string]int) {
	after := h.serving()
	for id, n := range before {
		if least := min(n, int(h.apps[id].Instances)); after[id] < least {
			h.Fatalf("of %s %d served, %d are wanted, and %d are left after %+v", id, n, h.apps[id].Instances, after[id], p)
		}
	}
}

func (h *history) node(name string) *scheduler.Node {
	at := slices.IndexFunc(h.state.Nodes, func(n scheduler.Node) bool { return n.Name == name })
	if at < 0 {
		return nil
	}
	return &h.state.Nodes[at]
}

func (h *history) checkNodes() {
	cpus, memory, ports := map[string]float64{}, map[string]uint64{}, map[string]bool{}
	for _, i := range h.state.Instances {
		cpus[i.Node] += i.Spec.CPUs
		memory[i.Node] += i.Spec.Memory
		for _, p := range i.Spec.Ports {
			key := fmt.Sprintf("%s:%d", i.Node, p.HostPort)
			if p.HostPort != 0 && ports[key] {
				h.Fatalf("port %s is given twice", key)
			}
			ports[key] = true
		}
	}
	for _, n := range h.state.Nodes {
		if cpus[n.Name] > n.Resources.CPUs+1e-6 || memory[n.Name] > n.Resources.Memory {
			h.Fatalf("%s gives %v cores and %d bytes", n.Name, cpus[n.Name], memory[n.Name])
		}
	}
}

// values counts the instances of an app that stay, by the values of a field, and
// tells which values have a node that could have one.
func (h *history) values(a *api.App, field string) (all map[string]int, known map[string]bool) {
	all, known = map[string]int{}, map[string]bool{}
	for k := range h.state.Nodes {
		if n := &h.state.Nodes[k]; n.Health != api.NodeDead && !n.Draining && fits(a, n) {
			known[value(n, field)] = true
		}
	}
	for k := range h.state.Instances {
		i := &h.state.Instances[k]
		n := h.node(i.Node)
		if i.App == a.ID && i.Version == a.Version && !i.Stopping() && n != nil && (!n.Draining || n.Health == api.NodeDead) && h.alive(n) {
			all[value(n, field)]++
		}
	}
	return all, known
}

// paired tells whether the app has an instance that another was launched for.
func (h *history) paired(a *api.App) bool {
	return slices.ContainsFunc(h.state.Instances, func(i scheduler.Instance) bool {
		return i.App == a.ID && slices.ContainsFunc(h.state.Instances, func(o scheduler.Instance) bool { return o.Replaces == i.ID })
	})
}

func (h *history) alive(n *scheduler.Node) bool {
	return n.Health != api.NodeDead || h.now.Before(n.Since.Add(30*time.Second))
}

func value(n *scheduler.Node, field string) string {
	switch field {
	case "@rack":
		return n.Domain.Rack
	case "@zone":
		return n.Domain.Zone
	case "disk":
		return n.Attributes["disk"]
	}
	return n.Name
}

func fits(a *api.App, n *scheduler.Node) bool {
	for _, c := range a.Constraints {
		v := value(n, c[0])
		if c[1] == "IS" && v != c[2] || c[1] == "UNLIKE" && (v == "n1" || v == "n2") {
			return false
		}
	}
	return true
}

func (h *history) checkLaunches(p *scheduler.Plan) {
	for _, l := range p.Launch {
		a, n := h.apps[l.App], h.node(l.Node)
		if n == nil || n.Draining || n.Health == api.NodeDead || n.Health == api.NodeSuspect || !fits(a, n) {
			h.Fatalf("launched %s on %+v", l.App, n)
		}
		if h.paired(a) {
			continue // for the time of a move old and new count in their own ways
		}
		for _, c := range a.Constraints {
			counts, known := h.values(a, c[0])
			h.checkConstraint(a, c, counts, known, value(n, c[0]))
		}
	}
}

func (h *history) checkConstraint(a *api.App, c []string, counts map[string]int, known map[string]bool, v string) {
	number := 1
	if len(c) > 2 {
		_, _ = fmt.Sscan(c[2], &number)
	}
	switch c[1] {
	case "UNIQUE", "MAX_PER":
		if counts[v] > number {
			h.Fatalf("%s with %v has %v", a.ID, c, counts)
		}
	case "CLUSTER":
		for other, n := range counts {
			if other != v && n > 0 {
				h.Fatalf("%s with %v has %v", a.ID, c, counts)
			}
		}
	case "GROUP_BY":
		least := counts[v]
		for value := range known {
			least = min(least, counts[value])
		}
		if len(c) > 2 && len(known) < number {
			least = 0
		}
		if counts[v] > least+1 {
			h.Fatalf("%s with %v has %v", a.ID, c, counts)
		}
	}
}

func (h *history) checkBreaker(p *scheduler.Plan) {
	ended := map[string]int{}
	for id, at := range h.unhealthy {
		for _, t := range at {
			if h.now.Sub(t) < time.Minute {
				ended[id]++
			}
		}
	}
	for id, n := range ended {
		// No app here has more than nine instances: one in ten is one.
		if n > 1 && slices.ContainsFunc(p.Kill, func(k scheduler.Kill) bool { return k.App == id && k.Unhealthy }) {
			h.Fatalf("%d of %s were ended for their health in a minute", n, id)
		}
	}
}

package apps

import (
	"maps"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/deploy"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/scheduler"
)

// fed is what the table was told.
type fed struct {
	nodes     map[string]scheduler.Node
	tasks     map[string]fedTask
	targets   map[string]*api.App // of apps that no deployment changes
	deployed  map[string]bool     // apps that one does
	histories map[string]*scheduler.History
}

type fedTask struct {
	task   *Task
	wanted *hub.TaskEntry
}

// endings take out the tasks that have no process any more.
func (l *Loop) endings(v *View, w *work, now time.Time) (any bool) {
	histories := map[string]scheduler.History{}
	for _, id := range slices.Sorted(maps.Keys(v.Tasks)) {
		t := v.Tasks[id]
		if !t.Status.State.Ended() || len(w.ops) > opsOfCommit-4 {
			continue
		}
		any = true
		a := v.Launched(t)
		if a != nil && t.Kill == "" {
			h, ok := histories[t.App]
			if !ok && v.Histories[t.App] != nil {
				h = *v.Histories[t.App]
			}
			histories[t.App] = h.Ended(a, t.Version, t.Status.State, now)
			w.put(historyPrefix+bare(t.App), histories[t.App])
		}
		if a != nil && t.Status.State != api.TaskFinished && t.Kill == "" {
			w.put(failurePrefix+bare(t.App), Failure{Task: t.Status, Host: t.Host, Node: t.Node, Version: t.Version, At: now.UTC()})
		}
		w.remove(taskPrefix + id)
		w.remove(hub.TaskKey(id))
	}
	return any
}

// asks does what people asked for.
func (l *Loop) asks(v *View, w *work, now time.Time) {
	for app, ask := range v.asks {
		key := askPrefix + bare(app)
		w.conditions[key] = v.versions[key]
		w.remove(key)
		for _, id := range ask.Kill {
			t := v.Tasks[id]
			switch {
			case t == nil || t.App != app:
			case ask.Wipe && l.lost(t.Node):
				w.remove(taskPrefix + id)
				w.remove(hub.TaskKey(id))
			default:
				l.kill(v, w, id, "was told to end", now)
			}
		}
		if h := v.Histories[app]; ask.NoDelay && h != nil {
			w.put(historyPrefix+bare(app), h.Reset())
		}
		if ask.Rebalance && l.table != nil {
			l.table.Rebalance(app)
		}
	}
}

// farewell is how long before its end a task that serves gets no more
// connections: the time that all nodes need to hear of it.
const farewell = 500 * time.Millisecond

// kill ends a task: at once where it does not serve, else after the farewell.
func (l *Loop) kill(v *View, w *work, id, reason string, now time.Time) {
	t, entry := v.Tasks[id], v.Wanted[id]
	if t == nil || entry == nil || t.Kill != "" {
		return
	}
	ending, told := *t, *entry
	ending.Kill, ending.KillAt = reason, now.UTC()
	if t.Status.State == api.TaskRunning && entry.Task.Down == "" && !l.lost(t.Node) {
		ending.KillAt = now.Add(farewell).UTC()
	} else {
		told.Spec.Kill = true
	}
	told.Task.State, told.Task.Down = api.TaskKilling, "is told to end: "+reason
	w.conditions[taskPrefix+id] = v.versions[taskPrefix+id]
	w.put(taskPrefix+id, ending)
	w.put(hub.TaskKey(id), told)
}

// dueKills tells nodes to end the tasks whose farewell is over.
func (l *Loop) dueKills(v *View, w *work, now time.Time) (next time.Time) {
	for id, t := range v.Tasks {
		entry := v.Wanted[id]
		if t.Kill == "" || entry == nil || entry.Spec.Kill {
			continue
		}
		if t.KillAt.After(now) {
			next = earlier(next, t.KillAt)
			continue
		}
		told := *entry
		told.Spec.Kill = true
		w.put(hub.TaskKey(id), told)
	}
	return next
}

// lost tells whether a node is dead or not there any more.
func (l *Loop) lost(node string) bool {
	n, ok := l.fed.nodes[node]
	return !ok || n.Health == api.NodeDead
}

// feed tells the table what has changed of nodes, tasks and histories.
func (l *Loop) feed(v *View, now time.Time) {
	if l.table == nil {
		l.table = scheduler.NewTable(&scheduler.State{Headroom: l.o.Headroom, Seed: seed()})
		l.fed = fed{map[string]scheduler.Node{}, map[string]fedTask{}, map[string]*api.App{}, map[string]bool{}, map[string]*scheduler.History{}}
	}
	l.feedNodes(now)
	for id, t := range v.Tasks {
		entry := v.Wanted[id]
		if one := (fedTask{t, entry}); entry != nil && l.fed.tasks[id] != one {
			l.fed.tasks[id] = one
			l.table.SetInstance(instance(t, entry))
		}
	}
	for id := range l.fed.tasks {
		if v.Tasks[id] == nil {
			delete(l.fed.tasks, id)
			l.table.RemoveInstance(id)
		}
	}
	for app, h := range v.Histories {
		if l.fed.histories[app] != h {
			l.fed.histories[app] = h
			l.table.SetHistory(*h)
		}
	}
}

func (l *Loop) feedNodes(now time.Time) {
	state := l.o.Hub.State()
	seen := map[string]bool{}
	for _, n := range state.Shared.Nodes {
		if _, joined := state.Joined[n.Name]; !joined {
			continue // nobody would start a task there
		}
		seen[n.Name] = true
		if was, ok := l.since[n.Name]; !ok || was.is != n.Health {
			l.since[n.Name] = health{n.Health, now}
		}
		l.fed.nodes[n.Name] = scheduler.Node{Node: n, Since: l.since[n.Name].since}
		l.table.SetNode(l.fed.nodes[n.Name])
	}
	for name := range l.fed.nodes {
		if !seen[name] {
			delete(l.fed.nodes, name)
			delete(l.since, name)
			l.table.RemoveNode(name)
		}
	}
}

// instance is a task as the scheduler sees it.
func instance(t *Task, entry *hub.TaskEntry) scheduler.Instance {
	return scheduler.Instance{
		ID: t.ID, App: t.App, Version: t.Version, Node: t.Node, Spec: &entry.Spec, State: t.State(), Since: t.Status.Since,
		Launched: t.Launched, Replaces: t.Replaces, Healthy: t.Status.Healthy, Ready: t.Status.Ready, Checks: t.Status.Checks,
	}
}

// deployments go on, and say what of their apps shall run meanwhile.
func (l *Loop) deployments(v *View, w *work, now time.Time) (targets map[string][]scheduler.Target, next time.Time) {
	targets = map[string][]scheduler.Target{}
	for _, d := range slices.SortedFunc(maps.Values(v.Deployments), func(a, b *deploy.Deployment) int { return a.Started.Compare(b.Started) }) {
		seen := deploy.Observed{Lost: map[string]bool{}, Everywhere: map[string]int{}}
		for _, c := range d.Changes {
			targets[c.App] = nil // none but what is said below
			for _, t := range v.TasksOf(c.App) {
				if entry := v.Wanted[t.ID]; entry != nil {
					seen.Instances = append(seen.Instances, instance(t, entry))
					seen.Lost[t.Node] = l.lost(t.Node)
				}
			}
			if c.To != nil && c.To.Instances == api.EveryNode {
				seen.Everywhere[c.App] = l.table.Eligible(c.To)
			}
		}
		r := deploy.Advance(*d, seen, now)
		for _, t := range r.Targets {
			targets[t.App.ID] = append(targets[t.App.ID], t)
		}
		next = earlier(next, r.Next)
		l.hold(d, r.Targets)
		l.keep(v, w, d, &r, now)
	}
	return targets, next
}

// keep writes how far a deployment is, or how it ended.
func (l *Loop) keep(v *View, w *work, d *deploy.Deployment, r *deploy.Result, now time.Time) {
	key := deployPrefix + d.ID
	after := r.Deployment
	if after.State == deploy.Running {
		if !same(d, &after) {
			w.conditions[key] = v.versions[key]
			w.put(key, after)
		}
		return
	}
	w.conditions[key] = v.versions[key]
	w.remove(key)
	end := Ending{Deployment: after, At: now.UTC()}
	if r.Rollback != nil {
		back := *r.Rollback
		back.ID, end.Follows = l.o.NewID(), ""
		for id, a := range TakeBack(v, &back, now) {
			w.conditions[appPrefix+bare(id)] = v.versions[appPrefix+bare(id)]
			if a == nil {
				w.remove(appPrefix + bare(id))
				continue
			}
			w.put(appPrefix+bare(id), a)
			w.put(versionKey(id, a.Version), a)
		}
		w.put(deployPrefix+back.ID, back)
		end.Follows = back.ID
	}
	w.put(endedPrefix+d.ID, end)
	l.log.Info("deployment ended", "id", d.ID, "state", string(after.State), "reason", after.Reason, "apps", d.Apps(), "took", now.Sub(d.Started), "follows", end.Follows)
}

// others are the instances of an app of which some are of other versions, as a
// deployment that was stopped leaves them; none where all are of the version
// that the app has.
func (l *Loop) others(v *View, a *api.App) []scheduler.Instance {
	version, mixed := scheduler.Version(a), false
	var all []scheduler.Instance
	for _, t := range v.TasksOf(a.ID) {
		entry := v.Wanted[t.ID]
		if entry == nil || t.State().Ended() {
			continue
		}
		mixed = mixed || t.Version != version
		all = append(all, instance(t, entry))
	}
	if !mixed {
		return nil
	}
	return all
}

// target tells the table what shall run.
func (l *Loop) target(v *View, deployed map[string][]scheduler.Target) {
	for app, targets := range deployed {
		l.table.SetTargets(app, targets)
		l.fed.deployed[app] = true
		delete(l.fed.targets, app)
	}
	for id, a := range v.Apps {
		if _, ok := deployed[id]; ok {
			continue
		}
		if others := l.others(v, a); len(others) > 0 { // until they have ended
			l.table.SetTargets(id, deploy.Steady(a, others))
			delete(l.fed.targets, id)
			l.fed.deployed[id] = true
			continue
		}
		if l.fed.targets[id] == a {
			continue
		}
		l.table.SetTargets(id, []scheduler.Target{{App: *a, Count: int(a.Instances)}})
		l.fed.targets[id] = a
		delete(l.fed.deployed, id)
	}
	gone := func(id string) bool {
		_, ok := deployed[id]
		return !ok && v.Apps[id] == nil
	}
	for id := range l.fed.targets {
		if gone(id) {
			l.table.SetTargets(id, nil)
			delete(l.fed.targets, id)
		}
	}
	for id := range l.fed.deployed {
		if gone(id) {
			l.table.SetTargets(id, nil)
			delete(l.fed.deployed, id)
		}
	}
}

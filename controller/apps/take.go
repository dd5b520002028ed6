package apps

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/deploy"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/scheduler"
)

// same tells whether two values are written alike.
func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// take writes what the scheduler has decided.
func (l *Loop) take(v *View, w *work, plan *scheduler.Plan, now time.Time) {
	for _, one := range plan.Launch {
		l.launch(v, w, one, now)
	}
	histories := map[string]scheduler.History{}
	for _, one := range plan.Kill {
		l.kill(v, w, one.ID, one.Reason, now)
		if one.Unhealthy {
			h, ok := histories[one.App]
			if !ok {
				h = scheduler.History{App: one.App}
				if old := v.Histories[one.App]; old != nil {
					h = *old
				}
			}
			histories[one.App] = h.Killed(now)
			w.put(historyPrefix+bare(one.App), histories[one.App])
		}
	}
	for _, id := range plan.Forget {
		w.remove(taskPrefix + id)
		w.remove(hub.TaskKey(id))
	}
	for _, b := range plan.Breakers {
		l.log.Warn("too many instances fail their checks at once: they are ended slowly", "app", b.App, "unhealthy", b.Unhealthy, "held", b.Held, "until", b.Until)
	}
	l.queue(v, w, plan, now)
}

func (l *Loop) launch(v *View, w *work, one scheduler.Launch, now time.Time) {
	t := Task{
		ID: one.Spec.ID, App: one.App, Version: one.Version, Node: one.Node, Ports: one.Spec.Ports, Launched: now.UTC(), Checks: len(one.Spec.Checks), Replaces: one.Replaces,
		Status: api.TaskStatus{ID: one.Spec.ID, App: one.App},
	}
	if n := l.fed.nodes[one.Node]; len(n.Addresses) > 0 {
		t.Host = n.Addresses[0].String()
	}
	l.fed.tasks[t.ID] = fedTask{} // the table has it from now on
	w.put(taskPrefix+t.ID, t)
	w.put(hub.TaskKey(t.ID), hub.TaskEntry{
		Task: api.Task{ID: t.ID, App: t.App, Labels: one.Spec.Labels, Node: t.Node, Ports: t.Ports, State: api.TaskStaging, Down: "is staging"}, Spec: one.Spec,
	})
}

// queue keeps what waits and why.
func (l *Loop) queue(v *View, w *work, plan *scheduler.Plan, now time.Time) {
	waits := map[string]scheduler.Pending{}
	for _, p := range plan.Pending {
		if p.Count > 0 {
			waits[p.App] = p
		}
	}
	for app, p := range waits {
		old := v.Queues[app]
		next := Queue{Pending: p, Since: now.UTC()}
		if old != nil && old.Version == p.Version {
			next.Since = old.Since
		}
		if old == nil || !same(old, next) {
			w.put(queuePrefix+bare(app), next)
		}
	}
	for app := range v.Queues {
		if _, ok := waits[app]; !ok {
			w.remove(queuePrefix + bare(app))
		}
	}
}

// effects make tasks and services what every node is told of them.
func (l *Loop) effects(v *View, w *work) {
	held := l.held(v)
	var members []Member
	for _, id := range slices.Sorted(maps.Keys(v.Tasks)) {
		t, entry := v.Tasks[id], v.Wanted[id]
		if entry == nil {
			continue
		}
		a := v.Launched(t)
		state, why := l.serving(t, entry, held[t.App+" "+t.Version])
		told := entry.Task
		told.State, told.Addresses, told.Down = t.State(), t.Status.Addresses, why
		if a != nil {
			members = append(members, Member{t, a, state})
			told.Labels = a.Labels
		}
		if _, written := w.at[hub.TaskKey(id)]; !written && !reflect.DeepEqual(told, entry.Task) {
			w.put(hub.TaskKey(id), hub.TaskEntry{Task: told, Spec: entry.Spec})
		}
	}
	all := slices.SortedFunc(maps.Values(v.Apps), func(a, b *api.App) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	w.services = l.differ(Services(all, members, l.services))
}

// serving is whether a task may be given traffic, and if not, why.
func (l *Loop) serving(t *Task, entry *hub.TaskEntry, held bool) (api.BackendState, string) {
	i := instance(t, entry)
	ran := t.Status.State == api.TaskRunning || t.Status.State == api.TaskKilling
	switch {
	case i.Stopping() && ran:
		return api.Draining, "is told to end: " + t.Kill
	case t.Status.State != api.TaskRunning:
		return api.Down, "is " + string(t.State())
	case held:
		return api.Down, "waits until its deployment gives it traffic"
	case t.Status.Healthy != nil && !*t.Status.Healthy:
		return api.Draining, "fails its health check"
	case !i.Serving():
		return api.Down, "has not passed its checks yet"
	}
	return api.Up, ""
}

// held has the versions of apps, by app and version, that get no traffic yet.
func (l *Loop) held(v *View) map[string]bool {
	all := map[string]bool{}
	for _, d := range v.Deployments {
		for _, h := range l.heldBy[d.ID] {
			all[h] = true
		}
	}
	return all
}

// tidy forgets what nobody asks for any more, some of it at a time.
func (l *Loop) tidy(v *View, w *work) {
	const most = 60
	room := func() bool { return len(w.ops) < most }
	used := map[string]bool{}
	for _, d := range v.Deployments {
		for _, id := range d.Apps() {
			used[id] = true
		}
	}
	for id, versions := range v.Versions {
		gone := v.Apps[id] == nil && !used[id] && len(v.byApp[id]) == 0
		if !gone && len(versions) <= VersionsKept {
			continue
		}
		list := v.VersionsOf(id)
		if !gone {
			list = list[VersionsKept:]
		}
		for _, version := range list {
			if room() {
				w.remove(versionKey(id, version))
			}
		}
		if gone && room() {
			for _, p := range []string{historyPrefix, failurePrefix} {
				w.remove(p + bare(id))
			}
		}
	}
	l.tidyEnded(v, w, room)
}

// endedKept is how many ended deployments are remembered.
const endedKept = 50

func (l *Loop) tidyEnded(v *View, w *work, room func() bool) {
	if len(v.Ended) <= 2*endedKept {
		return
	}
	list := slices.SortedFunc(maps.Values(v.Ended), func(a, b *Ending) int { return b.At.Compare(a.At) })
	for _, e := range list[endedKept:] {
		if room() {
			w.remove(endedPrefix + e.Deployment.ID)
		}
	}
}

// hold remembers which versions a deployment keeps from traffic.
func (l *Loop) hold(d *deploy.Deployment, targets []scheduler.Target) {
	var list []string
	for i := range targets {
		if targets[i].Held {
			list = append(list, targets[i].App.ID+" "+scheduler.Version(&targets[i].App))
		}
	}
	l.heldBy[d.ID] = list
}

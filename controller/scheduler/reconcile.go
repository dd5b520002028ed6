package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
)

func byID(a, b *app) int { return cmp.Compare(a.id, b.id) }

// view is an app's instances as they are at one time, sorted into what matters.
type view struct {
	now    time.Time
	app    *app
	total  int // of all that have not ended, on nodes that are there
	alive  []*instance
	moving map[*instance]bool
	// replaced counts, for an instance, those that are launched for it.
	replaced map[string]bool
	// lost ones have been on dead nodes for too long: alive no more, but not yet
	// told to end.
	lost []*instance
	next time.Time // when time alone changes something
}

func (v *view) at(t time.Time) {
	if t.After(v.now) && (v.next.IsZero() || t.Before(v.next)) {
		v.next = t
	}
}

// reconcile brings one app to its targets.
func (t *Table) reconcile(a *app, now time.Time) {
	a.pending, a.breaker = nil, nil
	v := t.look(a, now)
	t.endUnhealthy(v)
	t.move(v)
	for i := range a.targets {
		target := &a.targets[i]
		switch {
		case target.Count == int(api.EveryNode):
			t.everyNode(v, target)
		default:
			t.fill(v, target)
		}
	}
	t.endOthers(v)
	a.rebalance = false
	delete(t.timed, a)
	if !v.next.IsZero() {
		t.timed[a] = v.next
	}
	delete(t.waiting, a)
	if len(a.pending) > 0 || a.breaker != nil {
		t.waiting[a] = struct{}{}
	}
	if len(a.instances) == 0 && len(a.targets) == 0 && a.history.App == "" {
		delete(t.apps, a.id)
	}
}

// look sorts an app's instances, and forgets those whose nodes are gone.
func (t *Table) look(a *app, now time.Time) *view {
	v := &view{now: now, app: a, moving: map[*instance]bool{}, replaced: map[string]bool{}}
	for _, i := range slices.Clone(a.instances) {
		if i.State.Ended() {
			continue
		}
		if i.slot < 0 {
			t.forget(i)
			continue
		}
		if t.nodes.state[i.slot] == dead {
			t.lookAtLost(v, i)
			continue
		}
		v.total++
		if i.Stopping() {
			continue
		}
		v.alive = append(v.alive, i)
	}
	return v
}

// move marks what is to go as soon as others serve in its place: instances on
// nodes that are drained, and those that something was launched for that may
// stay where it is.
func (t *Table) move(v *view) {
	for _, i := range v.alive {
		if i.Replaces != "" && t.nodes.state[i.slot] < draining {
			v.replaced[i.Replaces] = true
		}
	}
	for _, i := range v.alive {
		if t.nodes.state[i.slot] == draining || v.replaced[i.ID] {
			v.moving[i] = true
		}
	}
}

// lookAtLost decides about an instance on a dead node. For a while it counts as
// alive: the node may come back.
func (t *Table) lookAtLost(v *view, i *instance) {
	strategy := v.app.unreachable(i.Version)
	since := t.nodes.facts[i.slot].Since
	inactive := since.Add(seconds(strategy.InactiveAfterSeconds))
	forget := since.Add(seconds(max(strategy.ExpungeAfterSeconds, strategy.InactiveAfterSeconds)))
	switch {
	case i.Stopping():
		if strategy.Disabled {
			return
		}
		if !forget.After(v.now) {
			t.forget(i)
		} else {
			v.at(forget)
		}
	case strategy.Disabled || v.now.Before(inactive):
		v.alive = append(v.alive, i)
		if !strategy.Disabled {
			v.at(inactive)
		}
	default:
		v.lost = append(v.lost, i)
	}
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// unreachable is the strategy of the version, or of the newest one when that is
// not among the targets any more.
func (a *app) unreachable(version string) api.AppUnreachable {
	var last *api.AppUnreachable
	for i := range a.targets {
		last = a.targets[i].App.UnreachableStrategy
		if Version(&a.targets[i].App) == version {
			break
		}
	}
	if last == nil {
		return api.AppUnreachable{InactiveAfterSeconds: api.DefaultUnreachable, ExpungeAfterSeconds: api.DefaultUnreachable}
	}
	return *last
}

// target is what the app wants of a version; nil for nothing.
func (a *app) target(version string) *Target {
	for i := range a.targets {
		if Version(&a.targets[i].App) == version {
			return &a.targets[i]
		}
	}
	return nil
}

func (t *Table) forget(i *instance) {
	t.plan.Forget = append(t.plan.Forget, i.ID)
	t.release(i)
	t.drop(i)
}

// kill ends an instance, and takes it as told: its spec says so from now on. One
// on a dead node whose time is over is forgotten at once.
func (t *Table) kill(v *view, i *instance, reason string, unhealthy bool) {
	v.alive = slices.DeleteFunc(v.alive, func(o *instance) bool { return o == i })
	v.lost = slices.DeleteFunc(v.lost, func(o *instance) bool { return o == i })
	if t.nodes.state[i.slot] == dead {
		strategy := v.app.unreachable(i.Version)
		forget := t.nodes.facts[i.slot].Since.Add(seconds(max(strategy.ExpungeAfterSeconds, strategy.InactiveAfterSeconds)))
		if !strategy.Disabled && !forget.After(v.now) {
			t.forget(i)
			return
		}
		if !strategy.Disabled {
			v.at(forget)
		}
	}
	t.plan.Kill = append(t.plan.Kill, Kill{ID: i.ID, App: i.App, Node: i.Node, Reason: reason, Unhealthy: unhealthy})
	var spec api.TaskSpec
	if i.Spec != nil {
		spec = *i.Spec
	}
	spec.Kill = true
	i.Spec = &spec
}

// endOthers ends instances of versions that no target names.
func (t *Table) endOthers(v *view) {
	reason := "another version is wanted"
	if len(v.app.targets) == 0 {
		reason = "the app was removed"
	}
	for _, i := range slices.Concat(v.alive, v.lost) {
		if v.app.target(i.Version) == nil {
			t.kill(v, i, reason, false)
		}
	}
}

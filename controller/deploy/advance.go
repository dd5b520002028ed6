package deploy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

// Advance says what shall be now. Nothing but its arguments decides, so that it
// may be asked again at any time, and by another controller.
func Advance(d Deployment, seen Observed, now time.Time) Result {
	byApp := map[string][]*scheduler.Instance{}
	for i := range seen.Instances {
		byApp[seen.Instances[i].App] = append(byApp[seen.Instances[i].App], &seen.Instances[i])
	}
	if d.State != Running {
		return Result{Deployment: d, Targets: settled(&d, byApp)}
	}
	for {
		r := Result{Deployment: d}
		if d.Current >= len(d.Steps) {
			r.Deployment.State, r.Deployment.Progress = Done, nil
			r.Targets = settled(&r.Deployment, byApp)
			return r
		}
		done := r.step(byApp, &seen, now)
		if !done {
			r.deadline(byApp, now)
			return r
		}
		d = r.Deployment
		d.Current, d.Progress = d.Current+1, nil
	}
}

// settled are the targets of a deployment that has ended: what shall be from now
// on.
func settled(d *Deployment, byApp map[string][]*scheduler.Instance) []scheduler.Target {
	var all []scheduler.Target
	for _, c := range d.Changes {
		if c.To != nil {
			all = append(all, steady(c.To, byApp[c.App])...)
		} else if c.From != nil && d.State != Done {
			all = append(all, steady(c.From, byApp[c.App])...)
		}
	}
	return all
}

// step does the current step, and tells whether it is done.
func (r *Result) step(byApp map[string][]*scheduler.Instance, seen *Observed, now time.Time) bool {
	d := &r.Deployment
	before := d.Progress
	d.Progress = nil
	now = now.UTC()
	current := map[string]ActionType{}
	for _, a := range d.Steps[d.Current] {
		current[a.App] = a.Type
	}
	done := true
	for i := range d.Changes {
		c := &d.Changes[i]
		kind, acts := current[c.App]
		if !acts {
			r.idle(c, byApp[c.App])
			continue
		}
		p := Progress{App: c.App}
		if at := slices.IndexFunc(before, func(p Progress) bool { return p.App == c.App }); at >= 0 {
			p = before[at]
		}
		p.Waits = ""
		w := &work{result: r, change: c, progress: &p, now: now, seen: seen, count: count(byApp[c.App], c, seen), instances: byApp[c.App]}
		p.Done = w.act(kind)
		d.Progress = append(d.Progress, p)
		done = done && p.Done
	}
	return done
}

// idle keeps an app that is not in the current step as it was, or as it has
// become.
func (r *Result) idle(c *Change, instances []*scheduler.Instance) {
	d := &r.Deployment
	finished := slices.ContainsFunc(slices.Concat(d.Steps[:d.Current]...), func(a Action) bool { return a.App == c.App && a.Type != Start })
	switch {
	case finished && c.To != nil:
		r.Targets = append(r.Targets, steady(c.To, instances)...)
	case !finished && c.From != nil:
		r.Targets = append(r.Targets, steady(c.From, instances)...)
	}
}

// tally is how many instances of an app there are.
type tally struct {
	newAlive, newServing int
	oldAlive, oldServing int
	stopping             int // on nodes that are there
	total                int // that have not ended, on nodes that are there
	// old has those of the old versions; after deployments that were stopped there
	// may be several.
	old map[string]*aliveServing
}

type aliveServing struct{ alive, serving int }

func count(instances []*scheduler.Instance, c *Change, seen *Observed) tally {
	n := tally{old: map[string]*aliveServing{}}
	for _, i := range instances {
		if i.State.Ended() || seen.Lost[i.Node] && i.Stopping() {
			continue
		}
		n.total++
		serving := i.Serving() && !seen.Lost[i.Node]
		switch {
		case i.Stopping():
			n.stopping++
		case c.To != nil && i.Version == scheduler.Version(c.To):
			n.newAlive++
			if serving {
				n.newServing++
			}
		default:
			of := n.old[i.Version]
			if of == nil {
				of = &aliveServing{}
				n.old[i.Version] = of
			}
			n.oldAlive++
			of.alive++
			if serving {
				n.oldServing++
				of.serving++
			}
		}
	}
	return n
}

// work is one app's action while it goes on.
type work struct {
	result   *Result
	change   *Change
	progress *Progress
	now      time.Time
	seen     *Observed
	count    tally
	// instances of the app.
	instances []*scheduler.Instance
}

func (w *work) want(targets ...scheduler.Target) {
	w.result.Targets = append(w.result.Targets, targets...)
}

func (w *work) at(t time.Time) {
	if w.result.Next.IsZero() || t.Before(w.result.Next) {
		w.result.Next = t
	}
}

// reached notes progress: the deadline runs from the best that was reached.
func (w *work) reached(n int) {
	if w.progress.At.IsZero() || n > w.progress.Best {
		w.progress.Best, w.progress.At = n, w.now
	}
}

func (w *work) act(kind ActionType) bool {
	switch kind {
	case Start:
		// Its instances come in the step in which its turn is.
		return true
	case Stop:
		return w.stop()
	case Scale:
		return w.scale()
	}
	return w.restart()
}

func (w *work) stop() bool {
	w.reached(-w.count.total)
	if w.count.total == 0 {
		return true
	}
	w.progress.Waits = fmt.Sprintf("%d instances to end", w.count.total)
	return false
}

// size is how many instances the app shall have.
func (w *work) size() int {
	if w.change.To.Instances == api.EveryNode {
		return w.seen.Everywhere[w.change.App]
	}
	return int(w.change.To.Instances)
}

func (w *work) scale() bool {
	n, size := w.count, w.size()
	if n.oldAlive > 0 && !w.change.onlyWords() {
		return w.restart() // what a deployment that was stopped has left
	}
	w.want(steady(w.change.To, w.instances)...)
	w.reached(min(n.newServing, size) - max(n.newAlive-size, 0))
	switch {
	case w.change.onlyWords():
		return true
	case n.newServing < size:
		w.progress.Waits = fmt.Sprintf("%d of %d instances serve", n.newServing, size)
	case n.newAlive > size || n.stopping > 0 && w.shrinks():
		w.progress.Waits = fmt.Sprintf("%d instances to end", n.newAlive-size+n.stopping)
	default:
		return true
	}
	return false
}

func (w *work) shrinks() bool {
	c := w.change
	return c.From != nil && c.To.Instances >= 0 && (c.From.Instances > c.To.Instances || c.From.Instances == api.EveryNode)
}

// deadline fails the deployment when an app of the step has made no progress for
// too long, and takes back what was there before.
func (r *Result) deadline(byApp map[string][]*scheduler.Instance, now time.Time) {
	d := &r.Deployment
	for _, p := range d.Progress {
		limit := d.patience(p.App)
		if p.Done || limit == 0 {
			continue
		}
		if end := p.At.Add(limit); end.After(now) {
			if r.Next.IsZero() || end.Before(r.Next) {
				r.Next = end
			}
			continue
		}
		d.State = Failed
		d.Reason = fmt.Sprintf("app %s made no progress for %s: %s", p.App, limit, p.Waits)
		r.Next = time.Time{}
		if d.RollbackOf == "" {
			r.Rollback = d.rollback(now)
		}
		r.Targets = settled(d, byApp)
		return
	}
}

// patience is how long an app may make no progress; 0 for ever.
func (d *Deployment) patience(app string) time.Duration {
	at := slices.IndexFunc(d.Changes, func(c Change) bool { return c.App == app })
	a := d.Changes[at].To
	if a == nil {
		return 0 // tasks end when they end
	}
	n := api.DefaultProgress
	if a.ProgressDeadlineSeconds != nil {
		n = *a.ProgressDeadlineSeconds
	}
	return time.Duration(n * float64(time.Second))
}

// rollback takes back changes of apps that were there before. New ones stay: to
// remove what somebody has just asked for helps nobody. Nil when there are no
// others.
func (d *Deployment) rollback(now time.Time) *Deployment {
	kept := *d
	kept.Changes = slices.DeleteFunc(slices.Clone(d.Changes), func(c Change) bool { return c.From == nil })
	if len(kept.Changes) == 0 {
		return nil
	}
	back := kept.Reverse("", now)
	return &back
}

// Wait says in words what the deployment waits for.
func (d Deployment) Wait() string {
	var all []string
	for _, p := range d.Progress {
		if !p.Done && p.Waits != "" {
			all = append(all, p.App+": "+p.Waits)
		}
	}
	return strings.Join(all, "; ")
}

package deploy

import (
	"fmt"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

// settle is how long the old version of a blue-green switch stays without new
// traffic, so that every node has switched before the first task ends.
const settle = 5 * time.Second

// bounds are the least number of instances that serve, and the most that there
// may be, while size of them are replaced.
func bounds(a *api.App, size int) (floor, ceiling int) {
	least, over := 1.0, 1.0
	if u := a.UpgradeStrategy; u != nil {
		if u.MinimumHealthCapacity != nil {
			least = *u.MinimumHealthCapacity
		}
		if u.MaximumOverCapacity != nil {
			over = *u.MaximumOverCapacity
		}
	}
	// A hair is taken off and put on, for shares that are no binary fractions:
	// 10 × 0.7 is a little more than 7.
	const hair = 1e-9
	floor = roundUp(float64(size)*least - hair)
	ceiling = int(float64(size)*(1+over) + hair)
	if floor == ceiling {
		ceiling++ // or nothing could ever begin
	}
	return floor, ceiling
}

func roundUp(x float64) int {
	n := int(x)
	if float64(n) < x {
		n++
	}
	return n
}

func (w *work) restart() bool {
	n, size := w.count, w.size()
	w.reached(n.newServing - n.oldAlive)
	if n.newServing >= size && n.newAlive <= size && n.oldAlive == 0 && n.stopping == 0 {
		w.want(steady(w.change.To, w.instances)...)
		return true
	}
	w.progress.Waits = fmt.Sprintf("%d of %d new instances serve, %d old ones are left", n.newServing, size, n.oldAlive)
	if w.change.To.BlueGreen && w.result.Deployment.RollbackOf == "" {
		w.blueGreen(size)
		return false
	}
	floor, ceiling := bounds(w.change.To, size)
	most := size
	if canaries := w.canaries(size); canaries > 0 {
		most = canaries
	}
	end := min(max(n.newServing+n.oldAlive-floor, 0), n.oldAlive)
	// Those that do not serve end first; of those that serve the floor stays.
	end = min(end, n.oldAlive-n.oldServing+max(n.oldServing+n.newServing-floor, 0))
	if most < size {
		// The old ones that the canaries stand in for, and no more.
		end = min(end, max(n.oldAlive-(size-n.newServing), 0))
	}
	grown := min(most, n.newAlive+max(ceiling-n.total, 0))
	w.want(scheduler.Target{App: *w.change.To, Count: grown, Limit: ceiling})
	w.keep(end, false)
	return false
}

// keep wants the old instances but for so many of them.
func (w *work) keep(end int, held bool) {
	base := w.change.From
	if base == nil {
		base = w.change.To
	}
	w.want(kept(base, w.count.old, end, held)...)
}

// canaries is how many new instances there may be until the app is promoted; 0
// when there is nothing to wait for.
func (w *work) canaries(size int) int {
	canary := w.change.To.Canary
	if canary == nil || canary.Instances >= size || w.count.oldAlive == 0 || w.result.Deployment.RollbackOf != "" || slices.Contains(w.result.Deployment.Promoted, w.change.App) {
		return 0
	}
	if w.count.newServing < canary.Instances {
		w.progress.Canary = time.Time{}
		return canary.Instances
	}
	if w.progress.Canary.IsZero() {
		w.progress.Canary = w.now
	}
	// They serve: what they wait for now is no failure of theirs.
	w.progress.At = w.now
	w.progress.Waits = fmt.Sprintf("%d canaries serve and wait to be promoted", canary.Instances)
	if wait, err := time.ParseDuration(canary.Promote); err == nil {
		promotion := w.progress.Canary.Add(wait)
		if !promotion.After(w.now) {
			w.result.Deployment = w.result.Deployment.Promote(w.change.App)
			return 0
		}
		w.at(promotion)
	}
	return canary.Instances
}

// blueGreen starts the new version whole, without traffic, beside the old one,
// switches the traffic, and ends the old one when every node has switched.
func (w *work) blueGreen(size int) {
	n, p := w.count, w.progress
	if n.newServing >= size && p.Switched.IsZero() {
		p.Switched = w.now
	}
	fresh := scheduler.Target{App: *w.change.To, Count: size, Held: p.Switched.IsZero() && n.oldServing > 0}
	w.want(fresh)
	if n.oldAlive == 0 {
		return
	}
	if p.Switched.IsZero() {
		p.Waits = fmt.Sprintf("%d of %d new instances serve, before traffic goes to them", n.newServing, size)
		w.keep(0, false)
		return
	}
	if end := p.Switched.Add(settle); end.After(w.now) {
		w.at(end)
		w.keep(0, true)
	}
}

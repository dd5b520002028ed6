package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
)

// failing tells whether a check has failed as often in a row as it may.
func failing(a *api.App, i *instance) bool {
	if i.State != api.TaskRunning {
		return false
	}
	for k, c := range i.Checks {
		if k < len(a.HealthChecks) && !c.Healthy {
			if most := mostFailures(&a.HealthChecks[k]); most > 0 && c.Failures >= most {
				return true
			}
		}
	}
	return false
}

// endUnhealthy ends instances whose checks fail, but only so many in a minute
// that no failure of the checks themselves ends an app.
func (t *Table) endUnhealthy(v *view) {
	var sick []*instance
	for _, i := range v.alive {
		if target := v.app.target(i.Version); target != nil && t.nodes.state[i.slot] != dead && failing(&target.App, i) {
			sick = append(sick, i)
		}
	}
	if len(sick) == 0 {
		return
	}
	slices.SortFunc(sick, func(a, b *instance) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	var recent []time.Time
	for _, at := range v.app.history.Unhealthy {
		if v.now.Sub(at) < breakerWindow {
			recent = append(recent, at)
		}
	}
	may := max(allowance(len(v.alive))-len(recent), 0)
	for n, i := range sick {
		if n >= may {
			break
		}
		if v.app.history.App == "" {
			v.app.history.App = i.App
		}
		v.app.history = v.app.history.Killed(v.now)
		recent = append(recent, v.now)
		t.kill(v, i, "its health check fails", true)
	}
	if held := len(sick) - may; held > 0 {
		until := recent[0].Add(breakerWindow)
		v.app.breaker = &Breaker{App: v.app.id, Unhealthy: len(sick), Held: held, Until: until}
		v.at(until)
	}
}

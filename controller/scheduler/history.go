package scheduler

import (
	"math"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
)

const (
	// quiet is how long after a back-off an app must not fail for its failures to
	// be forgotten.
	quiet = time.Minute
	// breakerWindow is the time in which the breaker counts kills.
	breakerWindow = time.Minute
	// breakerShare of an app's instances, and at least one, may be ended for their
	// health in a window.
	breakerShare = 0.1
)

// History is what an app's past has to do with its future.
type History struct {
	App     string `json:"app"`
	Version string `json:"version"`
	// Failures since the last success, and when the last was.
	Failures int       `json:"failures,omitempty"`
	Failed   time.Time `json:"failed,omitzero"`
	// Unhealthy is when instances were ended for their health, oldest first.
	Unhealthy []time.Time `json:"unhealthy,omitempty"`
}

// Ended returns the history after an instance of this version of the app has
// ended. That it was killed does not count, that it was lost does not either. A
// new version, and a quiet minute after the back-off, begin anew.
func (h History) Ended(a *api.App, version string, state api.TaskState, at time.Time) History {
	if h.Version != version {
		h = History{App: a.ID, Version: version, Unhealthy: h.Unhealthy}
	}
	if state != api.TaskFailed && state != api.TaskFinished {
		return h
	}
	if at.Sub(h.Failed) > Delay(a, h.Failures)+quiet {
		h.Failures = 0
	}
	h.App = a.ID
	h.Failures++
	h.Failed = at
	return h
}

// Killed returns the history after an instance was ended for its health.
func (h History) Killed(at time.Time) History {
	kept := slices.DeleteFunc(slices.Clone(h.Unhealthy), func(t time.Time) bool { return at.Sub(t) >= breakerWindow })
	h.Unhealthy = append(kept, at)
	return h
}

// Reset returns the history without its failures, so that the next launch is at
// once.
func (h History) Reset() History {
	h.Failures, h.Failed = 0, time.Time{}
	return h
}

// Next is when the app may be launched again; the zero time: now.
func (h History) Next(a *api.App) time.Time {
	if h.Failures == 0 || h.Version != Version(a) {
		return time.Time{}
	}
	return h.Failed.Add(Delay(a, h.Failures))
}

// Delay is how long an app waits after its n-th failure in a row:
// backoffSeconds × backoffFactor^(n-1), at most maxLaunchDelaySeconds.
func Delay(a *api.App, n int) time.Duration {
	if n <= 0 {
		return 0
	}
	seconds := or(a.BackoffSeconds, 1) * math.Pow(or(a.BackoffFactor, 1.15), float64(n-1))
	return time.Duration(min(seconds, or(a.MaxLaunchDelaySeconds, 300)) * float64(time.Second))
}

// allowance is how many instances of count may be ended for their health in a
// window.
func allowance(count int) int { return max(1, int(breakerShare*float64(count))) }

func or(p *float64, otherwise float64) float64 {
	if p == nil {
		return otherwise
	}
	return *p
}

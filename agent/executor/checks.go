package executor

import (
	"context"
	"fmt"
	"time"

	"github.com/weirproject/weir/api"
)

// check makes one of the task's checks, again and again, until ctx ends.
func (t *task) check(ctx context.Context, i int) {
	c := t.launch.Spec.Checks[i]
	if !sleep(ctx, c.Delay.Std()) {
		return
	}
	for {
		start := time.Now()
		err := t.probe(ctx, c)
		if ctx.Err() != nil {
			return
		}
		t.took(i, c, err)
		if !sleep(ctx, max(c.Interval.Std()-time.Since(start), 10*time.Millisecond)) {
			return
		}
	}
}

// took takes the outcome of one check in. Until the first success failures do
// not count within the grace, and say nothing of the task's health.
func (t *task) took(i int, c api.TaskCheck, err error) {
	kill := false
	t.update(func(s *api.TaskStatus) {
		k := &s.Checks[i]
		passed := k.Healthy || k.Failures > 0
		k.Last, k.Output = time.Now(), ""
		switch {
		case err == nil:
			k.Healthy, k.Failures = true, 0
		case !passed && s.Healthy == nil && time.Since(s.Started) < c.Grace.Std():
			k.Output = err.Error()
		default:
			k.Healthy, k.Output = false, err.Error()
			k.Failures++
			kill = c.Failures > 0 && k.Failures >= c.Failures
		}
		if healthy := verdict(s.Checks); healthy != nil && (s.Healthy == nil || *s.Healthy != *healthy) {
			s.Healthy = healthy
		}
	})
	if kill {
		t.kill(fmt.Sprintf("killed: its health check failed %d times in a row: %v", c.Failures, err), -1)
	}
}

// verdict on a task: healthy when all checks pass, not healthy when one fails,
// and nil while one has no opinion.
func verdict(checks []api.CheckStatus) *bool {
	all := true
	for _, c := range checks {
		if c.Failures > 0 {
			no := false
			return &no
		}
		all = all && c.Healthy
	}
	if !all {
		return nil
	}
	return &all
}

// checkReady makes the readiness check until it passes or ctx ends.
func (t *task) checkReady(ctx context.Context) {
	c := *t.launch.Spec.Ready
	for {
		start := time.Now()
		err := t.probe(ctx, c)
		if ctx.Err() != nil {
			return
		}
		ready := err == nil
		t.update(func(s *api.TaskStatus) {
			if s.Ready == nil || *s.Ready != ready {
				s.Ready = &ready
			}
		})
		if ready || !sleep(ctx, max(c.Interval.Std()-time.Since(start), 10*time.Millisecond)) {
			return
		}
	}
}

// sleep tells whether ctx has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

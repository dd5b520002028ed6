package health

import (
	"context"
	"math/rand/v2"
	"time"
)

// maxInFlight bounds the checks that run at once.
const maxInFlight = 256

// check is one target under observation. Checker.mu guards it, but for the
// target, which never changes.
type check struct {
	target   Target
	cancel   context.CancelFunc // nil until started
	up       bool
	failures int    // in a row
	reason   string // why it is not up
}

// start runs the check's loop once the Checker runs; c.mu is held.
func (c *Checker) start(k *check) {
	if c.ctx == nil || k.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	k.cancel = cancel
	c.running.Go(func() { c.loop(ctx, k) })
}

func (k *check) stop() {
	if k.cancel != nil {
		k.cancel()
	}
}

// loop checks at once, but for a small delay that spreads many, and then every
// interval, 10% more or less.
func (c *Checker) loop(ctx context.Context, k *check) {
	interval := k.target.Check.Interval.Std()
	delay := time.Duration(rand.Int64N(int64(min(interval, 100*time.Millisecond))))
	for {
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
			return
		case c.slots <- struct{}{}:
		}
		err := c.prober.probe(ctx, k.target)
		<-c.slots
		if ctx.Err() != nil {
			return
		}
		c.record(k, err)
		delay = interval + time.Duration((rand.Float64()-0.5)*0.2*float64(interval))
	}
}

// record takes the outcome of one check in; nil means that it passed.
func (c *Checker) record(k *check, err error) {
	c.metrics.observe(err)
	c.mu.Lock()
	if c.checks[k.target.key()] != k {
		c.mu.Unlock()
		return // no longer wanted
	}
	before := k.up
	if err == nil {
		k.up, k.failures, k.reason = true, 0, ""
	} else {
		k.failures++
		k.reason = err.Error()
		k.up = k.up && k.failures < k.target.Check.Failures
	}
	changed := before != k.up
	if changed {
		c.count()
	}
	c.mu.Unlock()
	if !changed {
		return
	}
	facts := []any{"service", k.target.Service, "protocol", k.target.Protocol, "backend", k.target.Backend}
	if err == nil {
		c.log.Info("backend is up", facts...)
	} else {
		c.log.Warn("backend is down", append(facts, "reason", err)...)
	}
	if c.options.OnChange != nil {
		c.options.OnChange()
	}
}

package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"syscall"
	"time"
)

const (
	// firstSpread is how much apart the first checks of new targets are at
	// least, so that many do not start at once, and firstWithin the time that
	// few are spread over: the agents of a fleet get the same target together.
	firstSpread = 200 * time.Microsecond
	firstWithin = 100 * time.Millisecond
	// tick is what due times are rounded up to, so that thousands of checks a
	// second share their timers' wake-ups.
	tick = 5 * time.Millisecond
)

// check is one target under observation. Checker.mu guards it, but for the
// target, the probe and the context, which never change once it started.
type check struct {
	target Target
	probe  probeFunc
	ctx    context.Context
	cancel context.CancelFunc // nil until started
	timer  *time.Timer        // fires when it is due

	round  uint64 // of the last Set that wanted it
	gone   bool   // no longer wanted
	up     bool
	lost   bool      // it does not even answer; only where it is not up
	row    int       // outcomes in a row that speak against up
	reason string    // why it is not up
	since  time.Time // of the last change
}

// sameCheck tells whether two targets of one backend are checked alike.
func sameCheck(a, b Target) bool {
	if a.Tunnel != b.Tunnel && (a.Tunnel == nil || b.Tunnel == nil || *a.Tunnel != *b.Tunnel) {
		return false
	}
	return a.Check == b.Check || reflect.DeepEqual(a.Check, b.Check)
}

// start sets the timers of the first checks; c.mu is held.
func (c *Checker) start(fresh []*check) {
	if c.ctx == nil {
		return
	}
	within := max(firstWithin, time.Duration(len(fresh))*firstSpread)
	for _, k := range fresh {
		if k.gone {
			continue // given twice
		}
		k.ctx, k.cancel = context.WithCancel(c.ctx)
		delay := rand.N(min(k.target.Check.Interval.Std(), within))
		k.timer = time.AfterFunc(delay, func() { c.due(k) })
	}
}

// stop ends it; Checker.mu is held.
func (k *check) stop() {
	k.gone = true
	if k.cancel != nil {
		k.timer.Stop()
		k.cancel()
	}
}

// due runs in the timer's goroutine.
func (c *Checker) due(k *check) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil || k.gone {
		return
	}
	p := c.poolOf(k)
	p.add(k)
	c.dispatch(p)
}

func (c *Checker) poolOf(k *check) *pool {
	if k.target.Check.Exec != nil {
		return c.commands
	}
	return c.network
}

// dispatch starts what the pool lets start; c.mu is held.
func (c *Checker) dispatch(p *pool) {
	if c.ctx == nil {
		return // Run waits for what is in flight: no more may join it
	}
	for k := p.take(); k != nil; k = p.take() {
		c.running.Go(func() { c.run(p, k) })
	}
}

// run makes one check, takes its outcome in and sets the timer of the next, an
// interval after this one's start, 10% more or less.
func (c *Checker) run(p *pool, k *check) {
	interval := k.target.Check.Interval.Std()
	next := time.Since(c.started) + time.Duration((0.9+0.2*rand.Float64())*float64(interval))
	err := within(k.ctx, k.target.Check.Timeout.Std(), k.probe)
	c.mu.Lock()
	p.release(k)
	changed, turned, up := false, false, false
	if !k.gone && k.ctx.Err() == nil {
		if isOurs(err) {
			c.complain(err)
		} else {
			c.metrics.observe(err)
			changed, turned = c.record(k, err)
			up = k.up
		}
		now := time.Since(c.started)
		k.timer.Reset((max(next, now) + tick - 1).Truncate(tick) - now)
	}
	c.dispatch(p)
	c.mu.Unlock()
	if turned {
		c.tell(k, up, err)
	}
	if changed && c.options.OnChange != nil {
		c.options.OnChange(k.target)
	}
}

// isOurs tells whether a check failed for a want of this node's, which says
// nothing of the backend: files, ports, memory or processes.
func isOurs(err error) bool {
	var own unmade
	if errors.As(err, &own) {
		return true
	}
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// unmade is an error of this node that kept a check from being made.
type unmade struct{ error }

func (u unmade) Unwrap() error { return u.error }

// answer is an error that the backend itself has told.
type answer struct{ error }

func (a answer) Unwrap() error { return a.error }

// answered makes such an error.
func answered(format string, args ...any) error { return answer{fmt.Errorf(format, args...)} }

func isAnswer(err error) bool {
	var a answer
	return errors.As(err, &a)
}

// complain counts a check that could not be made, and now and then tells why;
// c.mu is held.
func (c *Checker) complain(err error) {
	c.metrics.unmade.Inc()
	if now := time.Now(); c.complained.IsZero() || now.Sub(c.complained) > time.Minute {
		c.complained = now
		c.log.Warn("health checks cannot be made, so that states stay as they are", "error", err)
	}
}

// record takes the outcome of one check in, nil for one that passed, and tells
// whether the state changed, and whether from up or to it; c.mu is held.
func (c *Checker) record(k *check, err error) (changed, turned bool) {
	needed := k.target.Check.Successes
	if k.up {
		needed = k.target.Check.Failures
	}
	if k.row++; (err == nil) == k.up {
		k.row = 0
	}
	if turned = k.row >= needed; turned {
		k.up, k.row, k.since = !k.up, 0, time.Now()
	}
	lost := !k.up && err != nil && !isAnswer(err)
	changed, k.lost = turned || lost != k.lost, lost
	switch {
	case k.up:
		k.reason = ""
	case err != nil:
		k.reason = err.Error()
	default:
		k.reason = fmt.Sprintf("passed %d of the %d checks in a row that it needs", k.row, needed)
	}
	if turned {
		if k.up {
			c.up++
		} else {
			c.up--
		}
		c.metrics.count(c.up, len(c.checks))
	}
	return changed, turned
}

// tell logs that a backend came up or went down.
func (c *Checker) tell(k *check, up bool, err error) {
	facts := []any{"service", k.target.Service, "protocol", k.target.Protocol, "backend", k.target.Backend}
	if up {
		c.log.Info("backend is up", facts...)
	} else {
		c.log.Warn("backend is not up", append(facts, "reason", err)...)
	}
}

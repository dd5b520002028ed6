// Package health checks backends actively: by HTTP, TCP or a command. It only
// observes; who is balanced is decided by package vip. The agent sets the
// targets and asks for their states.
package health

import (
	"context"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
)

// Target is one backend with its check.
type Target struct {
	Service  string // api.Service.Key
	Protocol api.Protocol
	Backend  netip.AddrPort
	Check    api.HealthCheck // zero values have their defaults
}

func (t Target) key() key { return key{t.Service, t.Protocol, t.Backend} }

// Result is what was found out about a backend, to be kept over a restart.
type Result struct {
	Service  string         `json:"service"`
	Protocol api.Protocol   `json:"protocol"`
	Backend  netip.AddrPort `json:"backend"`
	Up       bool           `json:"up"`
}

// Options of a Checker.
type Options struct {
	Log        *slog.Logger          // nil: no log
	Registerer prometheus.Registerer // nil: no metrics
	// OnChange is called when a backend's state changes; it must not block.
	// Nil: nobody is told.
	OnChange func()
	// Initial results, of the agent that ran before: a backend that was up
	// stays up until its check fails as often as it may. They hold for the
	// first Set alone, since what comes later is new.
	Initial []Result
}

// Checker checks targets.
type Checker struct {
	options Options
	log     *slog.Logger
	metrics *metrics
	prober  *prober
	slots   chan struct{} // held by the checks in flight

	running sync.WaitGroup // loops

	mu      sync.Mutex // guards what follows
	initial map[key]bool
	checks  map[key]*check
	ctx     context.Context // of Run; nil before and after
}

type key struct {
	service  string
	protocol api.Protocol
	backend  netip.AddrPort
}

// New makes a Checker; nothing is checked before Run.
func New(o Options) *Checker {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Checker{
		options: o, log: o.Log.With("component", "health"), metrics: newMetrics(o.Registerer), prober: newProber(),
		slots: make(chan struct{}, maxInFlight), initial: map[key]bool{}, checks: map[key]*check{},
	}
	for _, r := range o.Initial {
		c.initial[key{r.Service, r.Protocol, r.Backend}] = r.Up
	}
	return c
}

// Run checks until ctx ends and leaves nothing running.
func (c *Checker) Run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx = ctx
	for _, k := range c.checks {
		c.start(k)
	}
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.ctx = nil
	c.mu.Unlock()
	c.running.Wait()
	return nil
}

// Set makes these the targets. Results of targets that stay are kept, also
// when only their check changed.
func (c *Checker) Set(targets []Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := map[key]bool{}
	for _, t := range targets {
		t.Check = t.Check.WithDefaults()
		k := t.key()
		wanted[k] = true
		old := c.checks[k]
		if old != nil && reflect.DeepEqual(old.target.Check, t.Check) {
			continue
		}
		next := &check{target: t, up: c.initial[k], reason: "waiting for the first success"}
		if old != nil {
			next.up, next.reason = old.up, old.reason
			old.stop()
		}
		c.checks[k] = next
		c.start(next)
	}
	for k, old := range c.checks {
		if !wanted[k] {
			old.stop()
			delete(c.checks, k)
		}
	}
	c.initial = nil
	c.count()
}

// State tells a backend's state, and why when it is not up. A backend without
// a check is up.
func (c *Checker) State(service string, protocol api.Protocol, backend netip.AddrPort) (api.BackendState, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.checks[key{service, protocol, backend}]
	if found == nil || found.up {
		return api.Up, ""
	}
	return api.Down, found.reason
}

// Results of every target, sorted.
func (c *Checker) Results() []Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Result
	for k, found := range c.checks {
		all = append(all, Result{k.service, k.protocol, k.backend, found.up})
	}
	slices.SortFunc(all, func(a, b Result) int {
		if n := strings.Compare(a.Service, b.Service); n != 0 {
			return n
		}
		if n := strings.Compare(string(a.Protocol), string(b.Protocol)); n != 0 {
			return n
		}
		return a.Backend.Compare(b.Backend)
	})
	return all
}

// count publishes how many backends are in which state; c.mu is held.
func (c *Checker) count() {
	up := 0
	for _, k := range c.checks {
		if k.up {
			up++
		}
	}
	c.metrics.backends.WithLabelValues("up").Set(float64(up))
	c.metrics.backends.WithLabelValues("down").Set(float64(len(c.checks) - up))
}

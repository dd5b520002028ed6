// Package health checks backends actively: over HTTP, HTTPS, gRPC or TCP, by a
// command, or from an edge node through its tunnel to the backend. It only observes; who is balanced is decided by package vip. The
// agent sets the targets and asks for their states.
package health

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
)

// Target is one backend with its check.
type Target struct {
	Service  string // api.Service.Key
	Protocol api.Protocol
	Backend  netip.AddrPort
	Check    api.HealthCheck // zero values have their defaults
	// Tunnel is the way of a check with api.TCPCheck.Tunnel; nil: directly.
	Tunnel *Tunnel
}

func (t Target) key() key { return key{t.Service, t.Protocol, t.Backend} }

// Result is what was found out about a backend, to be kept over a restart.
type Result struct {
	Service  string         `json:"service"`
	Protocol api.Protocol   `json:"protocol"`
	Backend  netip.AddrPort `json:"backend"`
	Up       bool           `json:"up"`
	// Lost tells that one which is not up did not even answer.
	Lost bool `json:"lost,omitempty"`
	// Since when it is up or down; zero when that was so from the start.
	Since time.Time `json:"since,omitzero"`
}

// Options of a Checker.
type Options struct {
	Log        *slog.Logger          // nil: no log
	Registerer prometheus.Registerer // nil: no metrics
	// OnChange is called with the target when its state changes, from several
	// goroutines; it must not block. Nil: nobody is told.
	OnChange func(Target)
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
	tunnels *tunnels
	probe   func(Target) probeFunc
	started time.Time

	running sync.WaitGroup // checks in flight

	mu         sync.Mutex // guards what follows, the checks in it included
	initial    map[key]Result
	checks     map[key]*check
	up         int // of checks
	round      uint64
	ctx        context.Context // of Run; nil before and after
	complained time.Time       // that checks cannot be made
	// network holds the checks that make connections, commands those that make
	// processes, which cost more.
	network, commands *pool
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
	tunnels := newTunnels()
	c := &Checker{
		options: o, log: o.Log.With("component", "health"), metrics: newMetrics(o.Registerer),
		tunnels: tunnels, probe: (&prober{tunnels: tunnels}).probe, started: time.Now(),
		initial: map[key]Result{}, checks: map[key]*check{},
		network: newPool(maxConnections), commands: newPool(maxCommands),
	}
	for _, r := range o.Initial {
		c.initial[key{r.Service, r.Protocol, r.Backend}] = r
	}
	return c
}

// Run checks until ctx ends and leaves nothing running.
func (c *Checker) Run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx = ctx
	all := make([]*check, 0, len(c.checks))
	for _, k := range c.checks {
		all = append(all, k)
	}
	c.start(all)
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.ctx = nil
	for _, k := range c.checks {
		k.timer.Stop()
	}
	c.mu.Unlock()
	c.running.Wait()
	c.tunnels.close()
	return nil
}

// Set makes these the targets. Results of targets that stay are kept, also
// when only their check or its way changed.
func (c *Checker) Set(targets []Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.round++
	var fresh []*check
	for _, t := range targets {
		t.Check = t.Check.WithDefaults()
		k := t.key()
		old := c.checks[k]
		if old != nil && sameCheck(old.target, t) {
			old.round = c.round
			continue
		}
		next := &check{target: t, probe: c.probe(t), round: c.round, reason: "waiting for the first success"}
		if old != nil {
			next.up, next.lost, next.reason, next.since = old.up, old.lost, old.reason, old.since
			old.stop()
		} else if r, ok := c.initial[k]; ok {
			next.up, next.lost = r.Up, r.Lost
			if r.Since.Before(time.Now()) { // or else the clock was set back
				next.since = r.Since
			}
			c.countUp(next.up)
		}
		c.checks[k] = next
		fresh = append(fresh, next)
	}
	for k, old := range c.checks {
		if old.round != c.round {
			old.stop()
			delete(c.checks, k)
			if old.up {
				c.up--
			}
		}
	}
	c.initial = nil
	c.metrics.count(c.up, len(c.checks))
	c.start(fresh)
}

func (c *Checker) countUp(up bool) {
	if up {
		c.up++
	}
}

// State tells a backend's state, and why when it is not up. A backend without
// a check is up. One that answers but is not well, or was not checked yet, is
// draining: new connections would fail, but old ones may go on. One that cannot
// be reached is down.
func (c *Checker) State(service string, protocol api.Protocol, backend netip.AddrPort) (api.BackendState, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.checks[key{service, protocol, backend}]
	if found == nil || found.up {
		return api.Up, ""
	}
	if found.lost {
		return api.Down, found.reason
	}
	return api.Draining, found.reason
}

// Since tells when a backend came up or went down. It is zero for one without a
// check and for one that never changed its state.
func (c *Checker) Since(service string, protocol api.Protocol, backend netip.AddrPort) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found := c.checks[key{service, protocol, backend}]; found != nil {
		return found.since
	}
	return time.Time{}
}

// Results of every target, sorted.
func (c *Checker) Results() []Result {
	c.mu.Lock()
	var all []Result
	for k, found := range c.checks {
		all = append(all, Result{k.service, k.protocol, k.backend, found.up, found.lost, found.since.Round(0)}) // a file keeps no monotonic clock
	}
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b Result) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Protocol, b.Protocol), a.Backend.Compare(b.Backend))
	})
	return all
}

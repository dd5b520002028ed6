package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/zones"
)

// zonesComponent makes the packet filter enforce the policy.
type zonesComponent struct {
	agent    *Agent
	filter   zoneFilter // nil: zones.mode is off
	why      string     // this filter
	mode     string
	others   []string // filters whose rules are still to be removed
	cleaned  bool     // they are
	compiler zones.Compiler
	next     time.Time // when a rule expires
	ruleset  atomic.Pointer[dataplane.Ruleset]
	learner  *zoneLearner
	policies *policies
	drops    dropLog
	edge     edgeLimits

	mu    sync.Mutex    // guards what follows
	state zones.State   // of the snapshot bound, without what was learnt
	bound *api.Snapshot // that state and view are made of
	view  *zones.View
	until time.Time // when view is out of date; zero: never
}

func (a *Agent) newZones() (*zonesComponent, error) {
	c := &zonesComponent{agent: a, mode: a.config.Zones.Mode}
	a.zones = c
	c.policies = newPolicies(a)
	c.learner = newZoneLearner(c)
	if c.mode == "off" {
		c.why = "zones.mode is off"
		return c, c.noteFilter()
	}
	var err error
	if c.filter, c.why, err = pickFilter(filterTries(context.Background(), a.log, c.mode), a.config.Zones.Backend); err != nil {
		return nil, err
	}
	a.log.Info("packet filter picked", "component", "zones", "backend", c.filter.Backend(), "reason", c.why)
	a.registry.MustRegister(zoneCollector{c})
	return c, c.noteFilter()
}

func (c *zonesComponent) backend() string {
	if c.filter == nil {
		return "off"
	}
	return c.filter.Backend()
}

func (c *zonesComponent) apply(ctx context.Context, s *api.Snapshot) (dataplane.Changes, error) {
	if c.filter == nil {
		return dataplane.Changes{}, c.cleanOthers(ctx)
	}
	now := time.Now()
	result, err := c.compiler.Compile(s.Policy, c.stateOf(s), zones.Options{Self: s.Node, Links: links(), Now: now})
	if err != nil {
		return dataplane.Changes{}, fmt.Errorf("compile the policy: %w", err)
	}
	if next := result.Next; !next.IsZero() && next != c.next {
		c.next = next
		time.AfterFunc(max(next.Sub(now), minPokeDelay), c.agent.poke)
	}
	changes, err := c.filter.Set(ctx, c.agent.dns.letAsk(result.Ruleset, s))
	if err != nil {
		return changes, err
	}
	c.ruleset.Store(result.Ruleset)
	c.learner.follow(ctx, result.Ruleset)
	return changes, c.cleanOthers(ctx)
}

// stateOf is what the policy is about, without what was learnt of names.
func (c *zonesComponent) stateOf(s *api.Snapshot) zones.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bind(s)
	return c.state
}

// viewOf is what the snapshot's policy means now, but for what was learnt of
// names.
func (c *zonesComponent) viewOf(s *api.Snapshot) *zones.View {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bind(s)
	if now := time.Now(); c.view == nil || !c.until.IsZero() && !now.Before(c.until) {
		c.view, c.until = zones.Bind(s.Policy, c.state, now), nextExpiry(s.Policy, now)
	}
	return c.view
}

// bind makes the state of the snapshot, once. It wants mu held.
func (c *zonesComponent) bind(s *api.Snapshot) {
	if c.bound != s {
		c.bound, c.state, c.view = s, zones.StateOf(s), nil
	}
	if own := c.agent.ownPeers(); !slices.Equal(own, c.state.Own) {
		c.state.Own, c.view = own, nil
	}
}

// nextExpiry is when the first of the rules that are not expired is; zero: none.
func nextExpiry(p *api.Policy, now time.Time) (next time.Time) {
	if p == nil {
		return next
	}
	look := func(r api.Rule) {
		if t := r.Expires.Time; t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, r := range p.Rules {
		look(r)
	}
	for _, r := range p.Forward {
		look(r.Rule)
	}
	for _, r := range p.Egress {
		look(r.Rule)
	}
	return next
}

// zonesState is what the policy is about.
func (a *Agent) zonesState(s *api.Snapshot) zones.State {
	state := zones.StateOf(s)
	state.Own = a.ownPeers()
	return state
}

// ownPeers are whom the agent itself speaks to outside of the fleet.
func (a *Agent) ownPeers() (all []netip.AddrPort) {
	if a.proxy() != nil {
		return a.dns.upstreams()
	}
	for _, u := range a.config.DNS.Upstreams {
		all = append(all, u.Address)
	}
	return all
}

// links are the node's interfaces with their networks; none when they cannot be
// listed, so that nothing counts as spoofed.
func links() (all []zones.Link) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range interfaces {
		l := zones.Link{Name: i.Name}
		addresses, err := i.Addrs()
		if err != nil || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				l.Prefixes = append(l.Prefixes, p)
			}
		}
		all = append(all, l)
	}
	return withTunnels(all)
}

func (c *zonesComponent) followsStates() bool { return false }

func (c *zonesComponent) detail() string {
	r := c.ruleset.Load()
	switch {
	case c.filter == nil:
		return "mode off: nothing is filtered"
	case r == nil:
		return "no policy: nothing is filtered; " + c.why
	}
	text := fmt.Sprintf("%s: %d input and %d forward rules, %d address sets; %s", c.mode, len(r.Input), len(r.Forward), len(r.Sets), c.why)
	if p := c.policies.waiting(); p != nil {
		text += fmt.Sprintf("; change %d waits to be confirmed until %s", p.ID, p.Deadline.Format(time.TimeOnly))
	}
	return text
}

func (c *zonesComponent) close() error { return nil }

// run hears of drops, ends changes that nobody confirms and keeps what was
// learnt on disk, until ctx ends.
func (c *zonesComponent) run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.hearDrops(ctx)
	}()
	c.policies.run(ctx)
	<-done
	return nil
}

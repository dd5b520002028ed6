// Package dnsproxy answers the cluster's names on a node and forwards the rest.
//
// Compile turns a Snapshot into a Table: every name with its answer as bytes on
// the wire. A Proxy answers from the table that was Set last, over UDP and TCP,
// and asks upstreams for names outside the cluster's domains, with a cache. A
// name inside them never leaves the node, whether it exists or not.
//
// It writes no resolv.conf and adds no address to any interface. The agent
// calls it.
package dnsproxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Proxy is a DNS server and forwarder.
type Proxy struct {
	options            ServerOptions
	log                *slog.Logger
	table              atomic.Pointer[Table]
	cache              *cache
	forward            *forwarder
	flights            *flights
	metrics            *metrics
	limit              *rateLimit // nil: none
	popular            popular
	replyOptions       [4][]byte            // by what a client wants
	tap                *tap                 // nil: none
	answers, questions outboxes             // on their way to clients, and to upstreams
	clock              func() time.Duration // since the start; nobody sets it back
	// isRunning: what is sent to our sockets is read.
	isRunning atomic.Bool

	mu      sync.Mutex // guards what follows
	sockets []*udpSocket
	doors   []door
}

// New makes a proxy that listens nowhere yet. Until the first Set it answers
// SERVFAIL, since it cannot tell which names exist.
func New(o ServerOptions) (*Proxy, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	p := &Proxy{options: o, log: o.Log, cache: newCache(o.CacheEntries, o.CacheBytes)}
	started := time.Now()
	p.clock = func() time.Duration { return time.Since(started) }
	p.limit = newRateLimit(o.ResponseRate)
	p.replyOptions = optionsFor(o.NSID)
	if o.Dnstap != "" {
		p.tap = newTap(o.Dnstap, o.NSID, o.Log)
	}
	whole := attempts * o.UpstreamTimeout
	p.forward = &forwarder{
		listen: o.Listen, attempt: o.UpstreamTimeout, linger: whole, roots: o.RootCAs, clock: p.now, guard: p.guard, answers: &p.answers, questions: &p.questions, log: o.Log,
	}
	p.flights = &flights{
		cache: p.cache, forward: p.forward, clock: p.now, limit: whole, staleIn: o.StaleAfter, staleFor: o.StaleFor,
		most: o.MaxForwards, perOne: o.MaxClientForwards, guard: p.guard, learner: o.Learner, flying: map[string]*flight{}, clients: map[netip.Addr]int{},
	}
	forwarding, err := o.forwarding()
	if err != nil {
		return nil, err
	}
	if err := p.SetForwarding(forwarding); err != nil {
		return nil, err
	}
	if p.metrics, err = newMetrics(o.Registerer, p); err != nil {
		return nil, fmt.Errorf("register the DNS proxy's metrics: %w", err)
	}
	return p, nil
}

// now is the time since the proxy's start, in nanoseconds.
func (p *Proxy) now() int64 { return int64(p.clock()) }

// Set makes the proxy answer from the table from now on. It never blocks a
// query: those under way end with the table that they began with.
func (p *Proxy) Set(t *Table) { p.table.Store(t) }

// Table that was Set last; nil before.
func (p *Proxy) Table() *Table { return p.table.Load() }

// SetForwarding changes who is asked for what, and who may ask. Queries under way
// end as they began. Upstreams that stay keep what has been learnt of them, and
// the cache forgets the zones (other than ".") whose upstreams have changed. When
// the forwarding cannot be, nothing changes and the error names what is wrong: an
// upstream that is one of our own addresses, too.
func (p *Proxy) SetForwarding(f Forwarding) error {
	changed, err := p.forward.set(f)
	if err != nil {
		return err
	}
	for _, zone := range changed {
		if zone != "\x00" {
			p.cache.flush(zone)
		}
	}
	if p.isRunning.Load() {
		p.forward.probeAll()
	}
	return nil
}

// flags of every answer.
func (p *Proxy) flags() uint16 { return p.forward.routes.Load().flags }

// guard is deferred by what serves more than one client: whatever breaks there
// costs one of them an answer, and no more.
func (p *Proxy) guard(what string) {
	if cause := recover(); cause != nil {
		p.notePanic(cause, "while", what)
	}
}

// notePanic counts a panic. Of many it logs the first, the second, the fourth and
// so on: they may come by thousands.
func (p *Proxy) notePanic(cause any, fact string, value any) {
	if n := p.metrics.panics.Add(1); n&(n-1) == 0 {
		p.log.Error("query broke the server", "cause", cause, fact, value, "so_far", n, "stack", string(debug.Stack()))
	}
}

// Run serves until ctx ends, then closes every socket, gives up what waits for
// an upstream and returns nil. It calls Listen if nobody has. A proxy runs once.
func (p *Proxy) Run(ctx context.Context) error {
	if err := p.Listen(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	p.mu.Lock()
	sockets, doors := p.sockets, p.doors
	p.mu.Unlock()
	for _, s := range sockets {
		g.Go(s.run)
	}
	for _, d := range doors {
		g.Go(func() error { return newTCPServer(p, d.proto).run(ctx, d) })
	}
	if p.tap != nil {
		g.Go(func() error { return p.tap.run(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		p.closeSockets()
		p.flights.close() // connections wait for their flights
		p.forward.close()
		return nil
	})
	g.Go(func() error { p.watch(ctx); return nil })
	p.log.Info("dns proxy listens", "addresses", p.Addrs(), "upstreams", len(p.forward.routes.Load().upstreams))
	return g.Wait()
}

// watch looks for loops: once we can be asked, and again where there was one.
func (p *Proxy) watch(ctx context.Context) {
	p.isRunning.Store(true)
	defer p.isRunning.Store(false)
	p.forward.probeAll()
	every := time.NewTicker(probeEvery / 3)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			p.forward.reprobe(p.now())
		}
	}
}

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
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// ServerOptions of a Proxy.
type ServerOptions struct {
	// Listen is where the proxy is asked, over UDP and TCP. The addresses need
	// not be on an interface yet. Port 0 picks one (for tests).
	Listen []netip.AddrPort
	// Upstreams answer the names outside the cluster, the first one first.
	// Without any, such names are refused.
	Upstreams []netip.AddrPort
	// UpstreamTimeout is how long one upstream may take before the next is asked
	// as well; 1 s when zero. The whole takes at most four times that.
	UpstreamTimeout time.Duration
	// CacheEntries and CacheBytes bound the cache; 10,000 and 16 MiB when zero.
	CacheEntries, CacheBytes int
	// MaxConns bounds the TCP connections of each Listen address,
	// MaxClientConns those of one client to it; 1,000 and 100 when zero.
	MaxConns, MaxClientConns int
	// Registerer takes the metrics; nil: none are registered.
	Registerer prometheus.Registerer
	// Log; nil: nothing is logged.
	Log *slog.Logger
}

func (o ServerOptions) withDefaults() ServerOptions {
	set := func(value *int, standard int) {
		if *value == 0 {
			*value = standard
		}
	}
	set(&o.CacheEntries, 10_000)
	set(&o.CacheBytes, 16<<20)
	set(&o.MaxConns, 1_000)
	set(&o.MaxClientConns, 100)
	if o.UpstreamTimeout == 0 {
		o.UpstreamTimeout = defaultAttempt
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return o
}

// Validate names the option that cannot be, and its value.
func (o ServerOptions) Validate() error {
	if len(o.Listen) == 0 {
		return errors.New("listen: is empty: give at least one address")
	}
	for _, l := range o.Listen {
		// At 0.0.0.0 answers would leave from the route's address, which need
		// not be the one that was asked; resolvers drop those.
		if !l.Addr().IsValid() || l.Addr().IsUnspecified() {
			return fmt.Errorf("listen: %s is not the address of a host", l)
		}
	}
	for _, u := range o.Upstreams {
		if !u.Addr().IsValid() || u.Addr().IsUnspecified() || u.Port() == 0 {
			return fmt.Errorf("upstreams: %s is not the address of a server", u)
		}
		for _, l := range o.Listen {
			if isSelf(u, l) {
				return fmt.Errorf("upstreams: %s is the proxy's own address: it would ask itself without end", u)
			}
		}
	}
	if o.UpstreamTimeout < 0 || o.CacheEntries < 0 || o.CacheBytes < 0 || o.MaxConns < 0 || o.MaxClientConns < 0 {
		return errors.New("timeouts and bounds must not be negative")
	}
	return nil
}

// isSelf tells whether packets to an upstream reach our own listener.
func isSelf(upstream, listen netip.AddrPort) bool {
	return upstream.Port() == listen.Port() && upstream.Addr().Unmap() == listen.Addr().Unmap()
}

// Proxy is a DNS server and forwarder.
type Proxy struct {
	options ServerOptions
	log     *slog.Logger
	table   atomic.Pointer[Table]
	cache   *cache
	forward *forwarder
	flights *flights
	metrics *metrics
	flags   uint16 // of every answer: RA where we forward
	started time.Time

	mu      sync.Mutex // guards what follows
	sockets []*udpSocket
	doors   []*net.TCPListener
}

// New makes a proxy that listens nowhere yet. Until the first Set it answers
// SERVFAIL, since it cannot tell which names exist.
func New(o ServerOptions) (*Proxy, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	p := &Proxy{options: o, log: o.Log, cache: newCache(o.CacheEntries, o.CacheBytes), started: time.Now()}
	p.forward = &forwarder{attempt: o.UpstreamTimeout, clock: p.now}
	for _, u := range o.Upstreams {
		p.forward.upstreams = append(p.forward.upstreams, &upstream{address: u, name: u.String()})
	}
	if len(o.Upstreams) > 0 {
		p.flags = flagRA
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.flights = &flights{
		cache: p.cache, resolve: p.forward.resolve, clock: p.now, limit: attempts * o.UpstreamTimeout,
		ctx: ctx, cancel: cancel, flying: map[string][]*waiter{},
	}
	var err error
	if p.metrics, err = newMetrics(o.Registerer, p); err != nil {
		cancel()
		return nil, fmt.Errorf("register the DNS proxy's metrics: %w", err)
	}
	return p, nil
}

// now is the time since the proxy's start, on a clock that nobody sets back.
func (p *Proxy) now() int64 { return int64(time.Since(p.started)) }

// Set makes the proxy answer from the table from now on. It never blocks a
// query: those under way end with the table that they began with.
func (p *Proxy) Set(t *Table) { p.table.Store(t) }

// Table that was Set last; nil before.
func (p *Proxy) Table() *Table { return p.table.Load() }

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
		g.Go(func() error { return newTCPServer(p).run(ctx, d) })
	}
	g.Go(func() error {
		<-ctx.Done()
		p.closeSockets()
		p.flights.close() // connections wait for their flights
		return nil
	})
	p.log.Info("dns proxy listens", "addresses", p.Addrs(), "upstreams", p.options.Upstreams)
	return g.Wait()
}

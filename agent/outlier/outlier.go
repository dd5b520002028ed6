// Package outlier takes backends out for a while when the connections that
// clients make to them fail: passive health checking. It sees nothing but
// counters and the clock, both handed in, and decides nothing but who is
// ejected; the agent reads the counters and asks for the states.
package outlier

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
)

// Options of a Detector.
type Options struct {
	Log        *slog.Logger          // nil: no log
	Registerer prometheus.Registerer // nil: no metrics
}

// Service names a service.
type Service struct {
	Key      string // api.Service.Key
	Protocol api.Protocol
}

// Counter is what is known of one backend.
type Counter struct {
	Backend netip.AddrPort
	// Connections made to it and Failures among them, since any time in the
	// past. When one of them goes backwards, both have begun anew.
	Connections, Failures uint64
	// Up tells whether the backend would get connections were it not ejected.
	Up bool
}

// Detector ejects backends.
type Detector struct {
	log     *slog.Logger
	metrics *metrics

	mu       sync.Mutex // guards what follows
	services map[Service]*watched
	ejected  int // backends of all services
}

// watched is a service under observation.
type watched struct {
	backends map[netip.AddrPort]*backend
	ejected  int // of them
	round    uint64
}

// New makes a Detector that has ejected nobody.
func New(o Options) *Detector {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Detector{log: o.Log.With("component", "outlier"), metrics: newMetrics(o.Registerer), services: map[Service]*watched{}}
}

// Set makes these the services under observation: of others everything is
// forgotten, their ejections included. It takes no new ones up; Observe does.
func (d *Detector) Set(services []Service) {
	wanted := make(map[Service]bool, len(services))
	for _, s := range services {
		wanted[s] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for s, w := range d.services {
		if !wanted[s] {
			d.count(-w.ejected)
			delete(d.services, s)
		}
	}
}

// Observe takes the counters of all backends of one service in, in whatever
// state they are, and tells whether the State of one has changed. Call it at an
// even pace, such as twice a second: what happens between two calls is one
// interval, and the connections of an interval have no order.
func (d *Detector) Observe(now time.Time, s Service, options api.Outlier, counters []Counter) (changed bool) {
	options = options.WithDefaults()
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.services[s]
	if w == nil {
		w = &watched{backends: map[netip.AddrPort]*backend{}}
		d.services[s] = w
	}
	before := w.ejected
	w.round++
	for _, c := range counters {
		b := w.backends[c.Backend]
		if b == nil {
			b = &backend{address: c.Backend, connections: c.Connections, failures: c.Failures}
			w.backends[c.Backend] = b
		}
		b.round = w.round
		if b.take(now, options.Ejection.Std(), c) {
			changed = true
			w.readmit(now, b)
			d.log.Info("backend readmitted", "service", s.Key, "protocol", s.Protocol, "backend", b.address)
		}
	}
	for address, b := range w.backends {
		if b.round != w.round {
			delete(w.backends, address)
			if b.ejected {
				w.ejected--
			}
		}
	}
	for b := w.worst(options); b != nil; b = w.worst(options) {
		changed = true
		w.eject(now, b, options)
		d.metrics.ejections.Inc()
		d.log.Warn("backend ejected", "service", s.Key, "protocol", s.Protocol, "backend", b.address, "reason", b.reason)
	}
	if b := w.lastHope(); b != nil {
		changed = true
		w.readmit(now, b)
		d.log.Warn("backend readmitted early, since no other is up", "service", s.Key, "protocol", s.Protocol, "backend", b.address)
	}
	d.count(w.ejected - before)
	return changed
}

// count publishes how many backends are ejected; d.mu is held.
func (d *Detector) count(more int) {
	d.ejected += more
	d.metrics.ejected.Set(float64(d.ejected))
}

// State tells whether a backend is ejected, which lets its open connections live
// (api.Draining), and why; all others are
// up. An ejection that is over ends with the next Observe.
func (d *Detector) State(service string, protocol api.Protocol, address netip.AddrPort) (api.BackendState, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.find(service, protocol, address); b != nil && b.ejected {
		return api.Draining, b.reason
	}
	return api.Up, ""
}

// Since tells when a backend was last ejected or readmitted; zero when it never
// was.
func (d *Detector) Since(service string, protocol api.Protocol, address netip.AddrPort) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.find(service, protocol, address); b != nil {
		return b.since
	}
	return time.Time{}
}

func (d *Detector) find(service string, protocol api.Protocol, address netip.AddrPort) *backend {
	if w := d.services[Service{service, protocol}]; w != nil {
		return w.backends[address]
	}
	return nil
}

// Next tells when the next ejection ends; zero when nobody is ejected.
func (d *Detector) Next() (next time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.services {
		if w.ejected == 0 {
			continue
		}
		for _, b := range w.backends {
			if b.ejected && (next.IsZero() || b.until.Before(next)) {
				next = b.until
			}
		}
	}
	return next
}

package dnsproxy

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Budget of hedges, in tenths: each question earns one, and a hedge costs ten, so
// that upstreams see at most a tenth more questions than clients ask.
const (
	hedgeCost  = 10
	hedgeStock = 20 * hedgeCost
)

// forwarder knows the upstreams.
type forwarder struct {
	attempt time.Duration
	linger  time.Duration // for which an upstream that is no longer used may still answer
	roots   *x509.CertPool
	clock   func() int64
	guard   func(what string)
	// answers are held while replies are read, questions while clients' are.
	answers, questions *outboxes
	log                *slog.Logger

	routes atomic.Pointer[routes]
	budget atomic.Int64
	probes probes

	mu     sync.Mutex // one change of routes at a time; guards listen
	listen []netip.AddrPort
}

// set makes a forwarding current, and gives the zones that have changed.
func (f *forwarder) set(next Forwarding) (changed []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.routes.Load()
	r, err := next.compile(f.listen, before, f.open)
	if err != nil {
		return nil, fmt.Errorf("set forwarding: %w", err)
	}
	f.routes.Store(r)
	if before == nil {
		return nil, nil
	}
	for name, zone := range r.zones {
		if before.zones[name] != zone {
			changed = append(changed, name)
		}
	}
	for name := range before.zones {
		if r.zones[name] == nil {
			changed = append(changed, name)
		}
	}
	for _, u := range before.upstreams {
		if !slices.Contains(r.upstreams, u) {
			time.AfterFunc(f.linger, u.ways.close) // questions may be under way
		}
	}
	return changed, nil
}

// setListen tells where the proxy is asked, once the ports are known.
func (f *forwarder) setListen(at []netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listen = at
}

func (f *forwarder) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range f.routes.Load().upstreams {
		u.ways.close()
	}
}

// earn and spend keep the hedges within their budget.
func (f *forwarder) earn() {
	if f.budget.Load() < hedgeStock {
		f.budget.Add(1)
	}
}

func (f *forwarder) spend() bool {
	if f.budget.Load() < hedgeCost {
		return false
	}
	f.budget.Add(-hedgeCost)
	return true
}

// tlsConfig is for one upstream: connections after the first are resumed.
func (f *forwarder) tlsConfig(u Upstream) *tls.Config {
	name := u.ServerName
	if name == "" {
		name = u.Address.Addr().Unmap().WithZone("").String()
	}
	return &tls.Config{ServerName: name, RootCAs: f.roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
}

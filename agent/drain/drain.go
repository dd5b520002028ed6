// Package drain ends drains: a backend that has been draining for as long as its
// service allows is down. It keeps start times, and the clock is handed in; the
// agent tells it who is draining and asks for the states.
package drain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
)

// Backend is one that is draining.
type Backend struct {
	Service  string // api.Service.Key
	Protocol api.Protocol
	Address  netip.AddrPort
	Timeout  time.Duration // api.Service.Drain; 0: none
}

// Start is when a drain began, to be kept over a restart: without it, a
// restart would let the drain begin anew.
type Start struct {
	Service  string         `json:"service"`
	Protocol api.Protocol   `json:"protocol"`
	Backend  netip.AddrPort `json:"backend"`
	Since    time.Time      `json:"since"`
}

// Tracker knows who has been draining since when.
type Tracker struct {
	mu      sync.Mutex // guards what follows
	initial map[key]time.Time
	drains  map[key]*drain
	round   uint64
}

type key struct {
	service  string
	protocol api.Protocol
	address  netip.AddrPort
}

type drain struct {
	since   time.Time
	timeout time.Duration
	over    bool
	round   uint64 // of the last Set that had it
}

// New makes a Tracker. The initial starts, of the agent that ran before, hold
// for the first Set alone.
func New(initial []Start) *Tracker {
	t := &Tracker{initial: map[key]time.Time{}, drains: map[key]*drain{}}
	for _, s := range initial {
		t.initial[key{s.Service, s.Protocol, s.Backend}] = s.Since
	}
	return t
}

// Set makes these the backends that drain, and tells whether Starts or a State
// has changed. One that was not in the last Set begins to drain now.
func (t *Tracker) Set(now time.Time, draining []Backend) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.round++
	for _, b := range draining {
		k := key{b.Service, b.Protocol, b.Address}
		d := t.drains[k]
		if d == nil {
			d = &drain{since: now}
			if since, ok := t.initial[k]; ok && since.Before(now) {
				d.since = since
			}
			t.drains[k], changed = d, true
		}
		over := b.Timeout > 0 && now.Sub(d.since) >= b.Timeout
		changed = changed || over != d.over
		d.timeout, d.over, d.round = b.Timeout, over, t.round
	}
	for k, d := range t.drains {
		if d.round != t.round {
			delete(t.drains, k)
			changed = true
		}
	}
	t.initial = nil
	return changed
}

// State tells whether a backend's drain is over (api.Down), and why; all others
// are up. It is as of the last Set.
func (t *Tracker) State(service string, protocol api.Protocol, address netip.AddrPort) (api.BackendState, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.drains[key{service, protocol, address}]; d != nil && d.over {
		return api.Down, fmt.Sprintf("drained: the %s of its service are over", d.timeout)
	}
	return api.Up, ""
}

// Next tells when the next drain is over; zero when none ends.
func (t *Tracker) Next() (next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.drains {
		if d.timeout <= 0 || d.over {
			continue
		}
		if end := d.since.Add(d.timeout); next.IsZero() || end.Before(next) {
			next = end
		}
	}
	return next
}

// Starts of all drains, sorted.
func (t *Tracker) Starts() []Start {
	t.mu.Lock()
	var all []Start
	for k, d := range t.drains {
		all = append(all, Start{k.service, k.protocol, k.address, d.since.Round(0)}) // a file keeps no monotonic clock
	}
	t.mu.Unlock()
	slices.SortFunc(all, func(a, b Start) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Protocol, b.Protocol), a.Backend.Compare(b.Backend))
	})
	return all
}

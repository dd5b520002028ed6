package dnsproxy

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what waits for upstreams.
const (
	defaultForwards       = 4096 // different questions at once
	defaultClientForwards = 1024 // questions of one client
	maxWaiters            = 1024 // that wait for one of them
)

// waiter is a client's question that an upstream must answer.
type waiter struct {
	query  query
	client netip.Addr // not valid for the proxy itself, which has no bound
	// done gets the answer, or nil when there is none. It may be nil itself: for
	// what is fetched ahead.
	done func(w *waiter, c *cached)
}

// flights are the questions that are being asked of upstreams: each only once,
// however many clients wait for it. That saves packets, and denies forgers the
// many equal questions that a birthday attack needs (RFC 5452, 5).
type flights struct {
	cache    *cache
	forward  *forwarder
	clock    func() int64
	limit    time.Duration // of one flight
	staleIn  time.Duration // after which a client gets an old answer
	staleFor time.Duration
	most     int // different questions at once
	perOne   int // of one client
	guard    func(what string)
	learner  Learner        // or nil
	wg       sync.WaitGroup // of flights

	overload, coalesced atomic.Uint64

	mu      sync.Mutex // guards what follows
	flying  map[string]*flight
	clients map[netip.Addr]int
	closed  bool
}

// submit lets w wait for its answer from the zone's upstreams. Its query must be
// detached. Beyond the bounds w gets none at once, so that a storm cannot pile
// up.
func (f *flights) submit(w *waiter, zone *route) {
	key := string(w.query.key())
	f.mu.Lock()
	flies := f.flying[key]
	full := flies == nil && len(f.flying) >= f.most || flies != nil && len(flies.waiting) >= maxWaiters
	if f.closed || full || w.client.IsValid() && f.clients[w.client] >= f.perOne {
		f.mu.Unlock()
		f.overload.Add(1)
		f.tell(w, nil)
		return
	}
	if flies != nil && flies.stale != nil {
		stale := flies.stale
		f.mu.Unlock()
		f.tell(w, stale)
		return
	}
	if flies != nil {
		f.enter(flies, w)
		f.mu.Unlock()
		f.coalesced.Add(1)
		return
	}
	flies = f.newFlight(key, w, zone)
	f.flying[key] = flies
	f.enter(flies, w)
	f.wg.Add(1)
	f.mu.Unlock()
	flies.start()
}

// enter wants mu held.
func (f *flights) enter(to *flight, w *waiter) {
	to.waiting = append(to.waiting, w)
	if w.client.IsValid() {
		f.clients[w.client]++
	}
}

// empty takes the waiters out of a flight. It wants mu held.
func (f *flights) empty(from *flight) []*waiter {
	waiting := from.waiting
	from.waiting = nil
	for _, w := range waiting {
		if !w.client.IsValid() {
			continue
		}
		if f.clients[w.client]--; f.clients[w.client] == 0 {
			delete(f.clients, w.client)
		}
	}
	return waiting
}

// land ends a flight with its answer.
func (f *flights) land(flight *flight, answer *cached) {
	if lesson := f.lesson(flight, answer); lesson != nil {
		f.after(lesson, func() { f.deliver(flight, answer) })
		return
	}
	f.deliver(flight, answer)
}

// deliver keeps the answer and gives it to those who wait.
func (f *flights) deliver(flight *flight, answer *cached) {
	if answer.expires > f.clock() && f.forward.routes.Load().match(flight.q.name) == flight.zone {
		f.cache.keep(&flight.query, answer)
	} else {
		f.cache.settle(flight.query.key())
	}
	f.mu.Lock()
	delete(f.flying, flight.key)
	waiting := f.empty(flight)
	f.mu.Unlock()
	for _, w := range waiting {
		f.tell(w, answer)
	}
	f.wg.Done()
}

// serveStale answers those who wait, and those who come while the flight goes
// on, with an old answer.
func (f *flights) serveStale(flight *flight, answer *cached) {
	f.after(f.lesson(flight, answer), func() { f.deliverStale(flight, answer) })
}

func (f *flights) deliverStale(flight *flight, answer *cached) {
	f.cache.stale.Add(1)
	f.mu.Lock()
	flight.stale = answer
	waiting := f.empty(flight)
	f.mu.Unlock()
	for _, w := range waiting {
		f.tell(w, answer)
	}
}

// tell gives a waiter its answer. Whatever breaks then breaks for it alone.
func (f *flights) tell(w *waiter, answer *cached) {
	if w.done == nil {
		return
	}
	defer f.guard("answering a client that waited")
	w.done(w, answer)
}

// waiting is how many questions fly.
func (f *flights) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.flying)
}

// close ends every flight and waits for it.
func (f *flights) close() {
	f.mu.Lock()
	f.closed = true
	var all []*flight
	for _, flight := range f.flying {
		all = append(all, flight)
	}
	f.mu.Unlock()
	for _, flight := range all {
		flight.giveUp()
	}
	f.wg.Wait()
}

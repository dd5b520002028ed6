package dnsproxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what waits for upstreams.
const (
	maxFlights = 1024 // different questions at once
	maxWaiters = 256  // clients that wait for one of them
)

// waiter is a client's question that an upstream must answer.
type waiter struct {
	query query
	// done gets the answer, or nil when there is none.
	done func(w *waiter, c *cached)
}

// flights are the questions that are being asked of upstreams: each only once,
// however many clients wait for it. That saves packets, and denies forgers the
// many equal questions that a birthday attack needs (RFC 5452, 5).
type flights struct {
	cache   *cache
	resolve func(ctx context.Context, q question) (*cached, error)
	clock   func() int64
	limit   time.Duration // of one flight

	ctx    context.Context // ends with the proxy
	cancel context.CancelFunc
	wg     sync.WaitGroup

	overload atomic.Uint64 // questions turned away

	mu     sync.Mutex // guards flying, closed
	flying map[string][]*waiter
	closed bool
}

// submit lets w wait for its answer. Its query must be detached. Beyond the
// bounds w gets none at once, so that a storm cannot pile up.
func (f *flights) submit(w *waiter) {
	key := string(w.query.key())
	f.mu.Lock()
	waiting, flies := f.flying[key]
	if f.closed || len(waiting) >= maxWaiters || !flies && len(f.flying) >= maxFlights {
		f.mu.Unlock()
		f.overload.Add(1)
		w.done(w, nil)
		return
	}
	f.flying[key] = append(waiting, w)
	if !flies {
		f.wg.Add(1)
		go f.fly(key, w)
	}
	f.mu.Unlock()
}

func (f *flights) fly(key string, w *waiter) {
	defer f.wg.Done()
	q := &w.query
	old := f.cache.get([]byte(key))
	limit := f.limit
	if old != nil && old.staleUntil > f.clock() {
		limit = limit * 45 / 100 // the client still gets the stale answer in time (RFC 8767, 5: 1.8 s)
	}
	ctx, cancel := context.WithTimeout(f.ctx, limit)
	defer cancel()
	answer, err := f.resolve(ctx, question{
		name: q.name[:q.nameLen:q.nameLen], qtype: q.qtype, do: q.do, cd: q.flags&flagCD != 0, ad: q.flags&flagAD != 0,
	})
	now := f.clock()
	switch {
	case err == nil:
	case old != nil && old.staleUntil > now:
		answer = old.asStale(now)
		f.cache.stale.Add(1)
	default:
		answer = failure(now)
	}
	if answer.expires > now {
		f.cache.put([]byte(key), answer)
	}
	f.mu.Lock()
	waiting := f.flying[key]
	delete(f.flying, key)
	f.mu.Unlock()
	for _, w := range waiting {
		w.done(w, answer)
	}
}

// close ends every flight and waits for it.
func (f *flights) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.wg.Wait()
}

package dnsproxy

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How upstreams are judged.
const (
	// failureCost is how much slower a server with one failure counts as, and
	// failureHalf how soon half of that is forgotten: no server is avoided
	// for what it did an hour ago.
	failureCost = 500 * time.Millisecond
	failureHalf = 10 * time.Second
	maxFailures = 8
	// roundTripHalf is how soon a server that is not asked counts as twice as
	// quick, so that it is tried again some time.
	roundTripHalf = time.Minute
	// firstHedge is how long a server may take of which nothing is known yet,
	// and minHedge the least that any may.
	firstHedge = 20 * time.Millisecond
	minHedge   = 2 * time.Millisecond
	// downAfter failures in a row, with none answered between, a server is down.
	downAfter = 3
)

// upstream is a server that questions are forwarded to, with what has been
// learnt of it.
type upstream struct {
	config  Upstream
	name    string
	ways    ways
	dresser dresser
	loop    loopState

	queries, failed, hedged, forged, unsent atomic.Uint64

	mu           sync.Mutex // guards what follows
	roundTrip    float64    // smoothed, in nanoseconds; 0 while unknown
	samples      [64]uint32 // the last round trips, in microseconds
	taken        int
	late         time.Duration // 95 of 100 answers take less
	failures     float64       // as of failuresAt, decaying
	failuresAt   int64
	inRow        int // failures since the last answer
	asked, heard int64
}

// answered notes a reply that took so long, and whether it was a good one.
func (u *upstream) answered(took time.Duration, good bool, now int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.heard, u.inRow = now, 0
	u.decay(now)
	if good {
		u.failures /= 4
	}
	u.sample(took)
}

// sample wants mu held.
func (u *upstream) sample(took time.Duration) {
	if u.roundTrip == 0 {
		u.roundTrip = float64(took)
	}
	u.roundTrip += (float64(took) - u.roundTrip) / 8
	u.samples[u.taken%len(u.samples)] = uint32(min(took.Microseconds(), math.MaxUint32))
	u.taken++
	if u.taken < 16 || u.taken%16 == 0 {
		sorted := u.samples
		known := sorted[:min(u.taken, len(sorted))]
		slices.Sort(known)
		u.late = time.Duration(known[len(known)*95/100]) * time.Microsecond
	}
}

// blame notes a failure of a weight: 1 for silence, less for what need not be
// the server's own.
func (u *upstream) blame(weight float64, now int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.decay(now)
	u.failures = min(u.failures+weight, maxFailures)
	if weight >= 1 {
		u.inRow++
		u.failed.Add(1)
	}
}

// decay wants mu held.
func (u *upstream) decay(now int64) {
	u.failures *= math.Exp2(-float64(now-u.failuresAt) / float64(failureHalf))
	u.failuresAt = now
}

// cost is what asking it now is expected to take, in nanoseconds.
func (u *upstream) cost(now int64) float64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.decay(now)
	idle := float64(now-u.asked) / float64(roundTripHalf)
	return u.roundTrip*math.Exp2(-idle) + u.failures*float64(failureCost)
}

// hedge is how long to wait for it before the next one is asked as well.
func (u *upstream) hedge(longest time.Duration) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.taken == 0 {
		return min(firstHedge, longest)
	}
	// A little more than that, or a server of even temper is late half the time.
	return min(max(u.late+u.late/8, minHedge), longest)
}

func (u *upstream) noteAsked(now int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked = now
}

// silentSince tells whether nothing has come from it since a time.
func (u *upstream) silentSince(when int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.heard <= when
}

func (u *upstream) isDown() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.inRow >= downAfter
}

// order is whom to ask: the cheapest first, those that are not known yet before
// all others, those that lead back to us never, and as many again as there are
// attempts, since a packet may just be lost. It is appended to order.
func (r *route) order(now int64, order []*upstream) []*upstream {
	type priced struct {
		up   *upstream
		cost float64
	}
	var room [attempts]priced
	all := room[:0]
	for _, u := range r.upstreams {
		if !u.loop.found(now) {
			all = append(all, priced{u, u.cost(now)})
		}
	}
	slices.SortStableFunc(all, func(a, b priced) int {
		switch {
		case a.cost < b.cost:
			return -1
		case a.cost > b.cost:
			return 1
		}
		return 0
	})
	for len(all) > 0 && len(order) < attempts {
		for _, p := range all {
			order = append(order, p.up)
		}
	}
	return order
}

// isDown tells whether no upstream of the zone serves.
func (r *route) isDown() bool {
	return !slices.ContainsFunc(r.upstreams, func(u *upstream) bool { return !u.isDown() })
}

// UpstreamStatus is what has been learnt of an upstream, for people.
type UpstreamStatus struct {
	Upstream string `json:"upstream"`
	// Zones that it is asked for.
	Zones []string `json:"zones"`
	// RoundTrip is smoothed; Late is what 95 of 100 answers take less than, and
	// how long a question waits before another upstream is asked too.
	RoundTrip time.Duration `json:"round_trip"`
	Late      time.Duration `json:"late"`
	// Queries sent to it, those among them sent because another was late, and
	// those that it did not answer in time.
	Queries uint64 `json:"queries"`
	Hedges  uint64 `json:"hedges"`
	Failed  uint64 `json:"failed"`
	// Forged replies: to questions that were not asked.
	Forged uint64 `json:"forged"`
	Down   bool   `json:"down"`
	Looped bool   `json:"looped"` // it leads back to this proxy
	// What it can: "unknown", "yes" or "no".
	EDNS    string `json:"edns"`
	Cookies string `json:"cookies"`
	OddCase string `json:"odd_case"`
}

// Upstreams tells what is known of the servers that questions are forwarded to.
func (p *Proxy) Upstreams() []UpstreamStatus {
	r, now := p.forward.routes.Load(), p.now()
	all := make([]UpstreamStatus, 0, len(r.upstreams))
	for _, u := range r.upstreams {
		s := UpstreamStatus{
			Upstream: u.name, Queries: u.queries.Load(), Hedges: u.hedged.Load(), Failed: u.failed.Load(), Forged: u.forged.Load(),
			Down: u.isDown(), Looped: u.loop.found(now),
		}
		u.mu.Lock()
		s.RoundTrip, s.Late = time.Duration(u.roundTrip), u.late
		u.mu.Unlock()
		s.EDNS, s.Cookies, s.OddCase = u.dresser.describe(now)
		for _, z := range r.zones {
			if slices.Contains(z.upstreams, u) {
				s.Zones = append(s.Zones, z.name)
			}
		}
		slices.Sort(s.Zones)
		all = append(all, s)
	}
	return all
}

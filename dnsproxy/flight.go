package dnsproxy

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Times of forwarding.
const (
	// defaultAttempt is how long one upstream may take before it counts as
	// silent, and the next is asked in any case.
	defaultAttempt = time.Second
	// attempts bounds the whole, in attempts' lengths: a client's own timeout
	// is 5 s (resolv.conf).
	attempts = 4
	// defaultStaleIn is how long a client waits while there is an old answer
	// (RFC 8767, 5); defaultStaleFor is how old that may be.
	defaultStaleIn  = 1800 * time.Millisecond
	defaultStaleFor = 24 * time.Hour
	// saysWeight is how bad it is of a server to answer SERVFAIL or the like:
	// that may well be about the name. lateWeight is for one that is late and
	// from which nothing else has come meanwhile.
	saysWeight = 0.25
	lateWeight = 0.1
)

// flight is one question under way. No goroutine waits for it: replies and its
// timer move it on.
type flight struct {
	table *flights
	key   string
	query query // without the packet
	q     question
	zone  *route

	waiting []*waiter // guarded by table.mu
	stale   *cached   // guarded by table.mu: what those who come now get

	mu     sync.Mutex  // guards what follows
	old    *cached     // an answer past its end that may serve; or nil
	order  []*upstream // who is still to be asked
	tries  []*try
	began  int64
	next   int64 // when another upstream is asked
	given  bool  // the old answer has been given to those who waited
	landed bool
	timer  *time.Timer
	result *cached // set by finish, taken by unlock
	serve  *cached // likewise, by giveOld
	last   error

	// Room for what nearly every flight has, so that it is one piece of memory.
	first struct {
		try     try
		tries   [1]*try
		waiting [1]*waiter
		order   [attempts]*upstream
	}
}

// try is one upstream's turn in a flight.
type try struct {
	flight *flight
	up     *upstream
	call   call
	sent   int64
	over   bool // answered, failed or given up
	blamed bool
}

// newFlight makes a flight for w's question.
func (f *flights) newFlight(key string, w *waiter, zone *route) *flight {
	l := &flight{table: f, key: key, query: w.query, zone: zone}
	l.query.raw = nil // the first waiter's
	l.q = question{
		// Behind the name the array holds the rest of keys, which changes.
		name: l.query.name[:l.query.nameLen:l.query.nameLen], qtype: l.query.qtype,
		do: l.query.do, cd: l.query.flags&flagCD != 0, ad: l.query.flags&flagAD != 0,
	}
	l.waiting, l.tries = l.first.waiting[:0], l.first.tries[:0]
	return l
}

func (l *flight) start() {
	f := l.table
	old := f.cache.old(&l.query)
	l.mu.Lock()
	defer l.unlock()
	if l.landed {
		return // the proxy has just been closed
	}
	l.began = f.clock()
	if old.serves(l.began, f.staleFor) {
		l.old = old.asStale(l.began)
	}
	l.order = l.zone.order(l.began, l.first.order[:0])
	f.forward.earn()
	if l.old != nil && l.zone.isDown() {
		l.giveOld() // there is nobody to wait for
	}
	l.askNext(l.began)
}

// unlock releases mu, and then lands or serves what came of the step.
func (l *flight) unlock() {
	result, serve := l.result, l.serve
	l.result, l.serve = nil, nil
	l.mu.Unlock()
	if serve != nil {
		l.table.serveStale(l, serve)
	}
	if result != nil {
		l.table.land(l, result)
	}
}

// giveOld wants mu held, like all that follow but for tick, reply and giveUp.
func (l *flight) giveOld() {
	l.serve, l.given = l.old, true
}

// finish ends the flight: with an answer, or with what there is when none came.
// The tries that are still out go on for a while, to learn how slow they are.
func (l *flight) finish(answer *cached, now int64) {
	if l.landed {
		return
	}
	l.landed = true
	switch {
	case answer != nil:
	case l.old != nil:
		answer = l.old.asStale(now)
		if !l.given {
			l.table.cache.stale.Add(1)
		}
	default:
		answer = failure(now)
	}
	l.result = answer
	switch {
	case l.timer == nil: // not started
	case l.pending() > 0:
		l.timer.Reset(l.table.forward.attempt)
	default:
		l.timer.Stop()
	}
}

func (l *flight) pending() int {
	n := 0
	for _, t := range l.tries {
		if !t.over {
			n++
		}
	}
	return n
}

// askNext asks the next upstream that is not being asked already, or finishes
// when nobody is left.
func (l *flight) askNext(now int64) {
	for !l.landed {
		i := l.idle(now)
		if i < 0 {
			break
		}
		u := l.order[i]
		l.order = slices.Delete(l.order, i, i+1)
		t := l.newTry(u, now)
		u.noteAsked(now)
		if err := t.call.start(); err != nil {
			l.drop(u, fmt.Errorf("ask %s: %w", u.name, err))
			u.blame(1, now)
			continue
		}
		l.tries = append(l.tries, t)
		l.next = now + int64(l.table.forward.attempt)
		if l.idle(now) >= 0 {
			l.next = now + int64(u.hedge(l.table.forward.attempt))
		}
		l.rearm(now)
		return
	}
	if l.pending() == 0 && len(l.order) == 0 {
		l.finish(nil, now)
	} else if !l.landed {
		l.next = now + int64(l.table.forward.attempt)
		l.rearm(now)
	}
}

func (l *flight) newTry(u *upstream, now int64) *try {
	t := &l.first.try
	if t.up != nil {
		t = new(try)
	}
	t.flight, t.up, t.sent = l, u, now
	t.call = call{up: u, q: &l.q, clock: l.table.clock, try: t, done: replied}
	return t
}

func replied(c *call, r *response, err error) { c.try.flight.reply(c.try, r, err) }

// idle gives the place of the next upstream that is not being asked; -1: none.
// One that has been silent for an attempt's length may be asked again, since
// the packet may be lost.
func (l *flight) idle(now int64) int {
	return slices.IndexFunc(l.order, func(u *upstream) bool {
		return !slices.ContainsFunc(l.tries, func(t *try) bool {
			return t.up == u && !t.over && now-t.sent < int64(l.table.forward.attempt)
		})
	})
}

// drop asks u no more: it has said what it has to say.
func (l *flight) drop(u *upstream, err error) {
	l.last = err
	l.order = slices.DeleteFunc(l.order, func(other *upstream) bool { return other == u })
}

// reply takes an upstream's reply, which is valid until it returns, or an error.
func (l *flight) reply(t *try, r *response, err error) {
	l.mu.Lock()
	defer l.unlock()
	now := l.table.clock()
	if t.over {
		return
	}
	t.over = true
	if err == nil {
		good := r.rcode == dns.RcodeSuccess || r.rcode == dns.RcodeNameError
		t.up.answered(time.Duration(now-t.sent), good, now)
		if !good {
			err = refusal(t.up, r.rcode)
			t.up.blame(saysWeight, now)
		}
	} else {
		t.up.blame(1, now)
	}
	if l.landed {
		if l.pending() == 0 {
			l.timer.Stop()
		}
		return
	}
	var answer *cached
	if err == nil {
		answer, err = newCached(&l.q, r, t.up.name, now)
	}
	if err != nil {
		l.drop(t.up, err)
		l.askNext(now)
		return
	}
	l.finish(answer, now)
}

// giveUp ends the flight without an answer.
func (l *flight) giveUp() {
	l.mu.Lock()
	defer l.unlock()
	for _, t := range l.tries {
		t.end()
	}
	l.finish(nil, l.table.clock())
}

package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Times of forwarding.
const (
	// defaultAttempt is how long one upstream may take before the next is
	// asked as well.
	defaultAttempt = time.Second
	// attempts bounds the whole, in attempts' lengths: a client's own timeout
	// is 5 s (resolv.conf).
	attempts = 4
	// avoidFor is how long an upstream that did not answer is asked last.
	avoidFor = 10 * time.Second
)

// upstream is one server that questions are forwarded to.
type upstream struct {
	address netip.AddrPort
	name    string
	// avoidUntil, in nanoseconds since the proxy's start.
	avoidUntil atomic.Int64
	failures   atomic.Uint64
}

// forwarder asks upstreams.
type forwarder struct {
	upstreams []*upstream
	attempt   time.Duration
	clock     func() int64
}

// result of asking one upstream.
type result struct {
	from *upstream
	msg  *dns.Msg
	err  error
}

var errAllFailed = errors.New("no upstream gave an answer")

// resolve asks the upstreams in turn: the next when one is late or gives no
// good answer. The late one may still win, and a good answer beats an earlier
// SERVFAIL or REFUSED. It gives up when ctx ends.
func (f *forwarder) resolve(ctx context.Context, q question) (*cached, error) {
	ctx, cancel := context.WithCancel(ctx)
	order := f.order()
	results := make(chan result, len(order))
	pending := 0
	defer func() {
		cancel()
		for ; pending > 0; pending-- { // they end at once: their ctx has
			<-results
		}
	}()
	failed := map[*upstream]bool{}
	var asked []*upstream
	next := func() bool {
		for len(order) > 0 {
			u := order[0]
			if order = order[1:]; failed[u] {
				continue
			}
			pending++
			asked = append(asked, u)
			go func() {
				m, err := exchange(ctx, u.address, q)
				results <- result{u, m, err}
			}()
			return true
		}
		return false
	}
	next()
	timer := time.NewTicker(f.attempt)
	defer timer.Stop()
	var last error
	for {
		select {
		case r := <-results:
			pending--
			c, err := f.judge(r)
			if err == nil {
				return c, nil
			}
			last = err
			failed[r.from] = true
			f.blame(r.from)
			if !next() && pending == 0 {
				return nil, fmt.Errorf("%w: %w", errAllFailed, last)
			}
		case <-timer.C:
			f.blame(asked[len(asked)-1])
			next()
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", errAllFailed, errors.Join(last, ctx.Err()))
		}
	}
}

// judge turns a reply into an answer to keep, or an error.
func (f *forwarder) judge(r result) (*cached, error) {
	if r.err != nil {
		return nil, fmt.Errorf("ask %s: %w", r.from.name, r.err)
	}
	if r.msg.Rcode != dns.RcodeSuccess && r.msg.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("ask %s: it says %s", r.from.name, dns.RcodeToString[r.msg.Rcode])
	}
	c, ok := newCached(r.msg, r.from.name, f.clock())
	if !ok {
		return nil, fmt.Errorf("ask %s: its answer does not fit a message", r.from.name)
	}
	r.from.avoidUntil.Store(0)
	return c, nil
}

func (f *forwarder) blame(u *upstream) {
	u.failures.Add(1)
	u.avoidUntil.Store(f.clock() + int64(avoidFor))
}

// order is whom to ask: the upstreams as configured, those that lately failed
// last, and all once more, since a packet may just have been lost.
func (f *forwarder) order() []*upstream {
	now := f.clock()
	var good, avoided []*upstream
	for _, u := range f.upstreams {
		if u.avoidUntil.Load() > now {
			avoided = append(avoided, u)
		} else {
			good = append(good, u)
		}
	}
	all := append(good, avoided...)
	for n := len(all); len(all) < attempts; {
		all = append(all, all[len(all)-n])
	}
	return all
}

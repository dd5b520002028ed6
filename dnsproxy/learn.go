package dnsproxy

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Learner is told which addresses names outside the cluster have, before any
// client is: a packet filter, for one, that lets clients reach what they asked
// for. Its methods are called by several goroutines.
type Learner interface {
	// Wants tells whether it learns the addresses of a name, which is in lower
	// case without the last dot. It must be quick.
	Wants(name string) bool
	// Learn takes the addresses of a name that it wants, which clients may use for
	// as long as ttl. The answer goes out when it returns.
	Learn(name string, addresses []netip.Addr, ttl time.Duration)
}

// lesson is what the learner must know before an answer to the flight's
// question goes out; nil when there is nothing. Answers from the cache need
// none: they end when what was learnt does.
func (f *flights) lesson(flight *flight, answer *cached) func() {
	if f.learner == nil || answer.an == 0 || flight.q.qtype != dns.TypeA && flight.q.qtype != dns.TypeAAAA {
		return nil
	}
	name := strings.ToLower(strings.TrimSuffix(readable(string(flight.q.name)), "."))
	if !f.learner.Wants(name) {
		return nil
	}
	addresses := answer.addresses()
	ttl := time.Duration(answer.expires - f.clock())
	if answer.stale {
		ttl = max(ttl, staleTTL*time.Second)
	}
	if len(addresses) == 0 || ttl <= 0 {
		return nil
	}
	return func() {
		defer f.guard("learning addresses")
		f.learner.Learn(name, addresses, ttl)
	}
}

// after runs next when the lesson is learnt. What was waited for may be long,
// and who calls has other flights to move on: it is not kept waiting.
func (f *flights) after(lesson, next func()) {
	if lesson == nil {
		next()
		return
	}
	f.wg.Go(func() { lesson(); next() })
}

// addresses are those in the answer section.
func (c *cached) addresses() (all []netip.Addr) {
	for at, left := 0, int(c.an); left > 0; left-- {
		if at = skipName(c.wire, at); at < 0 || at+10 > len(c.wire) {
			return all
		}
		kind, size := binary.BigEndian.Uint16(c.wire[at:]), int(binary.BigEndian.Uint16(c.wire[at+8:]))
		if at += 10; at+size > len(c.wire) {
			return all
		}
		if a, ok := netip.AddrFromSlice(c.wire[at : at+size]); ok && (kind == dns.TypeA || kind == dns.TypeAAAA) {
			all = append(all, a)
		}
		at += size
	}
	return all
}

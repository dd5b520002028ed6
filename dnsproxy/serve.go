package dnsproxy

import (
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// worker serves packets one after another, on a socket or a connection of its
// own. It holds what a packet needs, so that an answer allocates nothing.
type worker struct {
	proxy *Proxy
	from  client
	stats *counters
	query query
	local netip.AddrPort
	// transfer is the table and the zone that the last query wants whole.
	transfer struct {
		table *Table
		zone  uint32
	}
}

// serve answers a packet into out and gives the answer's length: 0 for none. It
// tells whether an upstream must be asked; then the caller does, with submit.
// Whatever a packet does to the code that reads it, it gets SERVFAIL, and the
// next one is served.
func (w *worker) serve(pkt, out []byte, now int64) (n int, miss bool) {
	defer func() {
		if cause := recover(); cause != nil {
			n, miss = w.broken(pkt, out, cause), false
		}
	}()
	q := &w.query
	rcode := q.parse(pkt)
	if rcode == dropped {
		w.stats.dropped.Add(1)
		return 0, false
	}
	n, rcode, src := w.proxy.answer(q, &w.from, out, w.limit(), rcode, now)
	switch src {
	case sourceUpstream:
		return 0, true
	case sourceNobody:
		return 0, false
	case sourceTransfer:
		w.transfer.table, w.transfer.zone = w.proxy.table.Load(), uint32(n)
		return 0, false
	}
	if q.ahead {
		w.proxy.fetchAhead(q)
	}
	w.count(src, rcode)
	return n, false
}

// count counts an answer. A UDP socket has taken the lock for all of a batch.
func (w *worker) count(src source, rcode int) {
	if w.from.tcp {
		w.stats.mu.Lock()
		defer w.stats.mu.Unlock()
	}
	w.stats.tally.count(w.query.zone, w.query.qtype, src, rcode)
}

// broken answers a packet that made the code panic.
func (w *worker) broken(pkt, out []byte, cause any) int {
	w.proxy.notePanic(cause, "packet", pkt[:min(len(pkt), plainSize)])
	w.query = query{raw: pkt, id: w.query.id, flags: w.query.flags, questionEnd: headerSize}
	w.count(sourceProxy, dns.RcodeServerFailure)
	return refuse(&w.query, out, dns.RcodeServerFailure, w.proxy.flags())
}

func (w *worker) limit() int {
	if w.from.tcp {
		return tcpSize
	}
	return w.query.limit()
}

// answer decides who answers. For sourceUpstream there is no answer yet, for
// sourceNobody there will be none, and for sourceTransfer n is a zone.
func (p *Proxy) answer(q *query, from *client, out []byte, limit, rcode int, now int64) (n, code int, src source) {
	r := p.forward.routes.Load()
	flags := r.flags
	if q.wants > 0 {
		p.answerWith(q, from.tcp)
	}
	if rcode != dns.RcodeSuccess {
		if n, ok := p.tellVersion(q, out, limit); ok {
			return n, dns.RcodeSuccess, sourceProxy
		}
		return refuse(q, out, rcode, flags), rcode, sourceProxy
	}
	t := p.table.Load()
	if t == nil {
		q.explain(edeNotReady)
		return refuse(q, out, dns.RcodeServerFailure, flags), dns.RcodeServerFailure, sourceProxy
	}
	if r.access != nil && !r.allows(q.name[:q.nameLen], from.addr()) {
		p.metrics.denied.Add(1)
		q.explain(edeProhibited)
		return p.refused(q, from, out, flags, now)
	}
	if q.qtype == dns.TypeAXFR || q.qtype == dns.TypeIXFR {
		zone, rcode := p.transferable(t, q, from)
		if rcode == dns.RcodeSuccess {
			return int(zone), rcode, sourceTransfer
		}
		q.explain(edeProhibited)
		return refuse(q, out, rcode, flags), rcode, sourceProxy
	}
	// A random turn, not a counter: clients ask A and AAAA in pairs, and a
	// counter would give each type every other turn only.
	turn := rand.Uint32()
	if turn>>26 == 0 {
		p.popular.note(q, now)
	}
	n, code, ours, leads := t.answer(q, out, limit, turn, flags)
	switch {
	case leads && flags&flagRA != 0:
		return 0, 0, sourceUpstream
	case ours:
		return n, code, sourceCluster
	}
	return p.outside(r, q, from, out, limit, now)
}

// outside answers for a name that is not the cluster's: from the cache, unless
// an upstream must be asked or the client may not.
func (p *Proxy) outside(r *routes, q *query, from *client, out []byte, limit int, now int64) (n, code int, src source) {
	zone := r.match(q.name[:q.nameLen])
	if zone == nil || zone.zone == "\x00" {
		if n, code, ok := special(q, out, limit, r.flags); ok {
			return n, code, sourceProxy
		}
		if p.options.EmptyZones {
			if n, code, ok := emptyZone(q, out, limit, r.flags); ok {
				return n, code, sourceProxy
			}
		}
	}
	if zone == nil || q.flags&flagRD == 0 { // without RD, it would only spy on the cache
		q.explain(edeNotAuthoritative)
		return p.refused(q, from, out, r.flags, now)
	}
	if n, code, src, ok := p.paced(q, from, out, r.flags, now); !ok {
		return n, code, src
	}
	if q.qtype == dns.TypeANY {
		return minimalANY(q, out, r.flags), dns.RcodeSuccess, sourceProxy
	}
	c, ahead := p.cache.find(q, len(zone.zone), now)
	if c != nil {
		q.ahead = ahead
		p.cache.hits.Add(1)
		return c.answer(q, out, limit, now, r.flags), int(c.rcode), sourceCache
	}
	p.cache.misses.Add(1)
	return 0, 0, sourceUpstream
}

// refused is REFUSED, at the pace that the client's network is allowed.
func (p *Proxy) refused(q *query, from *client, out []byte, flags uint16, now int64) (n, code int, src source) {
	if n, code, src, ok := p.paced(q, from, out, flags, now); !ok {
		return n, code, src
	}
	return refuse(q, out, dns.RcodeRefused, flags), dns.RcodeRefused, sourceProxy
}

// paced is ok when an answer may go to the client. Over TCP the client has
// proved its address.
func (p *Proxy) paced(q *query, from *client, out []byte, flags uint16, now int64) (n, code int, src source, ok bool) {
	if from.tcp || p.limit == nil {
		return 0, 0, 0, true
	}
	switch p.limit.allow(from.addr(), now) {
	case paceSlip:
		return refuse(q, out, dns.RcodeSuccess, flags|flagTC), dns.RcodeSuccess, sourceProxy, false
	case paceDrop:
		return 0, 0, sourceNobody, false
	}
	return 0, 0, 0, true
}

// submit lets the worker's last query, a miss, wait for an upstream. send gets
// the answer, from another goroutine, and may keep it.
func (w *worker) submit(send func(answer []byte)) {
	stats, limit, zone, qtype := w.stats, w.limit(), w.query.zone, w.query.qtype
	began := w.proxy.now()
	var answered atomic.Bool
	once := func(answer []byte, rcode int, _ string) {
		if answered.CompareAndSwap(false, true) {
			stats.addLate(zone, qtype, rcode, time.Duration(w.proxy.now()-began))
			send(answer)
		}
	}
	defer func() {
		if cause := recover(); cause != nil {
			w.proxy.notePanic(cause, "while", "asking an upstream")
			answer, rcode := w.proxy.late(&w.query, nil, limit)
			once(answer, rcode, "")
		}
	}()
	w.proxy.waitFor(&w.query, w.from.addr(), limit, once)
}

// late is the answer to a query that waited; SERVFAIL when c is nil.
func (p *Proxy) late(q *query, c *cached, limit int) (answer []byte, rcode int) {
	if c == nil {
		q.explain(edeOverload)
		out := make([]byte, plainSize)
		return out[:refuse(q, out, dns.RcodeServerFailure, p.flags())], dns.RcodeServerFailure
	}
	out := make([]byte, min(limit, q.questionEnd+len(c.wire)+q.optRoom()+edeSize))
	return out[:c.answer(q, out, limit, p.now(), p.flags())], int(c.rcode)
}

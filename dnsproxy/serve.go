package dnsproxy

import (
	"math/rand/v2"

	"github.com/miekg/dns"
)

// worker serves packets one after another, on a socket or a connection of its
// own. It holds what a packet needs, so that an answer allocates nothing.
type worker struct {
	proxy *Proxy
	tcp   bool
	stats *counters
	query query
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
	n, rcode, src := w.proxy.answer(q, out, w.limit(), rcode, now)
	if src == sourceUpstream {
		return 0, true
	}
	w.stats.add(src, rcode)
	return n, false
}

// broken answers a packet that made the code panic. Of many such packets it
// logs the first, the second, the fourth and so on: they may come by thousands.
func (w *worker) broken(pkt, out []byte, cause any) int {
	if n := w.proxy.metrics.panics.Add(1); n&(n-1) == 0 {
		w.proxy.log.Error("query broke the server", "cause", cause, "packet", pkt[:min(len(pkt), plainSize)], "so_far", n)
	}
	w.query = query{raw: pkt, id: w.query.id, flags: w.query.flags, questionEnd: headerSize}
	w.stats.add(sourceProxy, dns.RcodeServerFailure)
	return refuse(&w.query, out, dns.RcodeServerFailure, w.proxy.flags)
}

func (w *worker) limit() int {
	if w.tcp {
		return tcpSize
	}
	return w.query.limit()
}

// answer decides who answers. For sourceUpstream there is no answer yet.
func (p *Proxy) answer(q *query, out []byte, limit, rcode int, now int64) (n, code int, src source) {
	if rcode != dns.RcodeSuccess {
		return refuse(q, out, rcode, p.flags), rcode, sourceProxy
	}
	t := p.table.Load()
	if t == nil {
		return refuse(q, out, dns.RcodeServerFailure, p.flags), dns.RcodeServerFailure, sourceProxy
	}
	// A random turn, not a counter: clients ask A and AAAA in pairs, and a
	// counter would give each type every other turn only.
	n, code, ours, leads := t.answer(q, out, limit, rand.Uint32(), p.flags)
	switch {
	case leads && len(p.forward.upstreams) > 0:
		return 0, 0, sourceUpstream
	case ours:
		return n, code, sourceCluster
	}
	switch {
	case len(p.forward.upstreams) == 0:
		return refuse(q, out, dns.RcodeRefused, p.flags), dns.RcodeRefused, sourceProxy
	case q.qtype == dns.TypeANY:
		return minimalANY(q, out, p.flags), dns.RcodeSuccess, sourceProxy
	}
	if c := p.cache.get(q.key()); c != nil && c.expires > now {
		p.cache.hits.Add(1)
		return c.answer(q, out, limit, now, p.flags), int(c.rcode), sourceCache
	}
	p.cache.misses.Add(1)
	return 0, 0, sourceUpstream
}

// submit lets the worker's last query, a miss, wait for an upstream. send gets
// the answer, from another goroutine, and may keep it.
func (w *worker) submit(send func(answer []byte)) {
	stats := w.stats
	w.proxy.waitFor(&w.query, w.limit(), func(answer []byte, rcode int, _ string) {
		stats.add(sourceUpstream, rcode)
		send(answer)
	})
}

// late is the answer to a query that waited; SERVFAIL when c is nil.
func (p *Proxy) late(q *query, c *cached, limit int) (answer []byte, rcode int) {
	if c == nil {
		out := make([]byte, plainSize)
		return out[:refuse(q, out, dns.RcodeServerFailure, p.flags)], dns.RcodeServerFailure
	}
	out := make([]byte, min(limit, q.questionEnd+len(c.wire)+2*optSize))
	return out[:c.answer(q, out, limit, p.now(), p.flags)], int(c.rcode)
}

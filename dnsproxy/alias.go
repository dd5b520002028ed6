package dnsproxy

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"
)

// waitFor gets the answer to a query that the table or the cache could not give
// at once, and calls done with it, soon or later, perhaps from another
// goroutine. It looks into the table again: the name may have become ours
// meanwhile, and then it must not reach an upstream.
func (p *Proxy) waitFor(q *query, from netip.Addr, limit int, done func(answer []byte, rcode int, from string)) {
	w := &waiter{query: *q, client: from}
	w.query.detach()
	if t := p.table.Load(); t != nil {
		if what, _ := t.locate(q.name[:q.nameLen]); what != outside {
			p.waitForAlias(t, w, limit, done)
			return
		}
	}
	w.done = func(w *waiter, c *cached) {
		answer, rcode := p.late(&w.query, c, limit)
		done(answer, rcode, c.from())
	}
	p.submit(w)
}

// submit sends a waiter to the upstreams of its name's zone, by now. A question
// that is our own probe has gone round in a circle.
func (p *Proxy) submit(w *waiter) {
	name := w.query.name[:w.query.nameLen]
	zone := p.forward.routes.Load().match(name)
	if zone == nil || p.forward.cameBack(name) {
		w.done(w, &cached{rcode: dns.RcodeRefused})
		return
	}
	p.flights.submit(w, zone)
}

// fetchAhead asks anew for an answer that ends soon.
func (p *Proxy) fetchAhead(q *query) {
	zone := p.forward.routes.Load().match(q.name[:q.nameLen])
	if zone == nil {
		return
	}
	p.cache.ahead.Add(1)
	w := &waiter{query: *q}
	w.query.detach()
	p.flights.submit(w, zone)
}

// waitForAlias answers a name of ours whose CNAME leads to somebody else's: the
// programs that ask us are stub resolvers and do not follow it by themselves.
func (p *Proxy) waitForAlias(t *Table, from *waiter, limit int, done func(answer []byte, rcode int, from string)) {
	q, out := &from.query, make([]byte, tcpSize)
	n, _, _, leads := t.answer(q, out, tcpSize, 0, p.flags())
	alone := func() { // the table's answer as it is
		n, rcode, _, _ := t.answer(q, out, limit, 0, p.flags())
		done(out[:n], rcode, sourceNames[sourceCluster])
	}
	head := new(dns.Msg)
	if !leads || head.Unpack(out[:n]) != nil {
		alone()
		return
	}
	target, err := wireName(head.Answer[len(head.Answer)-1].(*dns.CNAME).Target)
	if err != nil || p.forward.routes.Load().match([]byte(target)) == nil {
		alone() // nobody to ask for the rest
		return
	}
	w := &waiter{query: q.renamed(target), client: from.client}
	w.done = func(w *waiter, c *cached) {
		p.join(head, &w.query, c)
		if head.Truncate(limit); limit == tcpSize {
			head.Compress = true
		}
		answer, err := head.Pack()
		if err != nil {
			answer = out[:refuse(q, out, dns.RcodeServerFailure, p.flags())]
		}
		done(answer, head.Rcode, c.from())
	}
	if zone := p.forward.routes.Load().match(w.query.name[:w.query.nameLen]); zone != nil {
		if c, _ := p.cache.find(&w.query, len(zone.zone), p.now()); c != nil {
			w.done(w, c)
			return
		}
	}
	p.submit(w)
}

// join appends the answer about the target to the CNAMEs that lead there.
func (p *Proxy) join(head *dns.Msg, q *query, c *cached) {
	answer, _ := p.late(q, c, tcpSize)
	tail := new(dns.Msg)
	if err := tail.Unpack(answer); err != nil {
		head.Rcode = dns.RcodeServerFailure
		return
	}
	head.Rcode = tail.Rcode
	head.Answer = append(head.Answer, tail.Answer...)
	head.Ns = append(head.Ns, tail.Ns...)
}

// renamed is the same query for another name.
func (q *query) renamed(name string) query {
	n := *q
	n.apexLen, n.nameLen = 0, copy(n.name[:], name)
	n.raw = append(append([]byte(nil), q.raw[:headerSize]...), name...)
	n.raw = binary.BigEndian.AppendUint16(n.raw, q.qtype)
	n.raw = binary.BigEndian.AppendUint16(n.raw, q.qclass)
	n.questionEnd = len(n.raw)
	return n
}

// from says who gave the answer, in words for people.
func (c *cached) from() string {
	switch {
	case c == nil || c.upstream == "":
		return sourceNames[sourceProxy]
	case c.stale:
		return sourceNames[sourceCache]
	}
	return c.upstream
}

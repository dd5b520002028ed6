package dnsproxy

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// Transfers of whole zones (AXFR, RFC 5936), over TCP, to those who may.
const (
	// transferRoom is how much of a zone one message carries.
	transferRoom = 16 << 10
	maxTransfers = 4 // at once; more are refused
)

// transferable decides on a question for a zone transfer: an RCODE, and when it
// is NOERROR the zone's index. IXFR gets the same, which RFC 1995, 4 allows.
func (p *Proxy) transferable(t *Table, q *query, from *client) (zone uint32, rcode int) {
	if !from.tcp || !from.valid() || !contains(p.forward.routes.Load().transfer, from.addr()) {
		return 0, dns.RcodeRefused
	}
	i, ok := t.find(q.name[:q.nameLen])
	if !ok {
		return 0, dns.RcodeNotAuth
	}
	e := &t.entries[i]
	if z := &t.zones[e.zone]; z.nameLen != e.nameLen || isReverse(string(q.name[:q.nameLen])) {
		return 0, dns.RcodeNotAuth
	}
	return e.zone, dns.RcodeSuccess
}

// transfer sends a zone in as many messages as it takes: the SOA, every record,
// and the SOA again. The table does not change meanwhile; a newer one may be in
// use by the end, which the serial shows.
func (t *Table) transfer(q *query, zone uint32, flags uint16, send func(message []byte) error) error {
	z := &t.zones[zone]
	apex, soa := t.arena[z.name:z.name+uint32(z.nameLen)], t.arena[z.soa:z.soa+uint32(z.soaLen)]
	out := make([]byte, transferRoom)
	r := t.beginTransfer(q, out, flags)
	put := func(owner, body []byte) error {
		if !r.named(owner, body) {
			if err := send(out[:r.finish(q, dns.RcodeSuccess)]); err != nil {
				return err
			}
			if need := q.questionEnd + len(owner) + len(body) + optSize; need > len(out) {
				out = make([]byte, need)
			}
			r = t.beginTransfer(q, out, flags)
			r.named(owner, body)
		}
		r.an++
		return nil
	}
	if err := put(apex, soa); err != nil {
		return err
	}
	for i := range t.entries {
		e := &t.entries[i]
		if e.zone != zone {
			continue
		}
		owner := t.arena[e.name : e.name+uint32(e.nameLen)]
		for s := e.firstSet; s < e.firstSet+e.sets; s++ {
			for rec := t.sets[s].first; rec < t.sets[s].first+uint32(t.sets[s].count); rec++ {
				if err := put(owner, t.body(&t.records[rec])); err != nil {
					return err
				}
			}
		}
	}
	if err := put(apex, soa); err != nil {
		return err
	}
	return send(out[:r.finish(q, dns.RcodeSuccess)])
}

func (t *Table) beginTransfer(q *query, out []byte, flags uint16) reply {
	r := newReply(q, out, tcpSize)
	r.flags = flags | flagAA
	return r
}

// transferZone sends the transfer that the connection's last query asked for.
// Its client gets nothing else meanwhile.
func (c *tcpConn) transferZone(t *Table, zone uint32) error {
	defer c.server.transfers.Add(-1)
	if c.server.transfers.Add(1) > maxTransfers {
		out := make([]byte, plainSize)
		n := refuse(&c.query, out, dns.RcodeRefused, c.proxy.flags())
		return c.write(append(binary.BigEndian.AppendUint16(nil, uint16(n)), out[:n]...))
	}
	c.proxy.metrics.transfers.Add(1)
	frame := make([]byte, 0, 2+transferRoom)
	return t.transfer(&c.query, zone, c.proxy.flags(), func(message []byte) error {
		frame = append(binary.BigEndian.AppendUint16(frame[:0], uint16(len(message))), message...)
		return c.write(frame)
	})
}

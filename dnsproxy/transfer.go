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
	for i := range t.zones {
		if t.zones[i].name == text(q.name[:q.nameLen]) {
			return uint32(i), dns.RcodeSuccess
		}
	}
	return 0, dns.RcodeNotAuth
}

// transfer sends a zone in as many messages as it takes: the SOA, every record,
// and the SOA again. The table does not change meanwhile; a newer one may be in
// use by the end, which the serial shows.
func (t *Table) transfer(q *query, zone uint32, flags uint16, send func(message []byte) error) error {
	z := &t.zones[zone]
	apex := []byte(z.name)
	out := make([]byte, transferRoom)
	r := t.beginTransfer(q, out, flags)
	put := func(owner, body []byte) error {
		if !r.named(owner, body) {
			if err := send(out[:r.finish(q, dns.RcodeSuccess)]); err != nil {
				return err
			}
			if need := q.questionEnd + len(owner) + len(body) + q.optRoom(); need > len(out) {
				out = make([]byte, need)
			}
			r = t.beginTransfer(q, out, flags)
			r.named(owner, body)
		}
		r.an++
		return nil
	}
	if err := put(apex, z.soa); err != nil {
		return err
	}
	if err := t.each(zone, func(e *entry) error {
		owner := e.name()
		for _, set := range e.shownSets() {
			records := e.shownRecords(&set)
			for i := range records {
				if err := put(owner, e.body(&records[i])); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := put(apex, z.soa); err != nil {
		return err
	}
	return send(out[:r.finish(q, dns.RcodeSuccess)])
}

// each calls f with the names of a zone, in no order, until it fails.
func (t *Table) each(zone uint32, f func(*entry) error) error {
	for e := range t.all() {
		if uint32(e.zone) != zone || isReverse(text(e.name())) {
			continue
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
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

package dnsproxy

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// reply is an answer in the making, in a buffer of the caller's.
type reply struct {
	out        []byte
	n          int // bytes written
	limit      int // bytes that may be written before the OPT record
	an, ns, ar int
	flags      uint16
}

// newReply starts the answer to q: its header stays open, its question is the
// client's own bytes, in the client's own case (which some clients check).
func newReply(q *query, out []byte, limit int) reply {
	r := reply{out: out, limit: min(limit, len(out))}
	if q.edns {
		r.limit -= q.optRoom()
	}
	r.n = copy(out, q.raw[:q.questionEnd])
	return r
}

// record appends a record: an owner by compression pointer, then its body, which
// is type, class, TTL, length and data. It tells whether the record fitted.
func (r *reply) record(owner uint16, body []byte) bool {
	if r.n+2+len(body) > r.limit {
		return false
	}
	binary.BigEndian.PutUint16(r.out[r.n:], owner)
	r.n += 2 + copy(r.out[r.n+2:], body)
	return true
}

// named appends a record whose owner is spelt out.
func (r *reply) named(owner, body []byte) bool {
	if r.n+len(owner)+len(body) > r.limit {
		return false
	}
	r.n += copy(r.out[r.n:], owner)
	r.n += copy(r.out[r.n:], body)
	return true
}

// finish appends the OPT record, if the client sent one, closes the header and
// gives the answer's length. Of the query's bits, RD and CD come back (RFC
// 1035, 4.1.1; RFC 4035, 3.2.2).
func (r *reply) finish(q *query, rcode int) int {
	if q.edns {
		r.putOPT(q, rcode)
	}
	flags := flagQR | r.flags | q.flags&(opcodeMask|flagRD|flagCD) | uint16(rcode&0xF)
	var questions uint16
	if q.questionEnd > headerSize {
		questions = 1
	}
	binary.BigEndian.PutUint16(r.out, q.id)
	binary.BigEndian.PutUint16(r.out[2:], flags)
	binary.BigEndian.PutUint16(r.out[4:], questions)
	binary.BigEndian.PutUint16(r.out[6:], uint16(r.an))
	binary.BigEndian.PutUint16(r.out[8:], uint16(r.ns))
	binary.BigEndian.PutUint16(r.out[10:], uint16(r.ar))
	return r.n
}

// refuse is an answer with nothing but an RCODE. It always fits 512 bytes.
func refuse(q *query, out []byte, rcode int, flags uint16) int {
	r := newReply(q, out, plainSize)
	r.flags = flags
	return r.finish(q, rcode)
}

// hinfoANY is the body of the answer to every ANY for a name that is not ours:
// fetching all there is would serve nobody but attackers (RFC 8482, 4.2).
var hinfoANY = []byte("\x00\x0d\x00\x01\x00\x00\x0e\x10\x00\x09\x07RFC8482\x00")

func minimalANY(q *query, out []byte, flags uint16) int {
	r := newReply(q, out, plainSize)
	r.flags = flags
	if r.record(ownerPointer, hinfoANY) {
		r.an++
	}
	return r.finish(q, dns.RcodeSuccess)
}

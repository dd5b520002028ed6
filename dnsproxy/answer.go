package dnsproxy

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// answer writes the table's answer to q, of at most limit bytes, and tells
// whether the name is the table's to answer at all: names in our zones are,
// existing or not, so none of them ever reaches an upstream. turn says which
// record of a set comes first. leads means that the answer ends in a CNAME to
// a name of somebody else's. It does not allocate.
func (t *Table) answer(q *query, out []byte, limit int, turn uint32, flags uint16) (n, rcode int, ours, leads bool) {
	what, index := t.locate(q.name[:q.nameLen])
	if what == outside {
		return 0, 0, false, false
	}
	r := newReply(q, out, limit)
	r.flags = flags | flagAA
	owner := uint16(ownerPointer)
	// Compile refuses chains longer than maxChain.
	for what == found {
		e := &t.entries[index]
		set := t.pick(e, q.qtype)
		if set == nil {
			if q.qtype == dns.TypeSOA && e.nameLen == t.zones[e.zone].nameLen {
				z := &t.zones[e.zone]
				r.an += one(r.record(owner, t.arena[z.soa:z.soa+uint32(z.soaLen)]))
			} else {
				t.denial(&r, q, e.zone)
			}
			break
		}
		start := r.n
		t.write(&r, set, owner, turn)
		if set.rtype != dns.TypeCNAME || q.qtype == dns.TypeCNAME || q.qtype == dns.TypeANY || r.flags&flagTC != 0 {
			break
		}
		// The next owner is the alias's target, which has just been written.
		owner = 0xC000 | uint16(start+12)
		what, index = e.outcome, e.target
	}
	if what == missing {
		rcode = dns.RcodeNameError // also at the end of a CNAME chain (RFC 6604)
		t.denial(&r, q, index)
	}
	return r.finish(q, rcode), rcode, true, what == outside
}

// pick chooses the set that answers a type: the CNAME where there is one, and
// one set only for ANY (RFC 8482, 4.1).
func (t *Table) pick(e *entry, qtype uint16) *recordSet {
	if e.sets == 0 {
		return nil
	}
	if first := &t.sets[e.firstSet]; first.rtype == dns.TypeCNAME || qtype == dns.TypeANY {
		return first
	}
	return t.set(e, qtype)
}

// write puts a set into the answer section and its targets' addresses into the
// additional one. What does not fit sets TC; additional records are left out
// silently (RFC 2181, 9).
func (t *Table) write(r *reply, set *recordSet, owner uint16, turn uint32) {
	records := t.records[set.first : set.first+uint32(set.count)]
	shift := 0
	if len(records) > 1 {
		shift = int(turn % uint32(len(records)))
	}
	start, written := r.n, 0
	for ; written < len(records); written++ {
		if !r.record(owner, t.body(&records[turned(written+shift, len(records))])) {
			r.flags |= flagTC
			break
		}
	}
	r.an += written
	at := start
	for i := range written {
		rec := &records[turned(i+shift, len(records))]
		if rec.extraLen > 0 && !t.writeExtra(r, rec, at+2+int(rec.target)) {
			return
		}
		at += 2 + int(rec.bodyLen)
	}
}

func turned(i, n int) int {
	if i >= n {
		return i - n
	}
	return i
}

// writeExtra appends the address records of rec's target, whose name stands in
// the message at an offset.
func (t *Table) writeExtra(r *reply, rec *record, name int) bool {
	if name >= 1<<14 {
		return false // out of a compression pointer's reach
	}
	extra := t.arena[rec.extra : rec.extra+uint32(rec.extraLen)]
	for len(extra) > 0 {
		size := 10 + int(binary.BigEndian.Uint16(extra[8:]))
		if !r.record(0xC000|uint16(name), extra[:size]) {
			return false
		}
		r.ar++
		extra = extra[size:]
	}
	return true
}

// denial puts the zone's SOA into the authority section: it bounds how long
// "there is none" may be remembered (RFC 2308).
func (t *Table) denial(r *reply, q *query, index uint32) {
	z := &t.zones[index]
	name, soa := t.arena[z.name:z.name+uint32(z.nameLen)], t.arena[z.soa:z.soa+uint32(z.soaLen)]
	before := q.nameLen - int(z.nameLen)
	var ok bool
	if r.an == 0 && before >= 0 { // the zone's name is the end of the question's
		ok = r.record(0xC000|uint16(headerSize+before), soa)
	} else {
		ok = r.named(name, soa)
	}
	r.ns += one(ok)
	if !ok {
		r.flags |= flagTC
	}
}

func one(ok bool) int {
	if ok {
		return 1
	}
	return 0
}

package dnsproxy

import (
	"github.com/miekg/dns"
)

// answer writes the table's answer to q, of at most limit bytes, and tells
// whether the name is the table's to answer at all: names in our zones are,
// existing or not, so none of them ever reaches an upstream. turn says which
// record of a set comes first. leads means that the answer ends in a CNAME to
// a name of somebody else's. It does not allocate.
func (t *Table) answer(q *query, out []byte, limit int, turn uint32, flags uint16) (n, rcode int, ours, leads bool) {
	name := q.name[:q.nameLen]
	what, at := t.locate(name)
	if what != found && t.mayRename(what, at) && t.renamed(q) {
		name = q.name[:q.nameLen]
		what, at = t.locate(name)
	}
	if what == outside {
		return 0, 0, false, false
	}
	q.zone = 1 + at.zone
	r := newReply(q, out, limit)
	r.flags = flags | flagAA
	owner := uint16(ownerPointer)
	for links := 0; what == found; links++ {
		set := pick(at, q.qtype)
		if set == nil {
			if q.qtype == dns.TypeSOA && at.nameLen == at.apexLen {
				r.an += one(r.record(owner, t.zones[at.zone].soa))
			} else {
				t.denial(&r, q, at, name)
			}
			break
		}
		start := r.n
		t.write(&r, at, set, owner, turn)
		if set.rtype != dns.TypeCNAME || q.qtype == dns.TypeCNAME || q.qtype == dns.TypeANY || r.flags&flagTC != 0 || links == maxChain {
			break
		}
		// The next owner is the alias's target, which has just been written.
		owner = 0xC000 | uint16(start+12)
		name = at.body(&at.shownRecords(set)[0])[10:]
		if what, at = t.locate(name); what == outside {
			leads = true
		}
	}
	if what == missing {
		rcode = dns.RcodeNameError // also at the end of a CNAME chain (RFC 6604)
		t.denial(&r, q, at, name)
	}
	return r.finish(q, rcode), rcode, true, leads
}

// pick chooses the set that answers a type: the CNAME where there is one, and
// one set only for ANY (RFC 8482, 4.1).
func pick(at *entry, qtype uint16) *recordSet {
	if at.shown == 0 {
		return nil
	}
	if first := &at.shownSets()[0]; first.rtype == qtype || first.rtype == dns.TypeCNAME || qtype == dns.TypeANY {
		return first
	}
	return at.set(qtype)
}

// write puts a set into the answer section and its targets' addresses into the
// additional one. What does not fit sets TC; additional records are left out
// silently (RFC 2181, 9).
func (t *Table) write(r *reply, e *entry, set *recordSet, owner uint16, turn uint32) {
	records := e.shownRecords(set)
	shift := 0
	if len(records) > 1 {
		// The upper half of the product: no division, and as fair.
		shift = int(uint64(turn) * uint64(len(records)) >> 32)
	}
	start, written := r.n, 0
	for ; written < len(records); written++ {
		if !r.record(owner, e.body(&records[turned(written+shift, len(records))])) {
			r.flags |= flagTC
			break
		}
	}
	r.an += written
	if set.rtype != dns.TypeSRV && set.rtype != dns.TypeNS {
		return
	}
	at := start
	for i := range written {
		rec := &records[turned(i+shift, len(records))]
		if rec.target > 0 && !t.writeExtra(r, e.body(rec)[rec.target:], at+2+int(rec.target)) {
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

// writeExtra appends the address records of a target, whose name stands in the
// message at an offset.
func (t *Table) writeExtra(r *reply, target []byte, name int) bool {
	if name >= 1<<14 {
		return false // out of a compression pointer's reach
	}
	what, at := t.locate(target)
	if what != found {
		return true
	}
	sets := at.shownSets()
	for i := range sets {
		set := &sets[i]
		if set.rtype != dns.TypeA && set.rtype != dns.TypeAAAA {
			continue
		}
		records := at.shownRecords(set)
		for j := range records {
			if !r.record(0xC000|uint16(name), at.body(&records[j])) {
				return false
			}
			r.ar++
		}
	}
	return true
}

// denial puts the zone's SOA into the authority section: it bounds how long
// "there is none" may be remembered (RFC 2308). e is in the zone, name ends with
// the zone's name.
func (t *Table) denial(r *reply, q *query, e *entry, name []byte) {
	soa, apex := t.zones[e.zone].soa, int(e.apexLen)
	var ok bool
	if r.an == 0 { // the zone's name is the end of the question's
		if q.apexLen > 0 {
			apex = q.apexLen
		}
		ok = r.record(0xC000|uint16(q.questionEnd-4-apex), soa)
	} else {
		ok = r.named(name[len(name)-apex:], soa)
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

package dnsproxy

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/miekg/dns"
)

// response is an upstream's reply, read once.
type response struct {
	wire       []byte // valid as long as the reader's buffer
	begin      int    // offset behind the question
	rcode      int    // with its upper bits of the OPT record
	truncated  bool
	an, ns     int
	answersEnd int // offset behind the answer section
	nsEnd      int // and behind the authority section
	ttls       []uint16

	edns    bool
	options []byte // of the OPT record

	plain    bool // all answers lie on the chain from the question's name, in order and compressed
	answered bool // one of them has the type that was asked for
	soa      resource
	hasSOA   bool
	minTTL   uint32 // of the answers
}

// readFrom reads a reply whose header and question are known to match q.
// When it was cut, what came of it is not looked at.
func (r *response) readFrom(q *question, wire []byte) error {
	*r = response{wire: wire, begin: headerSize + len(q.name) + 4, rcode: int(wire[3] & 0xF), truncated: wire[2]&2 != 0, plain: true, minTTL: 1<<31 - 1}
	r.an, r.ns = int(binary.BigEndian.Uint16(wire[6:])), int(binary.BigEndian.Uint16(wire[8:]))
	if r.truncated {
		return nil
	}
	extra := int(binary.BigEndian.Uint16(wire[10:]))
	if (r.an+r.ns+extra)*11 > len(wire) {
		return errBroken
	}
	r.ttls = make([]uint16, 0, r.an+r.ns)
	at, err := r.readAnswers(q, r.begin)
	if err != nil {
		return err
	}
	r.answersEnd = at
	var name [maxName]byte
	for range r.ns {
		record, _, err := readResource(wire, at, &name)
		if err != nil {
			return err
		}
		if record.rtype == dns.TypeSOA && !r.hasSOA {
			r.soa, r.hasSOA = record, true
		}
		r.ttls = append(r.ttls, uint16(record.body+4-r.begin))
		at = record.end
	}
	r.nsEnd = at
	for range extra {
		record, _, err := readResource(wire, at, &name)
		if err != nil {
			return err
		}
		if record.rtype == dns.TypeOPT {
			r.edns, r.options = true, wire[record.data:record.end]
			r.rcode |= int(wire[record.body+4]) << 4
		}
		at = record.end
	}
	return nil
}

// readAnswers walks along the CNAMEs. Records off the chain are what a forger
// or a confused server adds; then plain becomes false.
func (r *response) readAnswers(q *question, at int) (end int, err error) {
	var name, target [maxName]byte
	var room [4][]byte
	chain := append(room[:0], q.name)
	for range r.an {
		record, n, err := readResource(r.wire, at, &name)
		if err != nil {
			return 0, err
		}
		owner := name[:n]
		on := bytes.Equal(owner, chain[len(chain)-1])
		if !on && record.rtype == dns.TypeRRSIG {
			for _, c := range chain {
				on = on || bytes.Equal(owner, c)
			}
		}
		// An owner that is spelt out takes room in every answer, and may have
		// the case that we asked in.
		if !on || r.wire[at]&0xC0 == 0 || len(chain) > 2*maxChain {
			r.plain = false
		}
		if record.rtype == q.qtype || q.qtype == dns.TypeANY {
			r.answered = true
		} else if on && record.rtype == dns.TypeCNAME {
			n, _ := readName(r.wire, record.data, &target)
			chain = append(chain, bytes.Clone(target[:n]))
		}
		r.minTTL = min(r.minTTL, record.ttl)
		r.ttls = append(r.ttls, uint16(record.body+4-r.begin))
		at = record.end
	}
	return at, nil
}

// lifetime is how long the response may be kept; zero means not at all.
// "There is none" lives as its SOA says (RFC 2308, 5), and no longer than the
// CNAMEs that lead to it.
func (r *response) lifetime() time.Duration {
	seconds := func(n uint32) time.Duration { return time.Duration(n) * time.Second }
	if r.rcode == dns.RcodeSuccess && r.answered {
		return min(maxPositive, seconds(r.minTTL))
	}
	if !r.hasSOA {
		return 0
	}
	minimum := binary.BigEndian.Uint32(r.wire[r.soa.end-4:])
	ttl := min(maxNegative, seconds(min(r.soa.ttl, minimum)))
	if r.an > 0 {
		ttl = min(ttl, seconds(r.minTTL))
	}
	return ttl
}

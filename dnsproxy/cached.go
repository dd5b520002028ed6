package dnsproxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// How long answers are kept, whatever their own TTLs say.
const (
	maxPositive = 24 * time.Hour
	maxNegative = time.Hour // RFC 2308, 5, allows 1 to 3 hours
	failureTTL  = time.Second
	// While no upstream serves, an old answer does with staleTTL, until the
	// next try after staleRecheck (RFC 8767, 4 and 5).
	staleTTL     = 30
	staleRecheck = 30 * time.Second
	// minPrefetch is the shortest life that is worth fetching ahead.
	minPrefetch = 2 * time.Second
)

// cached is an upstream's answer as it goes on the wire, immutable. Its bytes
// follow a question of the same name, so that they fit behind every client's
// own question, compression pointers included.
type cached struct {
	wire     []byte // answer, authority and additional sections, without OPT
	ttls     []uint16
	an, ns   uint16
	rcode    uint8
	ad       bool
	denies   bool   // the name does not exist, whatever the type, nor does any below it
	floating bool   // wire has no pointers: it fits behind any question
	upstream string // who gave it

	// Times in nanoseconds since the proxy's start. From refreshAt on, one who
	// asks has it fetched ahead. ended is when it first expired; 0 for what
	// must not serve on after that.
	stored, refreshAt, expires, ended int64
	stale                             bool
}

// newCached keeps what a client may need of a response. now is when it came.
// The bytes stay as they are, since they follow a question of the same length:
// their pointers remain right. Only a response with records that were not asked
// for is taken apart and packed anew.
func newCached(q *question, r *response, upstream string, now int64) (*cached, error) {
	c := &cached{rcode: uint8(r.rcode), ad: r.wire[3]&flagAD != 0, upstream: upstream, stored: now}
	life := r.lifetime()
	switch {
	case !r.plain:
		if err := c.repack(q, r); err != nil {
			return nil, err
		}
	case r.rcode == dns.RcodeNameError && r.an == 0 && r.hasSOA && !q.do:
		// It denies the name for every type, and all names below it.
		c.denies, c.floating, c.ns, c.ttls = true, true, 1, nil
		c.wire = appendExpanded(nil, r.wire, r.soa)
		c.ttls = []uint16{uint16(skipName(c.wire, 0) + 4)}
	default:
		end, records := r.nsEnd, r.an+r.ns
		if r.answered && !q.do {
			end, records = r.answersEnd, r.an // no stub resolver reads the rest
		}
		c.wire = bytes.Clone(r.wire[r.begin:end])
		c.ttls, c.an, c.ns = r.ttls[:records], uint16(r.an), uint16(records-r.an)
	}
	if len(c.wire) > tcpSize-headerSize-maxName-4-2*plainSize {
		return nil, errors.New("keep the reply: it leaves no room for the question")
	}
	c.expires = now + int64(life)
	c.refreshAt, c.ended = c.expires, c.expires
	if life >= minPrefetch && r.answered {
		c.refreshAt = c.expires - int64(life)/10
	}
	return c, nil
}

// repack drops the records that were not asked for.
func (c *cached) repack(q *question, r *response) error {
	m := new(dns.Msg)
	if err := m.Unpack(r.wire); err != nil {
		return fmt.Errorf("read the reply: %w", err)
	}
	name := dns.CanonicalName(m.Question[0].Name) // we may have asked in odd case
	m.Question[0].Name = name
	for _, rr := range m.Answer {
		if dns.CanonicalName(rr.Header().Name) == name {
			rr.Header().Name = name
		}
	}
	keep(m, q.do)
	m.Compress = true
	whole, err := m.Pack()
	if err != nil {
		return fmt.Errorf("pack the reply: %w", err)
	}
	c.wire = whole[headerSize+len(q.name)+4:]
	c.an, c.ns = uint16(len(m.Answer)), uint16(len(m.Ns))
	for at, left := 0, len(m.Answer)+len(m.Ns); left > 0; left-- {
		if at = skipName(c.wire, at); at < 0 || at+10 > len(c.wire) {
			return errBroken
		}
		c.ttls = append(c.ttls, uint16(at+4))
		at += 10 + int(binary.BigEndian.Uint16(c.wire[at+8:]))
	}
	return nil
}

// failure is a cached "no upstream answered" (RFC 9520): short, so that a storm
// of repeated questions does not become a storm of packets.
func failure(now int64) *cached {
	return &cached{rcode: dns.RcodeServerFailure, stored: now, expires: now + int64(failureTTL), refreshAt: now + int64(failureTTL)}
}

// asStale is the answer for a while during which no upstream serves.
func (c *cached) asStale(now int64) *cached {
	s := *c
	s.stale, s.refreshAt, s.expires = true, now+int64(staleRecheck), now+int64(staleRecheck)
	return &s
}

// serves tells whether an answer past its end may serve while no upstream does.
func (c *cached) serves(now int64, staleFor time.Duration) bool {
	return c != nil && c.ended > 0 && now < c.ended+int64(staleFor)
}

// answers tells whether the answer has what was asked for, not just CNAMEs on
// the way to a denial.
func answers(m *dns.Msg) bool {
	qtype := m.Question[0].Qtype
	for _, rr := range m.Answer {
		if t := rr.Header().Rrtype; t == qtype || qtype == dns.TypeANY {
			return true
		}
	}
	return false
}

// keep drops what was not asked for: records off the chain from the question's
// name, which a forger would put there, and sections that no stub resolver
// reads. With DNSSEC (DO) the authority section carries proofs and stays.
func keep(m *dns.Msg, secure bool) {
	chain := map[string]bool{dns.CanonicalName(m.Question[0].Name): true}
	for range maxChain * 2 {
		before := len(chain)
		for _, rr := range m.Answer {
			owner := dns.CanonicalName(rr.Header().Name)
			if c, ok := rr.(*dns.CNAME); ok && chain[owner] {
				chain[dns.CanonicalName(c.Target)] = true
			}
			if _, ok := rr.(*dns.DNAME); ok && aboveAny(owner, chain) {
				chain[owner] = true
			}
		}
		if len(chain) == before {
			break
		}
	}
	kept := m.Answer[:0]
	for _, rr := range m.Answer {
		if chain[dns.CanonicalName(rr.Header().Name)] {
			kept = append(kept, rr)
		}
	}
	m.Answer = kept
	if m.Extra = nil; !secure && answers(m) {
		m.Ns = nil
	}
}

func aboveAny(owner string, chain map[string]bool) bool {
	for name := range chain {
		if dns.IsSubDomain(owner, name) {
			return true
		}
	}
	return false
}

// answer writes the kept answer for q, of at most limit bytes, and gives its
// length. It does not allocate.
func (c *cached) answer(q *query, out []byte, limit int, now int64, flags uint16) int {
	switch {
	case c.stale && c.rcode == dns.RcodeNameError:
		q.explain(edeStaleDenial)
	case c.stale:
		q.explain(edeStale)
	case c.rcode == dns.RcodeServerFailure && c.upstream == "":
		q.explain(edeNoUpstream)
	}
	r := newReply(q, out, limit)
	r.flags = flags
	if c.ad && (q.do || q.flags&flagAD != 0) { // RFC 6840, 5.8
		r.flags |= flagAD
	}
	if r.n+len(c.wire) > r.limit {
		r.flags |= flagTC
		return r.finish(q, int(c.rcode))
	}
	begin := r.n
	r.n += copy(r.out[r.n:], c.wire)
	r.an, r.ns, r.ar = int(c.an), int(c.ns), 0
	age := uint32(max(0, now-c.stored) / int64(time.Second))
	for _, at := range c.ttls {
		field := r.out[begin+int(at):]
		ttl := binary.BigEndian.Uint32(field)
		switch {
		case c.stale:
			ttl = staleTTL
		case ttl > age:
			ttl -= age
		default:
			ttl = 0
		}
		binary.BigEndian.PutUint32(field, ttl)
	}
	return r.finish(q, int(c.rcode))
}

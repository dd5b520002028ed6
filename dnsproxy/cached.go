package dnsproxy

import (
	"encoding/binary"
	"time"

	"github.com/miekg/dns"
)

// How long answers are kept, whatever their own TTLs say.
const (
	maxPositive = 24 * time.Hour
	maxNegative = time.Hour // RFC 2308, 5, allows 1 to 3 hours
	failureTTL  = time.Second
	// staleFor is how long after its end an answer still serves while no
	// upstream does, with staleTTL, until the next try after staleRecheck
	// (RFC 8767, 4 and 5).
	staleFor     = time.Hour
	staleTTL     = 30
	staleRecheck = 30 * time.Second
)

// cached is an upstream's answer as it goes on the wire, immutable. Its bytes
// follow a question of the same name, so that they fit behind every client's
// own question, compression pointers included.
type cached struct {
	wire       []byte // answer, authority and additional sections, without OPT
	ttls       []uint16
	an, ns, ar uint16
	rcode      uint8
	ad         bool
	upstream   string // who gave it

	// Times in nanoseconds since the proxy's start.
	stored, expires, staleUntil int64
	stale                       bool
}

// newCached packs an answer. now is when it came.
func newCached(m *dns.Msg, upstream string, now int64) (*cached, bool) {
	keep(m)
	m.Compress = true
	whole, err := m.Pack()
	if err != nil || len(whole) > tcpSize-optSize {
		return nil, false
	}
	begin := headerSize
	if begin = skipName(whole, begin); begin < 0 {
		return nil, false
	}
	begin += 4
	c := &cached{
		wire: whole[begin:], rcode: uint8(m.Rcode), ad: m.AuthenticatedData, upstream: upstream,
		an: uint16(len(m.Answer)), ns: uint16(len(m.Ns)), ar: uint16(len(m.Extra)), stored: now,
	}
	for at, left := 0, len(m.Answer)+len(m.Ns)+len(m.Extra); left > 0; left-- {
		if at = skipName(c.wire, at); at < 0 || at+10 > len(c.wire) {
			return nil, false
		}
		c.ttls = append(c.ttls, uint16(at+4))
		at += 10 + int(binary.BigEndian.Uint16(c.wire[at+8:]))
	}
	c.expires = now + int64(lifetime(m))
	c.staleUntil = c.expires + int64(staleFor)
	return c, true
}

// failure is a cached "no upstream answered" (RFC 9520): short, so that a storm
// of repeated questions does not become a storm of packets.
func failure(now int64) *cached {
	return &cached{rcode: dns.RcodeServerFailure, stored: now, expires: now + int64(failureTTL)}
}

// asStale is the answer for a while during which no upstream serves.
func (c *cached) asStale(now int64) *cached {
	s := *c
	s.stale, s.stored, s.expires = true, now, now+int64(staleRecheck)
	return &s
}

// lifetime is how long an answer may be kept; zero means not at all.
func lifetime(m *dns.Msg) time.Duration {
	if m.Rcode == dns.RcodeSuccess && answers(m) {
		ttl := maxPositive
		for _, rr := range m.Answer {
			ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
		}
		return ttl
	}
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			ttl := min(maxNegative, time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second)
			for _, rr := range m.Answer { // the CNAMEs on the way to the denied name
				ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
			}
			return ttl
		}
	}
	return 0
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
func keep(m *dns.Msg) {
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
	secure := m.IsEdns0() != nil && m.IsEdns0().Do()
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
	r.an, r.ns, r.ar = int(c.an), int(c.ns), int(c.ar)
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

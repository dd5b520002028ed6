package dnsproxy

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// EDNS options that clients send and that change an answer.
const (
	wantsNSID      = 1 << iota // RFC 5001
	wantsKeepalive             // RFC 7828
)

// Sizes of options, in bytes. Such a text must leave room in the smallest answer.
const (
	edeSize = 6
	maxNSID = 64
)

// Reasons beside an RCODE (RFC 8914).
const (
	edeStale            = dns.ExtendedErrorCodeStaleAnswer
	edeCachedFailure    = dns.ExtendedErrorCodeCachedError
	edeNotReady         = dns.ExtendedErrorCodeNotReady
	edeProhibited       = dns.ExtendedErrorCodeProhibited
	edeStaleDenial      = dns.ExtendedErrorCodeStaleNXDOMAINAnswer
	edeNotAuthoritative = dns.ExtendedErrorCodeNotAuthoritative
	edeNotSupported     = dns.ExtendedErrorCodeNotSupported
	edeNoUpstream       = dns.ExtendedErrorCodeNoReachableAuthority
	edeOverload         = dns.ExtendedErrorCodeOther
)

// explain gives a reason for the answer that follows.
func (q *query) explain(code uint16) { q.ede = code + 1 }

// readOptions looks through a query's options. ok is false for torn ones.
func (q *query) readOptions(options []byte) (ok bool) {
	for len(options) > 0 {
		if len(options) < 4 {
			return false
		}
		code, size := binary.BigEndian.Uint16(options), int(binary.BigEndian.Uint16(options[2:]))
		if 4+size > len(options) {
			return false
		}
		switch code {
		case dns.EDNS0NSID:
			q.wants |= wantsNSID
		case dns.EDNS0TCPKEEPALIVE:
			q.wants |= wantsKeepalive
		}
		options = options[4+size:]
	}
	return true
}

// optRoom is the size of the answer's OPT record.
func (q *query) optRoom() int {
	n := optSize + len(q.options)
	if q.ede > 0 {
		n += edeSize
	}
	return n
}

// putOPT appends the answer's OPT record, for which there is room.
func (r *reply) putOPT(q *query, rcode int) {
	size := q.optRoom()
	opt := r.out[r.n : r.n+size]
	clear(opt[:optSize])
	opt[2] = byte(dns.TypeOPT)
	binary.BigEndian.PutUint16(opt[3:], udpSize)
	opt[5] = byte(rcode >> 4)
	if q.do {
		opt[7] = flagDO >> 8
	}
	binary.BigEndian.PutUint16(opt[9:], uint16(size-optSize))
	n := optSize + copy(opt[optSize:], q.options)
	if q.ede > 0 {
		binary.BigEndian.PutUint16(opt[n:], dns.EDNS0EDE)
		binary.BigEndian.PutUint16(opt[n+2:], 2)
		binary.BigEndian.PutUint16(opt[n+4:], q.ede-1)
	}
	r.n += size
	r.ar++
}

// optionsFor are the options of answers to those who want some, ready made.
func optionsFor(nsid string) (all [4][]byte) {
	option := func(code uint16, data []byte) []byte {
		b := binary.BigEndian.AppendUint16(nil, code)
		return append(binary.BigEndian.AppendUint16(b, uint16(len(data))), data...)
	}
	for wants := range all {
		if wants&wantsNSID != 0 && nsid != "" {
			all[wants] = append(all[wants], option(dns.EDNS0NSID, []byte(nsid))...)
		}
		if wants&wantsKeepalive != 0 {
			tenths := binary.BigEndian.AppendUint16(nil, uint16(idleTimeout.Milliseconds()/100))
			all[wants] = append(all[wants], option(dns.EDNS0TCPKEEPALIVE, tenths)...)
		}
	}
	return all
}

// answerWith readies the options that go with the answer to a query. Keepalive is
// about a connection.
func (p *Proxy) answerWith(q *query, isTCP bool) {
	wants := q.wants
	if !isTCP {
		wants &^= wantsKeepalive
	}
	q.options = p.replyOptions[wants]
}

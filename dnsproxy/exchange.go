package dnsproxy

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/miekg/dns"
)

// question is what is asked of an upstream.
type question struct {
	name       []byte // lower case, on the wire
	qtype      uint16
	do, cd, ad bool
}

// dress is how a question is put to one upstream.
type dress struct {
	edns   bool
	odd    bool   // letters of random case (0x20)
	cookie []byte // client's and perhaps server's (RFC 7873); nil: none
}

// pack makes a query with an id and letters that nobody can guess (RFC 5452, 9).
func (q *question) pack(d dress) []byte {
	var draw [10]byte
	rand.Read(draw[:]) // never fails (crypto/rand)
	flags := uint16(flagRD)
	if q.cd {
		flags |= flagCD
	}
	if q.ad {
		flags |= flagAD
	}
	m := make([]byte, headerSize, headerSize+len(q.name)+4+optSize+4+len(d.cookie))
	m[0], m[1], m[5] = draw[0], draw[1], 1
	binary.BigEndian.PutUint16(m[2:], flags)
	m = append(m, q.name...)
	if d.odd {
		oddCase(m[headerSize:], binary.BigEndian.Uint64(draw[2:]))
	}
	m = binary.BigEndian.AppendUint16(m, q.qtype)
	m = binary.BigEndian.AppendUint16(m, dns.ClassINET)
	if d.edns {
		m[11] = 1
		var do byte
		if q.do {
			do = flagDO >> 8
		}
		m = append(m, 0, 0, byte(dns.TypeOPT), udpSize>>8, udpSize&0xFF, 0, 0, do, 0, 0, 0)
		if d.cookie != nil {
			m[len(m)-1] = byte(4 + len(d.cookie))
			m = append(m, 0, byte(dns.EDNS0COOKIE), 0, byte(len(d.cookie)))
			m = append(m, d.cookie...)
		}
	}
	return m
}

// oddCase turns letters of a wire name to upper case, one bit deciding on each
// of the first 64: a forger would have to guess them too.
func oddCase(name []byte, bits uint64) {
	for at := 0; name[at] != 0; at += 1 + int(name[at]) {
		for i := at + 1; i <= at+int(name[at]); i++ {
			if c := name[i]; c-'a' < 26 {
				name[i] = c - 'a' + 'A'*byte(bits&1) + 'a'*byte(^bits&1)
				bits >>= 1
			}
		}
	}
}

// match is how a reply's question fits the query's.
type match uint8

const (
	noMatch   match = iota
	caseDiffs       // but for the letters' case
	exact
)

// matches tells whether a reply belongs to a query: id, response bit, opcode
// and question.
func matches(sent, got []byte) match {
	end := skipName(sent, headerSize) + 4
	if len(got) < end || got[0] != sent[0] || got[1] != sent[1] || got[2]&0xF8 != flagQR>>8 || got[4] != 0 || got[5] != 1 {
		return noMatch
	}
	if string(got[headerSize:end]) == string(sent[headerSize:end]) {
		return exact
	}
	for i := headerSize; i < end-4; i++ {
		if lower(got[i]) != lower(sent[i]) {
			return noMatch
		}
	}
	if string(got[end-4:end]) != string(sent[end-4:end]) {
		return noMatch
	}
	return caseDiffs
}

// option finds an EDNS option's data among options that are known to be whole.
func option(options []byte, code uint16) []byte {
	for len(options) >= 4 {
		length := int(binary.BigEndian.Uint16(options[2:]))
		if 4+length > len(options) {
			return nil
		}
		if binary.BigEndian.Uint16(options) == code {
			return options[4 : 4+length]
		}
		options = options[4+length:]
	}
	return nil
}

package dnsproxy

import (
	"bytes"
	"encoding/binary"

	"github.com/miekg/dns"
)

// Names that have a meaning of their own and never reach an upstream: localhost
// and invalid (RFC 6761), onion (RFC 7686). A forward zone for one of them says
// otherwise.
var (
	localhost = []byte("\x09localhost\x00")
	invalid   = []byte("\x07invalid\x00")
	onion     = []byte("\x05onion\x00")

	localhost4 = []byte("\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04\x7f\x00\x00\x01")
	localhost6 = []byte("\x00\x1c\x00\x01\x00\x00\x0e\x10\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01")
	// specialSOA lets these denials be kept for an hour.
	specialSOA = []byte("\x00\x06\x00\x01\x00\x00\x0e\x10\x00\x16\x00\x00\x00\x00\x00\x01\x00\x00\x0e\x10\x00\x00\x02\x58\x00\x01\x51\x80\x00\x00\x0e\x10")
)

// special answers a question for such a name. ok is false for all others.
func special(q *query, out []byte, limit int, flags uint16) (n, rcode int, ok bool) {
	name := q.name[:q.nameLen]
	at := 0
	for name[at] != 0 && name[at+1+int(name[at])] != 0 {
		at += 1 + int(name[at])
	}
	top := name[at:]
	isLocal := bytes.Equal(top, localhost)
	if !isLocal && !bytes.Equal(top, invalid) && !bytes.Equal(top, onion) {
		return 0, 0, false
	}
	r := newReply(q, out, limit)
	r.flags = flags
	switch {
	case isLocal && q.qtype == dns.TypeA:
		r.an += one(r.record(ownerPointer, localhost4))
	case isLocal && q.qtype == dns.TypeAAAA:
		r.an += one(r.record(ownerPointer, localhost6))
	default:
		if !isLocal {
			rcode = dns.RcodeNameError
		}
		r.ns += one(r.record(0xC000|uint16(headerSize+at), specialSOA))
	}
	return r.finish(q, rcode), rcode, true
}

// Names that servers tell their version under, in the class CHAOS.
var versionNames = [][]byte{[]byte("\x07version\x04bind\x00"), []byte("\x07version\x06server\x00")}

// tellVersion answers them when the version is to be told; else they are refused.
func (p *Proxy) tellVersion(q *query, out []byte, limit int) (n int, ok bool) {
	if p.options.Version == "" || q.qclass != dns.ClassCHAOS || q.qtype != dns.TypeTXT {
		return 0, false
	}
	name := q.name[:q.nameLen]
	if !bytes.Equal(name, versionNames[0]) && !bytes.Equal(name, versionNames[1]) {
		return 0, false
	}
	text := p.options.Version[:min(len(p.options.Version), 255)]
	body := []byte{0, byte(dns.TypeTXT), 0, dns.ClassCHAOS, 0, 0, 0, 0}
	body = binary.BigEndian.AppendUint16(body, uint16(1+len(text)))
	body = append(append(body, byte(len(text))), text...)
	r := newReply(q, out, limit)
	r.flags = flagAA
	r.an += one(r.record(ownerPointer, body))
	return r.finish(q, dns.RcodeSuccess), true
}

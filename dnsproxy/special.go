package dnsproxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

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

// topLabel is where a name's last label begins.
func topLabel(name []byte) (at int) {
	for name[at] != 0 && name[at+1+int(name[at])] != 0 {
		at += 1 + int(name[at])
	}
	return at
}

func isSpecial(top []byte) bool {
	return bytes.Equal(top, localhost) || bytes.Equal(top, invalid) || bytes.Equal(top, onion)
}

// special answers a question for such a name. ok is false for all others.
func special(q *query, out []byte, limit int, flags uint16) (n, rcode int, ok bool) {
	name := q.name[:q.nameLen]
	at := topLabel(name)
	if !isSpecial(name[at:]) {
		return 0, 0, false
	}
	isLocal := bytes.Equal(name[at:], localhost)
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

// emptyZones are the reverse zones that nobody outside can say anything of (RFC
// 6303, 4), on the wire.
var emptyZones = func() map[string]bool {
	zones := map[string]bool{}
	v4 := []string{"10", "168.192", "0", "127", "254.169", "2.0.192", "100.51.198", "113.0.203", "255.255.255.255"}
	for i := 16; i < 32; i++ {
		v4 = append(v4, fmt.Sprint(i, ".172"))
	}
	for _, name := range v4 {
		zones[mustWire(name+".in-addr.arpa")] = true
	}
	zero := strings.Repeat("0.", 31)
	for _, name := range []string{"0." + zero, "1." + zero, "d.f.", "8.e.f.", "9.e.f.", "a.e.f.", "b.e.f.", "8.b.d.0.1.0.0.2."} {
		zones[mustWire(name+"ip6.arpa")] = true
	}
	return zones
}()

func mustWire(name string) string {
	wire, err := wireName(name)
	if err != nil {
		panic(err)
	}
	return wire
}

// emptyZone denies a name in one of them. ok is false for all others.
func emptyZone(q *query, out []byte, limit int, flags uint16) (n, rcode int, ok bool) {
	name := q.name[:q.nameLen]
	if !isReverse(text(name)) {
		return 0, 0, false
	}
	for at := 0; name[at] != 0; at += 1 + int(name[at]) {
		if emptyZones[text(name[at:])] {
			r := newReply(q, out, limit)
			r.flags = flags
			r.ns += one(r.record(0xC000|uint16(headerSize+at), specialSOA))
			rcode := dns.RcodeNameError
			if at == 0 { // the zone itself is there
				rcode = dns.RcodeSuccess
			}
			return r.finish(q, rcode), rcode, true
		}
	}
	return 0, 0, false
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

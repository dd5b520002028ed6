package dnsproxy

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// Sizes of messages and their parts, in bytes.
const (
	headerSize = 12
	optSize    = 11   // an OPT record without options
	plainSize  = 512  // the limit over UDP without EDNS (RFC 1035, 4.2.1)
	udpSize    = 1232 // our limit over UDP: no fragments on any path with IPv6's minimum MTU
	tcpSize    = 65535
	maxName    = 255 // a name on the wire, its root label included (RFC 1035, 2.3.4)
	maxLabel   = 63
)

// Bits of the header's second word.
const (
	flagQR     = 1 << 15
	flagAA     = 1 << 10
	flagTC     = 1 << 9
	flagRD     = 1 << 8
	flagRA     = 1 << 7
	flagAD     = 1 << 5
	flagCD     = 1 << 4
	opcodeMask = 0xF << 11
	flagDO     = 1 << 15 // in the TTL of an OPT record
)

// ownerPointer is a compression pointer to the question's name.
const ownerPointer = 0xC000 | headerSize

// query is one parsed question. It keeps no memory of its own beyond its
// arrays, so that a socket's loop reuses one for every packet.
type query struct {
	raw         []byte // the packet; valid as long as the caller's buffer
	id, flags   uint16
	questionEnd int // offset behind the question; headerSize when there is none to echo
	qtype       uint16
	qclass      uint16

	nameLen int
	// name is the question's name in lower case, on the wire, followed by
	// the rest of the cache's key (see key).
	name [maxName + 3]byte

	edns    bool
	do      bool
	version uint8
	size    uint16 // the client's limit over UDP, of its OPT record

	// ahead is set with an answer from the cache that shall be fetched anew.
	ahead bool
	// apexLen is the length of the suffix that was renamed; 0 for none.
	apexLen int
	// wants are the options that the client sent; options and ede (a reason's
	// code, plus one) are those of the answer.
	wants   uint8
	options []byte
	ede     uint16
	// zone is the table's zone that answered, plus one; 0 for none.
	zone uint8
}

// dropped is parse's result for a packet that gets no answer at all.
const dropped = -1

// parse reads a packet. Its result is dropped, an RCODE to answer with, or
// NOERROR when the question can be looked up. Whatever is long enough to have
// an id and is no response gets an answer (RFC 8906).
func (q *query) parse(pkt []byte) int {
	if len(pkt) < headerSize {
		return dropped
	}
	q.raw, q.id, q.flags = pkt, binary.BigEndian.Uint16(pkt), binary.BigEndian.Uint16(pkt[2:])
	q.questionEnd, q.nameLen, q.edns, q.do, q.version, q.size = headerSize, 0, false, false, 0, 0
	q.qtype, q.qclass, q.ahead, q.apexLen, q.zone = 0, 0, false, 0, 0
	q.wants, q.options, q.ede = 0, nil, 0
	if q.flags&flagQR != 0 {
		return dropped // answering a response may start an endless exchange
	}
	counts := binary.BigEndian.Uint64(pkt[4:])
	parsed := counts>>48 == 1 && q.parseQuestion()
	if q.flags&opcodeMask != 0 {
		return dns.RcodeNotImplemented
	}
	// A query has one question and neither answers nor authority. Servers
	// disagree on what other counts mean, and guessing has cost others.
	if !parsed || counts>>16&0xFFFFFFFF != 0 || !q.parseAdditional(int(counts&0xFFFF)) {
		return dns.RcodeFormatError
	}
	switch {
	case q.version != 0:
		return dns.RcodeBadVers
	case q.qclass != dns.ClassINET:
		return dns.RcodeRefused
	case q.qtype == dns.TypeOPT:
		return dns.RcodeFormatError
	case q.qtype >= 128 && q.qtype < dns.TypeIXFR || q.qtype > dns.TypeAXFR && q.qtype < dns.TypeANY:
		// The types that only exist in questions, but for transfers.
		return dns.RcodeNotImplemented
	}
	return dns.RcodeSuccess
}

// parseQuestion copies the name in lower case. A compression pointer is
// refused: nothing stands before the question that it could rightly point to.
func (q *query) parseQuestion() bool {
	pkt, at := q.raw, headerSize
	for {
		if at >= len(pkt) {
			return false
		}
		length := int(pkt[at])
		if length > maxLabel {
			return false
		}
		at += 1 + length
		if at-headerSize > maxName || at+4 > len(pkt) {
			return false
		}
		if length == 0 {
			break
		}
	}
	q.nameLen = at - headerSize
	lowerAll(&q.name, pkt[headerSize:], q.nameLen)
	q.qtype, q.qclass = binary.BigEndian.Uint16(pkt[at:]), binary.BigEndian.Uint16(pkt[at+2:])
	q.questionEnd = at + 4
	return true
}

// lowerAll copies a name of n bytes from where it begins, with its letters in
// lower case, eight bytes at a time. The lengths of labels stay: they are below
// every letter.
func lowerAll(name *[maxName + 3]byte, from []byte, n int) {
	const every = 0x0101010101010101
	i := 0
	for ; i < n && i+8 <= len(from); i += 8 {
		w := binary.LittleEndian.Uint64(from[i : i+8])
		low := w & (0x7F * every)
		least, beyond := low+(0x80-'A')*every, low+(0x7F-'Z')*every // bit 7: at least A, beyond Z
		binary.LittleEndian.PutUint64(name[i:i+8], w|^w&(least^beyond)&(0x80*every)>>2)
	}
	for ; i < n; i++ {
		name[i] = lower(from[i])
	}
}

// parseAdditional looks for an OPT record among the additional ones, which are
// well formed or the whole query is not.
func (q *query) parseAdditional(count int) bool {
	pkt, at := q.raw, q.questionEnd
	for range count {
		start := at
		if at = skipName(pkt, at); at < 0 || at+10 > len(pkt) {
			return false
		}
		rtype, length := binary.BigEndian.Uint16(pkt[at:]), int(binary.BigEndian.Uint16(pkt[at+8:]))
		if at+10+length > len(pkt) {
			return false
		}
		if rtype == dns.TypeOPT {
			if q.edns || pkt[start] != 0 || !q.readOptions(pkt[at+10:at+10+length]) {
				return false // a second OPT, one with a name (RFC 6891, 6.1.1), or a torn one
			}
			q.edns, q.size, q.version = true, binary.BigEndian.Uint16(pkt[at+2:]), pkt[at+5]
			q.do = binary.BigEndian.Uint16(pkt[at+6:])&flagDO != 0
		}
		at += 10 + length
	}
	return true
}

// skipName gives the offset behind the name at an offset, or -1. It follows no
// pointer, so a loop of pointers costs nothing.
func skipName(pkt []byte, at int) int {
	for at < len(pkt) {
		switch length := int(pkt[at]); {
		case length == 0:
			return at + 1
		case length&0xC0 == 0xC0:
			if at+2 > len(pkt) {
				return -1
			}
			return at + 2
		case length > maxLabel:
			return -1
		default:
			at += 1 + length
		}
	}
	return -1
}

// limit is the size that the answer may have over UDP.
func (q *query) limit() int {
	if !q.edns {
		return plainSize
	}
	return min(max(int(q.size), plainSize), udpSize)
}

// key is what the cache knows the question by: name, type, and the bits that
// change an upstream's answer.
func (q *query) key() []byte {
	key := q.name[:q.nameLen+3]
	binary.BigEndian.PutUint16(key[q.nameLen:], q.qtype)
	var bits byte
	if q.do {
		bits |= 1
	}
	if q.flags&flagCD != 0 {
		bits |= 2
	}
	if q.flags&flagAD != 0 {
		bits |= 4
	}
	key[q.nameLen+2] = bits
	return key
}

// denialKey is what the cache knows the denial of the question's name by. Its
// tail from any label on is the key of the name that begins there.
func (q *query) denialKey() []byte {
	key := q.key()
	key[q.nameLen], key[q.nameLen+1] = 0, 0
	key[q.nameLen+2] |= denialBit
	return key
}

// denialBit tells a denial's key from that of a question for the type 0.
const denialBit = 8

// detach makes the query independent of the buffer that it was read into.
func (q *query) detach() {
	q.raw = append([]byte(nil), q.raw[:q.questionEnd]...)
}

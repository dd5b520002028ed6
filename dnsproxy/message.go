package dnsproxy

import (
	"encoding/binary"
	"errors"

	"github.com/miekg/dns"
)

// errBroken is a message that no client shall see.
var errBroken = errors.New("read the reply: it is malformed")

// readName copies the name at an offset into name: in lower case, with the
// pointers followed. It gives the name's length and the offset behind it, or a
// length of 0 for what is no name. Each pointer must lead further back than all
// before it, so there is an end to them.
func readName(msg []byte, at int, name *[maxName]byte) (n, next int) {
	bound := at
	for at < len(msg) {
		length := int(msg[at])
		switch {
		case length&0xC0 == 0xC0:
			if at+2 > len(msg) {
				return 0, 0
			}
			if next == 0 {
				next = at + 2
			}
			at = (length&0x3F)<<8 | int(msg[at+1])
			if at >= bound || at < headerSize {
				return 0, 0
			}
			bound = at
			continue
		case length > maxLabel || n+1+length >= maxName && length > 0 || at+1+length > len(msg):
			return 0, 0
		}
		name[n] = byte(length)
		for i, c := range msg[at+1 : at+1+length] {
			name[n+1+i] = lower(c)
		}
		n += 1 + length
		at += 1 + length
		if length == 0 {
			if next == 0 {
				next = at
			}
			return n, next
		}
	}
	return 0, 0
}

func lower(c byte) byte {
	if c-'A' < 26 {
		return c + 'a' - 'A'
	}
	return c
}

// resource is where a record of a message lies.
type resource struct {
	owner, body int // of the owner's name, and of the type behind it
	rtype       uint16
	ttl         uint32
	data, end   int
}

// readResource reads the record at an offset and its owner's name. It also
// checks the names in the data of the types that may have compressed ones
// (RFC 3597, 4), since those bytes go on to clients. Data of unknown types is
// opaque.
func readResource(msg []byte, at int, owner *[maxName]byte) (r resource, nameLen int, err error) {
	nameLen, next := readName(msg, at, owner)
	if nameLen == 0 || next+10 > len(msg) {
		return r, 0, errBroken
	}
	r = resource{owner: at, body: next, rtype: binary.BigEndian.Uint16(msg[next:]), ttl: binary.BigEndian.Uint32(msg[next+4:]), data: next + 10}
	r.end = r.data + int(binary.BigEndian.Uint16(msg[next+8:]))
	if r.end > len(msg) || !dataFits(msg[:r.end], r.data, r.rtype) {
		return r, 0, errBroken
	}
	if r.ttl > 1<<31-1 {
		r.ttl = 0 // RFC 2181, 8
	}
	return r, nameLen, nil
}

// dataFits checks the shape of a record's data, which ends where msg does.
func dataFits(msg []byte, at int, rtype uint16) bool {
	size := len(msg) - at
	before, names, behind := 0, 1, 0
	switch rtype {
	case dns.TypeA:
		return size == 4
	case dns.TypeAAAA:
		return size == 16
	case dns.TypeNS, dns.TypeCNAME, dns.TypePTR, dns.TypeDNAME, dns.TypeMB, dns.TypeMD, dns.TypeMF, dns.TypeMG, dns.TypeMR:
	case dns.TypeMX, dns.TypeKX, dns.TypeRT, dns.TypeAFSDB:
		before = 2
	case dns.TypeSRV:
		before = 6
	case dns.TypeSOA:
		names, behind = 2, 20
	case dns.TypeRP, dns.TypeMINFO:
		names = 2
	case dns.TypePX:
		before, names = 2, 2
	default:
		return true
	}
	var name [maxName]byte
	if at += before; at > len(msg) {
		return false
	}
	for range names {
		n, next := readName(msg, at, &name)
		if n == 0 {
			return false
		}
		at = next
	}
	return at+behind == len(msg)
}

// appendExpanded appends a record without any pointer, so that its bytes mean
// the same behind every question. Only the SOA has names to expand in what we
// use it for; it is read already, so nothing fails.
func appendExpanded(to, msg []byte, r resource) []byte {
	var name [maxName]byte
	n, _ := readName(msg, r.owner, &name)
	to = append(to, name[:n]...)
	to = append(to, msg[r.body:r.data]...)
	length := len(to) - 2
	at := r.data
	for range 2 {
		n, at = readName(msg, at, &name)
		to = append(to, name[:n]...)
	}
	to = append(to, msg[at:r.end]...)
	binary.BigEndian.PutUint16(to[length:], uint16(len(to)-length-2))
	return to
}

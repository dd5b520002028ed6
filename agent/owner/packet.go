package owner

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// protocol is VRRP's number in IP headers.
const protocol = 112

// hops is the TTL of every advertisement: one that has less came through a
// router, so from outside of the segment (RFC 5082).
const hops = 255

// Where advertisements go.
var (
	group4 = netip.MustParseAddr("224.0.0.18")
	group6 = netip.MustParseAddr("ff02::12")
)

// centisecond is the unit of intervals in packets, which have 12 bits for them.
const (
	centisecond = 10 * time.Millisecond
	maxWire     = 1<<12 - 1
)

const headerLen = 8

// maxAddresses that are told in one packet; it must fit into 1280 bytes, what
// every IPv6 link carries. Those beyond are in the group all the same.
const maxAddresses = 70

// packet is a VRRP advertisement.
type packet struct {
	VRID      uint8
	Priority  uint8
	Interval  time.Duration // in centiseconds, up to 40.95 s
	Addresses []netip.Addr  // of one family
}

// Fault is why a packet was ignored.
type Fault string

// The faults.
const (
	BadTTL      Fault = "ttl"      // not 255: it came through a router
	BadLength   Fault = "length"   // shorter than it says
	BadVersion  Fault = "version"  // not VRRP version 3, or not an advertisement
	BadChecksum Fault = "checksum" //
	BadInterval Fault = "interval" // zero
	OtherGroup  Fault = "vrid"     // of another group
	OwnPacket   Fault = "own"      // from this node's own address
)

// encode makes the payload of an IP packet from source to the group's
// multicast address.
func (p packet) encode(source, destination netip.Addr) []byte {
	told := p.Addresses[:min(len(p.Addresses), maxAddresses)]
	b := make([]byte, headerLen, headerLen+16*len(told))
	b[0] = 3<<4 | 1
	b[1], b[2], b[3] = p.VRID, p.Priority, byte(len(told))
	binary.BigEndian.PutUint16(b[4:], uint16(min(p.Interval/centisecond, maxWire)))
	for _, a := range told {
		b = append(b, a.AsSlice()...)
	}
	binary.BigEndian.PutUint16(b[6:], ^fold(sum(b)+pseudoHeader(source, destination, len(b))))
	return b
}

// decode reads the payload of an IP packet; the fault is empty when it is an
// advertisement.
func decode(b []byte, source, destination netip.Addr) (packet, Fault) {
	if len(b) < headerLen {
		return packet{}, BadLength
	}
	if b[0] != 3<<4|1 {
		return packet{}, BadVersion
	}
	size := len(source.AsSlice())
	if len(b) != headerLen+size*int(b[3]) {
		return packet{}, BadLength
	}
	// RFC 5798 left open whether IPv4 has a pseudo header in the sum; routers of
	// both readings are about. RFC 9568 and we send with it.
	plain := fold(sum(b))
	if fold(uint32(plain)+pseudoHeader(source, destination, len(b))) != 0xffff && (source.Is6() || plain != 0xffff) {
		return packet{}, BadChecksum
	}
	p := packet{VRID: b[1], Priority: b[2], Interval: time.Duration(binary.BigEndian.Uint16(b[4:])&maxWire) * centisecond}
	if p.Interval == 0 {
		return packet{}, BadInterval
	}
	for rest := b[headerLen:]; len(rest) > 0; rest = rest[size:] {
		a, _ := netip.AddrFromSlice(rest[:size])
		p.Addresses = append(p.Addresses, a)
	}
	return p, ""
}

// pseudoHeader is the sum of the addresses, the length and the protocol.
func pseudoHeader(source, destination netip.Addr, length int) uint32 {
	return sum(source.AsSlice()) + sum(destination.AsSlice()) + uint32(length) + protocol
}

func sum(b []byte) (s uint32) {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

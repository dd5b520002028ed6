package health

import (
	"encoding/binary"
	"net/netip"
)

const (
	// guePort is dataplane.GUEPort, where the tunnel's format is told.
	guePort = 6080

	protocolIPv4 = 4 // in a tunnel
	protocolTCP  = 6
	protocolIPv6 = 41

	ipv4Len = 20
	ipv6Len = 40
	tcpLen  = 20
	mssLen  = 4
	// maxTunnelled is the longest that is sent: GUE, IPv6, TCP and its option.
	maxTunnelled = 8 + 16 + ipv6Len + tcpLen + mssLen

	flagSYN, flagRST, flagACK = 0x02, 0x04, 0x10

	// mss in a SYN is what every IPv6 path carries (RFC 8200); nothing that
	// large is ever sent.
	mss = 1220
)

// segment is a TCP segment without data.
type segment struct {
	from, to netip.AddrPort
	seq, ack uint32
	flags    byte
	damaged  bool // of one that was read: a checksum is wrong
}

// appendGUE appends the tunnel's header behind UDP, for packets to the backend.
func appendGUE(b []byte, backend netip.AddrPort) []byte {
	words, protocol := byte(2), byte(protocolIPv4)
	if backend.Addr().Is6() {
		words, protocol = 5, protocolIPv6
	}
	b = append(b, words, protocol, 0, 0)
	b = binary.BigEndian.AppendUint16(b, backend.Port())
	return append(append(b, 0, 0), backend.Addr().AsSlice()...)
}

// appendSegment appends an IP packet with the segment, both of one family.
func appendSegment(b []byte, s segment) []byte {
	options := 0
	if s.flags&flagSYN != 0 {
		options = mssLen
	}
	source, destination := s.from.Addr().AsSlice(), s.to.Addr().AsSlice()
	at := len(b)
	if s.from.Addr().Is4() {
		b = append(b, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocolTCP, 0, 0) // may not be fragmented, hop limit 64
		binary.BigEndian.PutUint16(b[at+2:], uint16(ipv4Len+tcpLen+options))
		b = append(append(b, source...), destination...)
		binary.BigEndian.PutUint16(b[at+10:], ^fold(sum(0, b[at:])))
	} else {
		b = append(b, 0x60, 0, 0, 0, 0, byte(tcpLen+options), protocolTCP, 64)
		b = append(append(b, source...), destination...)
	}
	at = len(b)
	b = binary.BigEndian.AppendUint16(b, s.from.Port())
	b = binary.BigEndian.AppendUint16(b, s.to.Port())
	b = binary.BigEndian.AppendUint32(b, s.seq)
	b = binary.BigEndian.AppendUint32(b, s.ack)
	b = append(b, byte(tcpLen+options)<<2, s.flags, 0xff, 0xff, 0, 0, 0, 0) // window, checksum, urgent
	if options > 0 {
		b = append(b, 2, mssLen, mss>>8, mss&0xff)
	}
	binary.BigEndian.PutUint16(b[at+16:], ^fold(sumTCP(source, destination, b[at:])))
	return b
}

// readSegment reads an IP packet as the kernel has received it. Without summed
// the sender was on this machine and left the TCP checksum to the hardware.
// IPv6 extension headers are not looked behind, since a TCP that answers a SYN
// sends none.
func readSegment(b []byte, v6, summed bool) (s segment, ok bool) {
	var source, destination, tcp []byte
	switch {
	case !v6 && len(b) >= ipv4Len && b[0]>>4 == 4 && b[9] == protocolTCP:
		header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		if header < ipv4Len || total < header || total > len(b) || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return s, false // cut short, or a fragment
		}
		s.damaged = fold(sum(0, b[:header])) != 0xffff
		source, destination, tcp = b[12:16], b[16:20], b[header:total]
	case v6 && len(b) >= ipv6Len && b[0]>>4 == 6 && b[6] == protocolTCP:
		total := ipv6Len + int(binary.BigEndian.Uint16(b[4:]))
		if total > len(b) {
			return s, false
		}
		source, destination, tcp = b[8:24], b[24:40], b[ipv6Len:total]
	}
	if len(tcp) < tcpLen {
		return s, false
	}
	s.damaged = s.damaged || summed && fold(sumTCP(source, destination, tcp)) != 0xffff
	from, _ := netip.AddrFromSlice(source)
	to, _ := netip.AddrFromSlice(destination)
	s.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(tcp))
	s.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(tcp[2:]))
	s.seq, s.ack, s.flags = binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint32(tcp[8:]), tcp[13]
	return s, true
}

// sumTCP adds the pseudo-header, which is the same for both families but for the
// addresses (RFC 9293 section 3.1, RFC 8200 section 8.1).
func sumTCP(source, destination, tcp []byte) uint32 {
	return sum(sum(sum(uint32(protocolTCP+len(tcp)), source), destination), tcp)
}

// sum adds words of two bytes; an odd last byte is the upper half of its word.
func sum(total uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		total += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		total += uint32(b[0]) << 8
	}
	return total
}

// fold adds the carries of a sum (RFC 1071).
func fold(total uint32) uint16 {
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}

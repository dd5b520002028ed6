package link

import (
	"encoding/binary"
	"net/netip"
)

// Types of ICMPv6 messages (RFC 4861).
const (
	ndpSolicitation  = 135
	ndpAdvertisement = 136
)

// Flags of an advertisement. The router flag stays clear: a virtual address
// routes nothing.
const (
	ndpSolicited = 0x40
	ndpOverride  = 0x20
)

// Options of neighbour discovery.
const (
	ndpSourceLink = 1
	ndpTargetLink = 2
)

const (
	ipv6Len   = 40
	ndpLen    = 24 // without options
	icmpv6    = 58
	ndpHops   = 255 // whoever sends less is not on the link
	optionLen = 8   // of an option with an Ethernet address
)

var allNodes = netip.MustParseAddr("ff02::1")

// ndpMessage is a neighbour solicitation or advertisement.
type ndpMessage struct {
	Type                uint8
	Flags               uint8
	Source, Destination netip.Addr
	Target              netip.Addr
	// Link is what the source (of a solicitation) or the target (of an
	// advertisement) says its Ethernet address is, if HasLink.
	Link    MAC
	HasLink bool
}

// frame is the message in an Ethernet frame.
func (m ndpMessage) frame(destination, source MAC) []byte {
	n := ndpLen
	if m.HasLink {
		n += optionLen
	}
	b := etherFrame(destination, source, etherIPv6, ipv6Len+n)
	h := b[etherLen:]
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], uint16(n))
	h[6], h[7] = icmpv6, ndpHops
	copy(h[8:], m.Source.AsSlice())
	copy(h[24:], m.Destination.AsSlice())
	p := h[ipv6Len:]
	p[0], p[4] = m.Type, m.Flags
	copy(p[8:], m.Target.AsSlice())
	if m.HasLink {
		p[24], p[25] = ndpTargetLink, 1
		if m.Type == ndpSolicitation {
			p[24] = ndpSourceLink
		}
		copy(p[26:], m.Link[:])
	}
	binary.BigEndian.PutUint16(p[2:], icmpv6Checksum(m.Source, m.Destination, p))
	return b
}

// parseNDP reads an Ethernet frame; it is false unless it holds a neighbour
// solicitation or advertisement that is valid by RFC 4861 sections 7.1.1 and
// 7.1.2.
func parseNDP(frame []byte) (m ndpMessage, ok bool) {
	if len(frame) < etherLen+ipv6Len+ndpLen || binary.BigEndian.Uint16(frame[12:]) != etherIPv6 {
		return m, false
	}
	h := frame[etherLen:]
	n := int(binary.BigEndian.Uint16(h[4:]))
	if h[0]>>4 != 6 || h[6] != icmpv6 || h[7] != ndpHops || n < ndpLen || n > len(h)-ipv6Len {
		return m, false
	}
	p := h[ipv6Len : ipv6Len+n]
	m = ndpMessage{
		Type: p[0], Flags: p[4],
		Source: netip.AddrFrom16([16]byte(h[8:24])), Destination: netip.AddrFrom16([16]byte(h[24:40])),
		Target: netip.AddrFrom16([16]byte(p[8:24])),
	}
	if m.Type != ndpSolicitation && m.Type != ndpAdvertisement || p[1] != 0 || m.Target.IsMulticast() || m.Source.IsMulticast() {
		return m, false
	}
	// A sum over what includes the sum is zero.
	if icmpv6Checksum(m.Source, m.Destination, p) != 0 {
		return m, false
	}
	if !m.options(p[ndpLen:]) {
		return m, false
	}
	if m.Type == ndpSolicitation && m.Source.IsUnspecified() && (m.HasLink || m.Destination != solicitedNode(m.Target)) {
		return m, false
	}
	if m.Type == ndpAdvertisement && m.Destination.IsMulticast() && m.Flags&ndpSolicited != 0 {
		return m, false
	}
	return m, true
}

// options reads the options, and is false when one has no length or too much.
func (m *ndpMessage) options(o []byte) bool {
	wanted := byte(ndpTargetLink)
	if m.Type == ndpSolicitation {
		wanted = ndpSourceLink
	}
	for len(o) > 0 {
		if len(o) < 2 || o[1] == 0 || int(o[1])*8 > len(o) {
			return false
		}
		if o[0] == wanted && o[1] == 1 {
			m.Link, m.HasLink = MAC(o[2:8]), true
		}
		o = o[int(o[1])*8:]
	}
	return true
}

// icmpv6Checksum is that of the message p, by RFC 4443.
func icmpv6Checksum(source, destination netip.Addr, p []byte) uint16 {
	var sum uint32
	add := func(b []byte) {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	s, d := source.As16(), destination.As16()
	add(s[:])
	add(d[:])
	add(p)
	sum += uint32(len(p)) + icmpv6
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// solicitedNode is the group that hosts with the address a listen to.
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// multicastMAC is where frames for an IPv6 group go (RFC 2464).
func multicastMAC(group netip.Addr) MAC {
	b := group.As16()
	return MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// ndpAnnouncement tells every host of the segment that addr is at mac.
func ndpAnnouncement(addr netip.Addr, mac MAC) []byte {
	m := ndpMessage{Type: ndpAdvertisement, Flags: ndpOverride, Source: addr, Destination: allNodes, Target: addr, Link: mac, HasLink: true}
	return m.frame(multicastMAC(allNodes), mac)
}

// ndpProbe asks who has addr and leaves every cache as it is (RFC 4862).
func ndpProbe(addr netip.Addr, mac MAC) []byte {
	group := solicitedNode(addr)
	m := ndpMessage{Type: ndpSolicitation, Source: netip.IPv6Unspecified(), Destination: group, Target: addr}
	return m.frame(multicastMAC(group), mac)
}

// ndpAnswer answers the solicitation s, which came from the Ethernet address
// asker, for an address that mac has. Its source is the virtual address itself,
// since nothing says that the interface has another of the same scope.
func ndpAnswer(s ndpMessage, asker, mac MAC) []byte {
	m := ndpMessage{Type: ndpAdvertisement, Flags: ndpOverride, Source: s.Target, Target: s.Target, Link: mac, HasLink: true}
	if s.Source.IsUnspecified() { // it checks whether it may take the address
		m.Destination = allNodes
		return m.frame(multicastMAC(allNodes), mac)
	}
	m.Destination = s.Source
	m.Flags |= ndpSolicited
	if s.HasLink {
		asker = s.Link
	}
	return m.frame(asker, mac)
}

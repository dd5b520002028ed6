package edge

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
)

// Protocol numbers and sizes on the wire.
const (
	tcp, udp, icmp4, icmp6 = 6, 17, 1, 58
	fin, syn, rst, ack     = 1, 2, 4, 16
)

var (
	clientMAC = [6]byte{2, 0, 0, 0, 0, 1}
	edgeMAC   = [6]byte{2, 0, 0, 0, 0, 2}
	hopMAC    = [6]byte{2, 0, 0, 0, 0, 3}
)

// frame is what a packet is built from. The zero values are what most packets have.
type frame struct {
	src, dst   netip.AddrPort
	protocol   uint8
	flags      uint8 // TCP; ACK when zero
	payload    []byte
	tags       []uint16
	options    []byte // IPv4, or IPv6 extension headers, whose first is extension
	extension  uint8
	id         uint32
	fragment   uint16 // IPv4: flags and offset; IPv6: offset and flag
	isFragment bool   // IPv6: there is a fragment header
	later      bool   // no transport header: payload is what follows
	class      uint8
	icmpType   uint8
	icmpCode   uint8
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func sum(data []byte, start uint32) uint16 {
	s := start
	for i := 0; i+1 < len(data); i += 2 {
		s += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	if len(data)%2 == 1 {
		s += uint32(data[len(data)-1]) << 8
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

func pseudo(src, dst netip.Addr, protocol uint8, length int) uint32 {
	return uint32(sum(src.AsSlice(), 0)) + uint32(sum(dst.AsSlice(), 0)) + uint32(protocol) + uint32(length)
}

// transport builds the header with its checksum, and the payload.
func (f frame) transport() []byte {
	var h []byte
	at := 16
	switch f.protocol {
	case tcp:
		flags := f.flags
		if flags == 0 {
			flags = ack
		}
		h = make([]byte, 20)
		binary.BigEndian.PutUint32(h[4:], 1000)
		binary.BigEndian.PutUint32(h[8:], 2000)
		h[12], h[13] = 0x50, flags
	case udp:
		h, at = make([]byte, 8), 6
		binary.BigEndian.PutUint16(h[4:], uint16(8+len(f.payload)))
	case icmp4, icmp6:
		h, at = make([]byte, 8), 2
		h[0], h[1] = f.icmpType, f.icmpCode
	default:
		return f.payload
	}
	if f.protocol == tcp || f.protocol == udp {
		binary.BigEndian.PutUint16(h, f.src.Port())
		binary.BigEndian.PutUint16(h[2:], f.dst.Port())
	}
	h = append(h, f.payload...)
	start := pseudo(f.src.Addr(), f.dst.Addr(), f.protocol, len(h))
	if f.protocol == icmp4 {
		start = 0
	}
	binary.BigEndian.PutUint16(h[at:], ^sum(h, start))
	return h
}

// ip builds the packet from its IP header on.
func (f frame) ip() []byte {
	body := f.payload
	if !f.later {
		body = f.transport()
	}
	if f.src.Addr().Is4() {
		h := make([]byte, 20, 20+len(f.options)+len(body))
		h[0], h[1], h[8], h[9] = byte(0x45+len(f.options)/4), f.class, 64, f.protocol
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(f.options)+len(body)))
		binary.BigEndian.PutUint16(h[4:], uint16(f.id))
		binary.BigEndian.PutUint16(h[6:], f.fragment)
		copy(h[12:], f.src.Addr().AsSlice())
		copy(h[16:], f.dst.Addr().AsSlice())
		h = append(h, f.options...)
		binary.BigEndian.PutUint16(h[10:], ^sum(h, 0))
		return append(h, body...)
	}
	next, extensions := f.protocol, slices.Clone(f.options)
	if len(extensions) > 0 {
		next = f.extension
	}
	if f.isFragment {
		extensions = append([]byte{next, 0, 0, 0, 0, 0, 0, 0}, extensions...)
		binary.BigEndian.PutUint16(extensions[2:], f.fragment)
		binary.BigEndian.PutUint32(extensions[4:], f.id)
		next = 44
	}
	h := make([]byte, 40)
	h[0], h[1], h[6], h[7] = 0x60|f.class>>4, f.class<<4, next, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(extensions)+len(body)))
	copy(h[8:], f.src.Addr().AsSlice())
	copy(h[24:], f.dst.Addr().AsSlice())
	return append(append(h, extensions...), body...)
}

// ethernet builds the whole frame.
func (f frame) ethernet() []byte {
	e := append(slices.Clone(edgeMAC[:]), clientMAC[:]...)
	for i, tag := range f.tags {
		kind := uint16(0x8100)
		if i == 0 && len(f.tags) > 1 {
			kind = 0x88a8
		}
		e = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(e, kind), tag)
	}
	kind := uint16(0x0800)
	if f.src.Addr().Is6() {
		kind = 0x86dd
	}
	return append(binary.BigEndian.AppendUint16(e, kind), f.ip()...)
}

// tunnel is what a tunnel's frame says.
type tunnel struct {
	destination, source [6]byte
	tag                 uint16
	src, dst            netip.Addr
	class               uint8
	port                uint16 // outer UDP source; 0: no GUE
	backend             netip.AddrPort
	inner               []byte
}

// openTunnel takes a frame apart and judges every field of its outer headers.
func openTunnel(t *testing.T, raw []byte) (o tunnel) {
	t.Helper()
	if len(raw) < 34 {
		t.Fatalf("frame of %d bytes", len(raw))
	}
	o.destination, o.source = [6]byte(raw), [6]byte(raw[6:])
	kind, rest := binary.BigEndian.Uint16(raw[12:]), raw[14:]
	if kind == 0x8100 {
		o.tag, kind, rest = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	var protocol uint8
	switch kind {
	case 0x0800:
		length := int(binary.BigEndian.Uint16(rest[2:]))
		if rest[0] != 0x45 || length > len(rest) || sum(rest[:20], 0) != 0xffff || rest[8] != 64 {
			t.Fatalf("outer IPv4 header % x of %d bytes", rest[:20], len(rest))
		}
		o.src, o.dst = netip.AddrFrom4([4]byte(rest[12:])), netip.AddrFrom4([4]byte(rest[16:]))
		o.class, protocol, rest = rest[1], rest[9], rest[20:length]
	case 0x86dd:
		length := 40 + int(binary.BigEndian.Uint16(rest[4:]))
		if rest[0]>>4 != 6 || length > len(rest) || rest[7] != 64 {
			t.Fatalf("outer IPv6 header % x of %d bytes", rest[:40], len(rest))
		}
		o.src, o.dst = netip.AddrFrom16([16]byte(rest[8:])), netip.AddrFrom16([16]byte(rest[24:]))
		o.class, protocol, rest = rest[0]<<4|rest[1]>>4, rest[6], rest[40:length]
	default:
		t.Fatalf("outer ethertype %04x", kind)
	}
	if protocol == udp {
		protocol, rest = o.openGUE(t, rest)
	}
	if want := map[byte]uint8{4: 4, 6: 41}[rest[0]>>4]; protocol != want {
		t.Fatalf("protocol %d carries IPv%d", protocol, rest[0]>>4)
	}
	o.inner = rest
	return o
}

func (o *tunnel) openGUE(t *testing.T, rest []byte) (uint8, []byte) {
	t.Helper()
	o.port = binary.BigEndian.Uint16(rest)
	if binary.BigEndian.Uint16(rest[2:]) != 6080 || int(binary.BigEndian.Uint16(rest[4:])) != len(rest) || binary.BigEndian.Uint16(rest[6:]) != 0 {
		t.Fatalf("outer UDP header % x with %d bytes", rest[:8], len(rest))
	}
	gue := rest[8:]
	port := binary.BigEndian.Uint16(gue[4:])
	switch gue[0] {
	case 2:
		o.backend = netip.AddrPortFrom(netip.AddrFrom4([4]byte(gue[8:])), port)
	case 5:
		o.backend = netip.AddrPortFrom(netip.AddrFrom16([16]byte(gue[8:])), port)
	default:
		t.Fatalf("GUE header % x", gue[:4])
	}
	if binary.BigEndian.Uint16(gue[2:]) != 0 || binary.BigEndian.Uint16(gue[6:]) != 0 {
		t.Fatalf("GUE header % x", gue[:8])
	}
	return gue[1], gue[4+4*int(gue[0]):]
}

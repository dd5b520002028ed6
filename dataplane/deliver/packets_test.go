package deliver

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// packet is one of a client or a backend, to be built.
type packet struct {
	from, to netip.AddrPort
	protocol uint8
	flags    uint8  // of TCP
	options  []byte // of TCP, a multiple of 4 bytes
	payload  []byte
	noSum    bool   // UDP without a checksum
	more     bool   // a first fragment
	later    bool   // a later fragment: payload alone
	id       uint16 // of fragments
	padded   []byte // IPv4 options or an IPv6 destination options header
}

const (
	fin, syn, rst, ack = 1, 2, 4, 16
	ethernet           = 14
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func sum(data ...[]byte) (total uint32) {
	for _, d := range data {
		for i := 0; i+1 < len(d); i += 2 {
			total += uint32(binary.BigEndian.Uint16(d[i:]))
		}
		if len(d)%2 == 1 {
			total += uint32(d[len(d)-1]) << 8
		}
		for total > 0xffff {
			total = total&0xffff + total>>16
		}
	}
	return total
}

// pseudo is what the checksums of transports cover besides.
func pseudo(from, to netip.Addr, protocol uint8, length int) []byte {
	p := append(from.AsSlice(), to.AsSlice()...)
	p = binary.BigEndian.AppendUint32(p, uint32(length))
	return append(p, 0, 0, 0, protocol)
}

// transport builds what IP carries.
func (p packet) transport() []byte {
	if p.later {
		return p.payload
	}
	var b []byte
	b = binary.BigEndian.AppendUint16(b, p.from.Port())
	b = binary.BigEndian.AppendUint16(b, p.to.Port())
	at := 6
	if p.protocol == unix.IPPROTO_TCP {
		b = append(b, 0, 0, 0, 1, 0, 0, 0, 2, byte(5+len(p.options)/4)<<4, p.flags, 0xff, 0xff, 0, 0, 0, 0)
		b = append(b, p.options...)
		at = 16
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(8+len(p.payload)))
		b = append(b, 0, 0)
	}
	b = append(b, p.payload...)
	if !p.noSum {
		check := ^uint16(sum(pseudo(p.from.Addr(), p.to.Addr(), p.protocol, len(b)), b))
		if check == 0 && p.protocol == unix.IPPROTO_UDP {
			check = 0xffff
		}
		binary.BigEndian.PutUint16(b[at:], check)
	}
	return b
}

// ip builds the IP packet.
func (p packet) ip() []byte { return p.around(p.protocol, p.transport()) }

func (p packet) around(protocol uint8, body []byte) []byte {
	if p.from.Addr().Is4() {
		fragment := uint16(0)
		if p.more {
			fragment = 0x2000
		}
		if p.later {
			fragment = 100
		}
		return ip4(p.from.Addr(), p.to.Addr(), protocol, p.id, fragment, p.padded, body)
	}
	if p.more || p.later {
		head := []byte{protocol, 0, 0, 1, 0, 0}
		if p.later {
			head = []byte{protocol, 0, 1, 0, 0, 0}
		}
		body = append(binary.BigEndian.AppendUint16(head, p.id), body...)
		protocol = 44
	}
	if p.padded != nil {
		p.padded[0], protocol = protocol, 60
		body = append(append([]byte{}, p.padded...), body...)
	}
	return ip6(p.from.Addr(), p.to.Addr(), protocol, body)
}

func ip4(from, to netip.Addr, protocol uint8, id, fragment uint16, options, body []byte) []byte {
	h := []byte{byte(0x45 + len(options)/4), 0}
	h = binary.BigEndian.AppendUint16(h, uint16(20+len(options)+len(body)))
	h = binary.BigEndian.AppendUint16(h, id)
	h = binary.BigEndian.AppendUint16(h, fragment)
	h = append(h, 61, protocol, 0, 0)
	h = append(append(append(h, from.AsSlice()...), to.AsSlice()...), options...)
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum(h)))
	return append(h, body...)
}

func ip6(from, to netip.Addr, protocol uint8, body []byte) []byte {
	h := []byte{0x60, 0, 0, 0}
	h = binary.BigEndian.AppendUint16(h, uint16(len(body)))
	h = append(h, protocol, 61)
	return append(append(append(h, from.AsSlice()...), to.AsSlice()...), body...)
}

// frame puts Ethernet before an IP packet.
func frame(ip []byte) []byte {
	f := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}
	if ip[0]>>4 == 6 {
		f[12], f[13] = 0x86, 0xdd
	}
	return append(f, ip...)
}

func (p packet) frame() []byte { return frame(p.ip()) }

// icmp builds an ICMP error that quotes the start of an IP packet.
func icmp(from, to netip.Addr, quoted []byte) []byte {
	if from.Is4() {
		return icmpOf(from, to, 3, 4, quoted)
	}
	return icmpOf(from, to, 2, 0, quoted)
}

func icmpOf(from, to netip.Addr, kind, code byte, quoted []byte) []byte {
	b := append([]byte{kind, code, 0, 0, 0, 0, 5, 0xdc}, quoted...)
	if from.Is4() {
		binary.BigEndian.PutUint16(b[2:], ^uint16(sum(b)))
		return ip4(from, to, 1, 7, 0, nil, b)
	}
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum(pseudo(from, to, 58, len(b)), b)))
	return ip6(from, to, 58, b)
}

// gue builds the tunnel around a client's IP packet.
func gue(edge, node netip.Addr, backend netip.AddrPort, inside []byte) []byte {
	h := []byte{2, 4, 0, 0}
	if backend.Addr().Is6() {
		h = []byte{5, 41, 0, 0}
	}
	h = append(binary.BigEndian.AppendUint16(h, backend.Port()), 0, 0)
	h = append(h, backend.Addr().AsSlice()...)
	return tunnel(edge, node, append(h, inside...))
}

func tunnel(edge, node netip.Addr, body []byte) []byte {
	u := []byte{0xc0, 0x01, 0x17, 0xc0} // from port 49153 to 6080
	u = binary.BigEndian.AppendUint16(u, uint16(8+len(body)))
	u = append(append(u, 0, 0), body...)
	if edge.Is4() {
		return ip4(edge, node, 17, 0, 0x4000, nil, u)
	}
	return ip6(edge, node, 17, u)
}

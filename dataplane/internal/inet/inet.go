// Package inet puts addresses and ports into the form in which packets, and the
// maps of packet programs, hold them. The sinks below dataplane call it.
//
// A number in network order has its bytes in memory as on the wire, so it is
// another number to the CPU; fields that hold one are named Be.
package inet

import (
	"encoding/binary"
	"net/netip"
)

// Words are the four words of an address in network order; an IPv4 address is
// mapped to IPv6 (RFC 4291).
func Words(a netip.Addr) (words [4]uint32) {
	for i, raw := 0, a.As16(); i < len(words); i++ {
		words[i] = binary.NativeEndian.Uint32(raw[4*i:])
	}
	return words
}

// Address is the reverse of Words. An IPv4 address is not mapped any more.
func Address(words [4]uint32) netip.Addr {
	var raw [16]byte
	for i, word := range words {
		binary.NativeEndian.PutUint32(raw[4*i:], word)
	}
	return netip.AddrFrom16(raw).Unmap()
}

// Port turns a port into network order and back.
func Port(port uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, port))
}

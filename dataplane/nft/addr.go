package nft

import (
	"encoding/binary"
	mathbits "math/bits"
	"net/netip"
)

// addr is an address as a number. Unlike netip.Addr it has no pointer: large
// sets are copied often, and the garbage collector need not look into them.
// The zero value is no address.
type addr struct {
	high, low uint64 // low alone for IPv4
	bits      uint8  // 32, 128, or 0 for none
}

func addrOf(a netip.Addr) addr {
	if a.Is4() {
		b := a.As4()
		return addr{low: uint64(binary.BigEndian.Uint32(b[:])), bits: 32}
	}
	b := a.As16()
	return addr{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]), 128}
}

func addrFromSlice(b []byte) (addr, bool) {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return addr{}, false
	}
	return addrOf(a), true
}

// AsSlice is the address in network byte order.
func (a addr) AsSlice() []byte {
	if a.bits == 32 {
		return binary.BigEndian.AppendUint32(nil, uint32(a.low))
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, a.high), a.low)
}

func (a addr) String() string {
	s, _ := netip.AddrFromSlice(a.AsSlice())
	return s.String()
}

func (a addr) IsValid() bool { return a.bits != 0 }

// Compare sorts IPv4 first, and what is none before everything.
func (a addr) Compare(o addr) int {
	switch {
	case a.bits != o.bits:
		return int(a.bits) - int(o.bits)
	case a.high != o.high:
		return sign(a.high, o.high)
	default:
		return sign(a.low, o.low)
	}
}

func sign(a, b uint64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

func (a addr) Less(o addr) bool { return a.Compare(o) < 0 }

// Next is the following address, none after the family's last one.
func (a addr) Next() addr {
	low, carry := mathbits.Add64(a.low, 1, 0)
	high, over := mathbits.Add64(a.high, 0, carry)
	if over != 0 || a.bits == 32 && low>>32 != 0 || a.bits == 0 {
		return addr{}
	}
	return addr{high, low, a.bits}
}

// Prev is the address before, none before the family's first one.
func (a addr) Prev() addr {
	low, borrow := mathbits.Sub64(a.low, 1, 0)
	high, under := mathbits.Sub64(a.high, 0, borrow)
	if under != 0 || a.bits == 0 {
		return addr{}
	}
	return addr{high, low, a.bits}
}

// highest is the last address of the family.
func (a addr) highest() addr {
	if a.bits == 32 {
		return addr{low: 1<<32 - 1, bits: 32}
	}
	return addr{1<<64 - 1, 1<<64 - 1, 128}
}

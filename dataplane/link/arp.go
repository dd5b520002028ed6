package link

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

var broadcastMAC = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Types of Ethernet frames, and the length of the header before them.
const (
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
	etherLen  = 14
)

// Operations of ARP (RFC 826).
const (
	arpRequest = 1
	arpReply   = 2
)

const arpLen = 28

// arpPacket is an ARP packet for IPv4 on Ethernet.
type arpPacket struct {
	Operation uint16
	SenderMAC MAC
	Sender    netip.Addr // 0.0.0.0 in a probe (RFC 5227)
	TargetMAC MAC
	Target    netip.Addr
}

// frame is the packet in an Ethernet frame.
func (p arpPacket) frame(destination MAC) []byte {
	b := etherFrame(destination, p.SenderMAC, etherARP, arpLen)
	a := b[etherLen:]
	binary.BigEndian.PutUint16(a[0:], 1) // hardware: Ethernet
	binary.BigEndian.PutUint16(a[2:], 0x0800)
	a[4], a[5] = 6, 4
	binary.BigEndian.PutUint16(a[6:], p.Operation)
	copy(a[8:], p.SenderMAC[:])
	copy(a[14:], p.Sender.AsSlice())
	copy(a[18:], p.TargetMAC[:])
	copy(a[24:], p.Target.AsSlice())
	return b
}

// parseARP reads an Ethernet frame; it is false unless it holds a whole ARP
// request or reply for IPv4.
func parseARP(frame []byte) (p arpPacket, ok bool) {
	if len(frame) < etherLen+arpLen || binary.BigEndian.Uint16(frame[12:]) != etherARP {
		return p, false
	}
	a := frame[etherLen:]
	if binary.BigEndian.Uint16(a[0:]) != 1 || binary.BigEndian.Uint16(a[2:]) != 0x0800 || a[4] != 6 || a[5] != 4 {
		return p, false
	}
	p = arpPacket{
		Operation: binary.BigEndian.Uint16(a[6:]),
		SenderMAC: MAC(a[8:14]),
		Sender:    netip.AddrFrom4([4]byte(a[14:18])),
		TargetMAC: MAC(a[18:24]),
		Target:    netip.AddrFrom4([4]byte(a[24:28])),
	}
	return p, p.Operation == arpRequest || p.Operation == arpReply
}

// etherFrame is a frame with room for a payload of n bytes.
func etherFrame(destination, source MAC, etherType uint16, n int) []byte {
	b := make([]byte, etherLen+n)
	copy(b[0:], destination[:])
	copy(b[6:], source[:])
	binary.BigEndian.PutUint16(b[12:], etherType)
	return b
}

// arpAnnouncements tell every host of the segment that addr is at mac. Some
// hosts take a new address from requests only and some from replies only, so
// there is one of each (RFC 5227 section 3).
func arpAnnouncements(addr netip.Addr, mac MAC) [][]byte {
	request := arpPacket{Operation: arpRequest, SenderMAC: mac, Sender: addr, Target: addr}
	reply := arpPacket{Operation: arpReply, SenderMAC: mac, Sender: addr, TargetMAC: broadcastMAC, Target: addr}
	return [][]byte{request.frame(broadcastMAC), reply.frame(broadcastMAC)}
}

// arpProbe asks who has addr and leaves every cache as it is.
func arpProbe(addr netip.Addr, mac MAC) []byte {
	p := arpPacket{Operation: arpRequest, SenderMAC: mac, Sender: netip.IPv4Unspecified(), Target: addr}
	return p.frame(broadcastMAC)
}

// arpAnswer answers the request p for an address that mac has.
func arpAnswer(p arpPacket, mac MAC) []byte {
	answer := arpPacket{Operation: arpReply, SenderMAC: mac, Sender: p.Target, TargetMAC: p.SenderMAC, Target: p.Sender}
	return answer.frame(p.SenderMAC)
}

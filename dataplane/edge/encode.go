package edge

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
)

// Fields named Be hold network order: the bytes lie in memory as on the wire.

func encodeAddress(a netip.Addr) (e bpf.EdgeAddress) {
	for i, raw := 0, a.As16(); i < len(e.WordBe); i++ {
		e.WordBe[i] = binary.NativeEndian.Uint32(raw[4*i:])
	}
	return e
}

func decodeAddress(e bpf.EdgeAddress) netip.Addr {
	var raw [16]byte
	for i, word := range e.WordBe {
		binary.NativeEndian.PutUint32(raw[4*i:], word)
	}
	return netip.AddrFrom16(raw).Unmap()
}

// swap16 turns a number into network order and back.
func swap16(n uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, n))
}

func swap32(n uint32) uint32 {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, n))
}

func encodeFrontend(f netip.AddrPort, protocol uint8) bpf.EdgeFrontendKey {
	return bpf.EdgeFrontendKey{Addr: encodeAddress(f.Addr()), PortBe: swap16(f.Port()), Protocol: protocol}
}

func decodeFrontend(k bpf.EdgeFrontendKey) netip.AddrPort {
	return netip.AddrPortFrom(decodeAddress(k.Addr), swap16(k.PortBe))
}

// encodeAllowed makes the key of a prefix in a service's allow list.
func encodeAllowed(service uint32, p netip.Prefix) bpf.EdgeEdgeAllowKey {
	bits := uint32(p.Bits())
	if p.Addr().Is4() {
		bits += 96
	}
	return bpf.EdgeEdgeAllowKey{Bits: 32 + bits, ServiceBe: swap32(service), Net: encodeAddress(p.Masked().Addr())}
}

func encodeHop(h Hop) bpf.EdgeEdgeHop {
	return bpf.EdgeEdgeHop{
		Dmac: h.Destination, Smac: h.Source, VlanBe: swap16(h.VLAN), Ifindex: uint32(h.Interface), Mtu: uint32(h.MTU),
	}
}

// protocols by their numbers on the wire.
var protocols = map[api.Protocol]uint8{api.TCP: unix.IPPROTO_TCP, api.UDP: unix.IPPROTO_UDP}

const (
	deliverNone = bpf.EdgeEdgeDeliverEDGE_DELIVER_NONE
	deliverNAT  = bpf.EdgeEdgeDeliverEDGE_DELIVER_NAT
	stateAbsent = bpf.EdgeBackendStateBACKEND_ABSENT
)

// deliveries that the programs know. Empty is api.DSR's default.
var deliveries = map[api.Deliver]bpf.EdgeEdgeDeliver{
	"":       bpf.EdgeEdgeDeliverEDGE_DELIVER_DSR,
	api.DSR:  bpf.EdgeEdgeDeliverEDGE_DELIVER_DSR,
	api.IPIP: bpf.EdgeEdgeDeliverEDGE_DELIVER_IPIP,
	api.NAT:  deliverNAT,
}

var states = map[api.BackendState]bpf.EdgeBackendState{
	api.Down:     bpf.EdgeBackendStateBACKEND_DOWN,
	api.Draining: bpf.EdgeBackendStateBACKEND_DRAINING,
	api.Up:       bpf.EdgeBackendStateBACKEND_UP,
}

// Flags of struct edge_service and struct edge_backend.
const (
	flagAllow  = 1
	flagQUIC   = 2
	flagOuter6 = 1
	flagLocal  = 2
)

func encodeName(name string) (n bpf.EdgeServiceName) {
	copy(n.Text[:], name)
	return n
}

func decodeName(n *bpf.EdgeServiceName) string {
	text, _, _ := bytes.Cut(n.Text[:], []byte{0})
	return string(text)
}

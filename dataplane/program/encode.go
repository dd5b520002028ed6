package program

import (
	"bytes"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane/internal/inet"
)

func encodeAddress(a netip.Addr) bpf.BalanceAddress { return bpf.BalanceAddress{WordBe: inet.Words(a)} }

func decodeAddress(e bpf.BalanceAddress) netip.Addr { return inet.Address(e.WordBe) }

func encodeFrontend(f netip.AddrPort, protocol uint8) bpf.BalanceFrontendKey {
	return bpf.BalanceFrontendKey{Addr: encodeAddress(f.Addr()), PortBe: inet.Port(f.Port()), Protocol: protocol}
}

func decodeFrontend(k bpf.BalanceFrontendKey) netip.AddrPort {
	return netip.AddrPortFrom(decodeAddress(k.Addr), inet.Port(k.PortBe))
}

func encodePrefix(p netip.Prefix) (net, mask bpf.BalanceAddress) {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	var raw [16]byte
	for i := range bits {
		raw[i/8] |= 0x80 >> (i % 8)
	}
	return encodeAddress(p.Masked().Addr()), encodeAddress(netip.AddrFrom16(raw))
}

// protocols by their numbers on the wire.
var protocols = map[api.Protocol]uint8{api.TCP: unix.IPPROTO_TCP, api.UDP: unix.IPPROTO_UDP}

var balances = map[api.Balance]bpf.BalanceBalance{
	api.Random: bpf.BalanceBalanceBALANCE_RANDOM,
	api.Maglev: bpf.BalanceBalanceBALANCE_MAGLEV,
	api.P2C:    bpf.BalanceBalanceBALANCE_P2C,
}

const stateAbsent = bpf.BalanceBackendStateBACKEND_ABSENT

var states = map[api.BackendState]bpf.BalanceBackendState{
	api.Down:     bpf.BalanceBackendStateBACKEND_DOWN,
	api.Draining: bpf.BalanceBackendStateBACKEND_DRAINING,
	api.Up:       bpf.BalanceBackendStateBACKEND_UP,
}

// keyOf finds the word for what the kernel holds.
func keyOf[K ~string, V comparable](words map[K]V, value V) K {
	for k, v := range words {
		if v == value {
			return k
		}
	}
	return ""
}

func encodeName(name string) (n bpf.BalanceServiceName) {
	copy(n.Text[:], name)
	return n
}

func decodeName(n *bpf.BalanceServiceName) string {
	text, _, _ := bytes.Cut(n.Text[:], []byte{0})
	return string(text)
}

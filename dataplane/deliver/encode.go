package deliver

import (
	"encoding/binary"
	"net/netip"

	"github.com/weirproject/weir/bpf"
)

// Fields named Be hold network order: the bytes lie in memory as on the wire.

func encodeAddress(a netip.Addr) (e bpf.DeliverAddress) {
	for i, raw := 0, a.As16(); i < len(e.WordBe); i++ {
		e.WordBe[i] = binary.NativeEndian.Uint32(raw[4*i:])
	}
	return e
}

// swapPort turns a port into network order and back.
func swapPort(port uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, port))
}

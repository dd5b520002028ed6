package deliver

import (
	"net/netip"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane/internal/inet"
)

func encodeAddress(a netip.Addr) bpf.DeliverAddress { return bpf.DeliverAddress{WordBe: inet.Words(a)} }

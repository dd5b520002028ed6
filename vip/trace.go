package vip

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// Client is who connects, as the programs know it: by the address that its
// socket is bound to or, without one, by its network namespace.
type Client struct {
	Address netip.Addr // invalid: none
	Cookie  uint64     // of the network namespace
}

func (c Client) String() string {
	if c.Address.IsValid() {
		return c.Address.String()
	}
	return fmt.Sprintf("network namespace %d", c.Cookie)
}

// hash is client_hash of bpf/client.h: it has to be the same in every bit. The
// programs read an address, with IPv4 mapped into IPv6, as two words in the order
// of bytes of the machines that Weir runs on.
func (c Client) hash() uint32 {
	first, second := ^uint64(0), c.Cookie
	if c.Address.IsValid() {
		a := c.Address.As16()
		first, second = binary.LittleEndian.Uint64(a[:8]), binary.LittleEndian.Uint64(a[8:])
	}
	return uint32(mixInKernel(mixInKernel(first)+second) >> 32)
}

func mixInKernel(x uint64) uint64 {
	const factor = 0xd6e8feb86659fd93
	x ^= x >> 32
	x *= factor
	x ^= x >> 32
	x *= factor
	return x ^ x>>32
}

// Trace tells which backend of the table the client would get at a virtual
// address, and why. What the kernel remembers (affinity, open connections) it
// cannot know: it says so.
func Trace(t dataplane.Table, c Client, vip netip.AddrPort, protocol api.Protocol) api.VIPTrace {
	vip = plain(vip)
	trace := api.VIPTrace{Client: c.String(), VIP: vip, Protocol: protocol, Backends: []api.TraceShare{}}
	s := serving(t, vip, protocol)
	if s == nil {
		trace.Reason = unserved(t, vip, protocol)
		return trace
	}
	trace.Service, trace.Balance, trace.Slots = s.Name, s.Balance, len(s.Slots)
	if len(s.Slots) == 0 {
		trace.Reason = "no backend is up: the connection is refused at once"
		return trace
	}
	if s.Balance == api.Maglev {
		if s.AffinityBy == api.ByNamespace && c.Address.IsValid() {
			trace.Reason = "the service knows clients by their network namespace alone: give its cookie"
			return trace
		}
		trace.Slot = int(uint64(c.hash()) * uint64(len(s.Slots)) >> 32)
		trace.Backends = []api.TraceShare{{Address: s.Backends[s.Slots[trace.Slot]].Address, Share: 100}}
		trace.Reason = fmt.Sprintf("maglev: the client's hash leads to slot %d of %d, always", trace.Slot, trace.Slots)
	} else {
		for address, share := range sharesOf(s) {
			trace.Backends = append(trace.Backends, api.TraceShare{Address: address, Share: share})
		}
		slices.SortFunc(trace.Backends, func(a, b api.TraceShare) int {
			return cmp.Or(cmp.Compare(b.Share, a.Share), a.Address.Compare(b.Address))
		})
		trace.Reason = "random: any slot with the same chance"
		if s.Balance == api.P2C {
			trace.Reason = "p2c: of two slots by chance, the one whose backend has fewer connections of this node open"
		}
	}
	if s.Affinity > 0 {
		trace.Reason += fmt.Sprintf("; but a client stays where it was last, as long as that is up and it comes back within %s", s.Affinity)
	}
	return trace
}

func serving(t dataplane.Table, vip netip.AddrPort, protocol api.Protocol) *dataplane.Service {
	for _, s := range t.Services {
		if s.Protocol == protocol && slices.Contains(s.Frontends, vip) {
			return s
		}
	}
	return nil
}

// unserved says what happens to connections to an address that nobody serves.
func unserved(t dataplane.Table, vip netip.AddrPort, protocol api.Protocol) string {
	for _, s := range t.Services {
		for _, f := range s.Frontends {
			if f.Addr() == vip.Addr() {
				return fmt.Sprintf("refused: %s serves %s %s, but nobody %s %s", s.Name, s.Protocol, f, protocol, vip)
			}
		}
	}
	if slices.ContainsFunc(t.Ranges, func(p netip.Prefix) bool { return p.Contains(vip.Addr()) }) {
		return fmt.Sprintf("refused: %s is in the range of named VIPs and belongs to none", vip.Addr())
	}
	return fmt.Sprintf("not ours: %s is no virtual address, so the connection goes there directly", vip.Addr())
}

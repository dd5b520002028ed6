package nft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

// The types of ICMPv6 that a node needs for the link to work at all (RFC 4890,
// section 4.4.1). Neighbours prove by a hop limit of 255 that they are on the
// link; no router passes that on.
var (
	neighbourTypes = []byte{133, 134, 135, 136} // router and neighbour, solicitation and advertisement
	listenerTypes  = []byte{130, 131, 132, 143} // multicast listener query, report, done, report v2
)

// vrrp is VRRP's number among the protocols of IP.
const vrrp = 112

// loopback is the number of lo, the first device of every namespace.
const loopback = 1

// addBuiltIn appends what comes before the policy's own rules. Replies come
// first, since they are nearly all packets.
func (b *builder) addBuiltIn() {
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	replies := slices.Concat(state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept)
	drop := []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
	if b.chains[inputChain] == nftables.ChainPolicyAccept {
		drop = drop[:1] // nothing is dropped while observing
	}
	invalid := slices.Concat(state(expr.CtStateBitINVALID), drop)

	fromLoopback := slices.Concat([]expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.NativeEndian.PutUint32(loopback)},
	}, accept)

	delivered := slices.Concat([]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: register}}, bits(dataplane.DeliveredMark), accept)
	for _, chain := range []string{addressedChain, inputChain, forwardChain} {
		b.add(chain, "established", replies)
		b.add(chain, "delivered", delivered)
	}
	b.add(addressedChain, "loopback", fromLoopback)
	// To judge no more than what others may translate: input sees the rest.
	others := local()
	others[len(others)-1].(*expr.Cmp).Op = expr.CmpOpNeq
	b.add(addressedChain, "not-addressed", slices.Concat(others, accept))
	icmp, l := inBytes(nftables.TypeInetProto, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6)
	b.add(addressedChain, "icmp", slices.Concat([]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, icmp}, accept), l)
	b.addDHCP(addressedChain, accept)

	b.add(inputChain, "loopback", fromLoopback)
	b.addNeighbours(accept)
	b.add(inputChain, "invalid", invalid)
	b.addDHCP(inputChain, accept)
	b.addElections(accept)

	for _, v6 := range []bool{false, true} {
		set := setOf(zoned, v6)
		b.add(forwardChain, "outside-zones", slices.Concat(family(v6),
			[]expr.Any{address(v6, true), notIn(set), address(v6, false), notIn(set)}, accept))
	}
	b.add(forwardChain, "invalid", invalid)
}

// addDHCP lets answers to the node's own DHCP client pass: they come from a
// server that conntrack has seen no question to.
func (b *builder) addDHCP(chain string, accept []expr.Any) {
	b.add(chain, "dhcp-client", slices.Concat(family(false), udpPorts(67, 68), accept))
	b.add(chain, "dhcp-client", slices.Concat(family(true), udpPorts(547, 546), accept))
}

// addElections lets edge nodes hear each other's VRRP (RFC 9568), which goes to
// these groups alone. Without it each would believe to be the only one.
func (b *builder) addElections(accept []expr.Any) {
	for _, v6 := range []bool{false, true} {
		group := []byte{224, 0, 0, 18}
		if v6 {
			group = []byte{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12}
		}
		b.add(inputChain, "edge-elections", slices.Concat(family(v6), protocol(vrrp), []expr.Any{address(v6, false), equal(group...)}, accept))
	}
}

// addNeighbours appends the ICMPv6 of the link. It comes before the check for
// invalid packets: conntrack does not follow it.
func (b *builder) addNeighbours(accept []expr.Any) {
	types, l := inBytes(nftables.TypeICMP6Type, neighbourTypes...)
	b.add(inputChain, "neighbours", slices.Concat(family(true), protocol(unix.IPPROTO_ICMPV6), []expr.Any{
		transport(0, 1), types,
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 7, Len: 1}, equal(255),
	}, accept), l)

	types, l = inBytes(nftables.TypeICMP6Type, listenerTypes...)
	linkLocal := append([]byte{0xfe, 0x80}, make([]byte, 14)...)
	mask := append([]byte{0xff, 0xc0}, make([]byte, 14)...)
	b.add(inputChain, "multicast-listeners", slices.Concat(family(true), protocol(unix.IPPROTO_ICMPV6), []expr.Any{
		transport(0, 1), types,
		address(true, true),
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 16, Mask: mask, Xor: make([]byte, 16)},
		equal(linkLocal...),
	}, accept), l)
}

// udpPorts matches UDP from one port to another.
func udpPorts(source, destination uint16) []expr.Any {
	return append(protocol(unix.IPPROTO_UDP),
		transport(0, 2), equal(bigEndian(source)...), transport(2, 2), equal(bigEndian(destination)...))
}

package nft

import (
	"net/netip"
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

// protocolType is the type of the numbers of transport protocols.
var protocolType = nftables.TypeInetProto

func accept(match ...expr.Any) []expr.Any {
	return append(match, &expr.Verdict{Kind: expr.VerdictAccept})
}

// addBuiltIn appends what comes before the policy's own rules. Replies come
// first, since they are nearly all packets.
func (b *builder) addBuiltIn() {
	for _, chain := range baseChains {
		if _, there := b.chains[chain]; !there {
			continue
		}
		b.add(chain, "established", accept(state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)...))
		delivered := append([]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: register}}, bits(dataplane.DeliveredMark)...)
		b.add(chain, "delivered", accept(delivered...))
		device := expr.MetaKeyIIF
		if chain == outputChain {
			device = expr.MetaKeyOIF
		}
		if chain != forwardChain {
			b.add(chain, "loopback", accept(
				&expr.Meta{Key: device, Register: register},
				&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.NativeEndian.PutUint32(loopback)}))
		}
		switch chain {
		case addressedChain:
			// To judge no more than what others may translate: input sees the rest.
			others := local()
			others[len(others)-1].(*expr.Cmp).Op = expr.CmpOpNeq
			b.add(chain, "not-addressed", accept(others...))
			icmp, l := inBytes(protocolType, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6)
			b.add(chain, "icmp", accept(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, icmp), l)
		case inputChain, outputChain:
			b.addNeighbours(chain)
			b.addNeededICMP(chain)
		}
		if chain == addressedChain && b.mode == Observe {
			continue
		}
		b.add(chain, dataplane.Invalid, append(state(expr.CtStateBitINVALID), goTo(b.denial(dataplane.Invalid))))
		if chain != outputChain {
			b.addGuards(chain)
		}
		if chain == addressedChain || chain == inputChain {
			b.addDHCP(chain)
		}
		if chain == inputChain || chain == outputChain {
			b.addElections(chain)
		}
	}
	b.addOutsideZones()
	b.addInside()
}

// addGuards drops what claims a source that cannot come from where it came in.
func (b *builder) addGuards(chain string) {
	for _, g := range b.ruleset.Guards {
		for _, v6 := range []bool{false, true} {
			if s := b.sources[setOf(g.Sources, v6)]; s == nil || s.kind != addresses {
				b.fail("guard %s: there is no address set %q", g.Name, g.Sources)
				return
			}
			match := slices.Concat(family(v6), []expr.Any{address(v6, true), in(b.look(setOf(g.Sources, v6), addresses))})
			anywhere := false
			for _, name := range g.Interfaces {
				anywhere = anywhere || name == "*"
				match = append(match, notFrom(name)...)
			}
			if !anywhere {
				b.add(chain, dataplane.Spoofed, append(match, goTo(b.denial(dataplane.Spoofed))))
			}
		}
	}
}

// addOutsideZones leaves flows that touch no zone to whoever routes them.
func (b *builder) addOutsideZones() {
	if b.ruleset.Zoned == "" {
		b.add(forwardChain, "outside-zones", accept())
		return
	}
	for _, v6 := range []bool{false, true} {
		if s := b.sources[setOf(b.ruleset.Zoned, v6)]; s == nil || s.kind != addresses {
			b.fail("zoned: there is no address set %q", b.ruleset.Zoned)
			return
		}
		single, nets := b.look(hostsOf(b.ruleset.Zoned, v6), hosts), b.look(setOf(b.ruleset.Zoned+".nets", v6), addresses)
		b.add(forwardChain, "outside-zones", accept(slices.Concat(family(v6), []expr.Any{
			address(v6, true), notIn(single), notIn(nets), address(v6, false), notIn(single), notIn(nets),
		})...))
	}
}

// addInside lets the node open what stays inside the fleet, or on the link.
func (b *builder) addInside() {
	if b.ruleset.Inside == "" {
		return
	}
	for _, v6 := range []bool{false, true} {
		if s := b.sources[setOf(b.ruleset.Inside, v6)]; s == nil || s.kind != addresses {
			b.fail("inside: there is no address set %q", b.ruleset.Inside)
			return
		}
		b.add(outputChain, "inside", accept(slices.Concat(family(v6),
			[]expr.Any{address(v6, false), in(b.look(setOf(b.ruleset.Inside, v6), addresses))})...))
	}
	for _, p := range linkAlone() {
		b.add(outputChain, "link", accept(slices.Concat(family(p.Addr().Is6()), prefix(p, false))...))
	}
}

// addDHCP lets answers to the node's own DHCP client pass: they come from a
// server that conntrack has seen no question to.
func (b *builder) addDHCP(chain string) {
	b.add(chain, "dhcp-client", accept(slices.Concat(family(false), udpPorts(67, 68))...))
	b.add(chain, "dhcp-client", accept(slices.Concat(family(true), udpPorts(547, 546))...))
}

// addElections lets edge nodes hear each other's VRRP (RFC 9568), which goes to
// these groups alone. Without it each would believe to be the only one.
func (b *builder) addElections(chain string) {
	for _, v6 := range []bool{false, true} {
		group := netip.MustParseAddr("224.0.0.18")
		if v6 {
			group = netip.MustParseAddr("ff02::12")
		}
		b.add(chain, "edge-elections", accept(slices.Concat(family(v6), protocol(vrrp), []expr.Any{address(v6, false), equal(group.AsSlice()...)})...))
	}
}

// addNeighbours appends the ICMPv6 of the link. It comes before the check for
// invalid packets: conntrack does not follow it.
func (b *builder) addNeighbours(chain string) {
	types, l := inBytes(nftables.TypeICMP6Type, neighbourTypes...)
	b.add(chain, "neighbours", accept(slices.Concat(family(true), protocol(unix.IPPROTO_ICMPV6), []expr.Any{
		transport(0, 1), types,
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 7, Len: 1}, equal(255),
	})...), l)

	types, l = inBytes(nftables.TypeICMP6Type, listenerTypes...)
	reports := slices.Concat(family(true), protocol(unix.IPPROTO_ICMPV6), []expr.Any{transport(0, 1), types})
	if chain == inputChain {
		// They come from the link; the node's own may have no address yet.
		reports = append(reports, prefix(netip.MustParsePrefix("fe80::/10"), true)...)
	}
	b.add(chain, "multicast-listeners", accept(reports...), l)
}

// addNeededICMP appends the errors without which connections hang.
func (b *builder) addNeededICMP(chain string) {
	for _, v6 := range []bool{false, true} {
		number, typ := byte(unix.IPPROTO_ICMP), nftables.TypeICMPType
		if v6 {
			number, typ = unix.IPPROTO_ICMPV6, nftables.TypeICMP6Type
		}
		types, l := inBytes(typ, dataplane.NeededICMP(v6)...)
		b.add(chain, "needed-icmp", accept(slices.Concat(family(v6), protocol(number), []expr.Any{transport(0, 1), types})...), l)
	}
}

// udpPorts matches UDP from one port to another.
func udpPorts(source, destination uint16) []expr.Any {
	return append(protocol(unix.IPPROTO_UDP),
		transport(0, 2), equal(bigEndian(source)...), transport(2, 2), equal(bigEndian(destination)...))
}

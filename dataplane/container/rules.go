package container

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// Chains of the table. Ports are published where packets come in, and for the
// node's own processes where they go out; sources change where packets leave.
const (
	chainIn     = "prerouting"
	chainOut    = "output"
	chainLeave  = "postrouting"
	chainShared = "shared" // flows of containers in networks that other nodes know
	setOwn      = "own"    // addresses of this node, less the virtual ones
	setNodes    = "nodes"  // addresses of all nodes
)

// rule is one of the table's, with the comment that tells it from others.
type rule struct {
	chain   string
	comment string
	exprs   []expr.Any
}

// content is what the table shall hold.
type content struct {
	rules []rule
	sets  map[string][]netip.Addr // by name with the family's suffix
}

func suffix(v6 bool) string {
	if v6 {
		return "6"
	}
	return "4"
}

// compile writes a table's rules. own are the addresses at which ports are
// published: a virtual address is none of them, so that a VIP with the port of a
// published one leads to its own backends.
func compile(t Table, own []netip.Addr) content {
	c := content{sets: map[string][]netip.Addr{}}
	for _, v6 := range []bool{false, true} {
		is := func(a netip.Addr) bool { return a.Is6() == v6 }
		c.sets[setOwn+suffix(v6)] = filter(own, is)
		c.sets[setNodes+suffix(v6)] = filter(t.Inside, is)
	}
	c.publish(t)
	c.masquerade(t)
	return c
}

// publish leads flows to the node's addresses on to containers.
func (c *content) publish(t Table) {
	for _, e := range t.Endpoints {
		for _, p := range e.Ports {
			number := byte(unix.IPPROTO_TCP)
			if p.Protocol == api.UDP {
				number = unix.IPPROTO_UDP
			}
			v6 := p.To.Addr().Is6()
			match := slices.Concat(family(v6), []expr.Any{
				load(v6, false), c.in(setOwn, v6),
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{number}),
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, equal(binaryutil.BigEndian.PutUint16(p.Host)),
				&expr.Immediate{Register: 1, Data: p.To.Addr().AsSlice()},
				&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(p.To.Port())},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: nfproto(v6), RegAddrMin: 1, RegProtoMin: 2, Specified: true},
			})
			for _, chain := range []string{chainIn, chainOut} {
				c.add(chain, portComment(p), match)
			}
		}
	}
}

// portComment names a published port; flush.go reads it back.
func portComment(p Port) string {
	return fmt.Sprintf("%s/%d to %s", p.Protocol, p.Host, p.To)
}

// masquerade changes the source of flows whose answers would not come back.
func (c *content) masquerade(t Table) {
	for _, n := range t.Networks {
		for _, g := range n.Gateways {
			v6, subnet := g.Addr().Is6(), g.Masked()
			// From a port of the bridge back to one by a published port: the answer
			// would go straight, past the node that has changed the destination.
			c.add(chainLeave, "hairpin "+n.Name, slices.Concat(family(v6), within(subnet, true), within(subnet, false),
				[]expr.Any{&expr.Ct{Key: expr.CtKeySTATUS, Register: 1}}, bits(ctDNAT), []expr.Any{&expr.Masq{FullyRandom: true}}))
		}
	}
	c.add(chainLeave, "to containers of this node", []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, equal([]byte(dataplane.BridgePrefix)), &expr.Verdict{Kind: expr.VerdictReturn}})
	for _, n := range t.Networks {
		for _, g := range n.Gateways {
			if !n.Masquerade {
				continue
			}
			var last expr.Any = &expr.Masq{FullyRandom: true}
			if n.Mode != api.NetworkLocal {
				last = &expr.Verdict{Kind: expr.VerdictGoto, Chain: chainShared}
			}
			c.add(chainLeave, "from "+n.Name, slices.Concat(family(g.Addr().Is6()), within(g.Masked(), true), []expr.Any{last}))
		}
	}
	// All of the cluster knows these containers' addresses.
	for _, n := range t.Networks {
		for _, r := range n.Ranges {
			if n.Mode != api.NetworkLocal {
				c.add(chainShared, "to "+n.Name, slices.Concat(family(r.Addr().Is6()), within(r, false), []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}))
			}
		}
	}
	for _, v6 := range []bool{false, true} {
		c.add(chainShared, "to nodes", slices.Concat(family(v6), []expr.Any{load(v6, false), c.in(setNodes, v6), &expr.Verdict{Kind: expr.VerdictReturn}}))
	}
	c.add(chainShared, "elsewhere", []expr.Any{&expr.Masq{FullyRandom: true}})
}

// ctDNAT is the bit of conntrack's status of flows whose destination was changed
// (IPS_DST_NAT).
const ctDNAT = 1 << 5

func (c *content) add(chain, comment string, exprs []expr.Any) {
	c.rules = append(c.rules, rule{chain: chain, comment: comment + " #" + digest(fmt.Sprintf("%T%+v", exprs, describe(exprs)))[:8], exprs: exprs})
}

// describe writes expressions without their addresses in memory.
func describe(exprs []expr.Any) (texts []string) {
	for _, e := range exprs {
		texts = append(texts, fmt.Sprintf("%T%+v", e, e))
	}
	return texts
}

func (c *content) in(set string, v6 bool) expr.Any {
	return &expr.Lookup{SourceRegister: 1, SetName: set + suffix(v6)}
}

func nfproto(v6 bool) uint32 {
	if v6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

func family(v6 bool) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{byte(nfproto(v6))})}
}

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

// load brings the source or destination address into register 1.
func load(v6, source bool) expr.Any {
	p := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
	if v6 {
		p.Offset, p.Len = 24, 16
	}
	if source {
		p.Offset -= p.Len
	}
	return p
}

// within matches addresses in a prefix, of the prefix's family.
func within(p netip.Prefix, source bool) []expr.Any {
	n := ipNet(p.Masked())
	size := uint32(len(n.IP))
	return []expr.Any{
		load(p.Addr().Is6(), source),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: n.Mask, Xor: make([]byte, size)},
		equal(n.IP),
	}
}

// bits matches a number in register 1 that has them set.
func bits(mask uint32) []expr.Any {
	return []expr.Any{
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func filter(all []netip.Addr, keep func(netip.Addr) bool) []netip.Addr {
	var some []netip.Addr
	for _, a := range all {
		if keep(a) {
			some = append(some, a)
		}
	}
	slices.SortFunc(some, netip.Addr.Compare)
	return slices.Compact(some)
}

func chainsOf(t *nftables.Table) []*nftables.Chain {
	base := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return &nftables.Chain{Table: t, Name: name, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority}
	}
	return []*nftables.Chain{
		{Table: t, Name: chainShared},
		base(chainIn, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest),
		base(chainOut, nftables.ChainHookOutput, nftables.ChainPriorityNATDest),
		base(chainLeave, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource),
	}
}

package guard

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// register is where matches load what they compare. A register of 16 bytes is
// four of 4: a key of address, protocol and port takes the following ones.
const (
	register  = unix.NFT_REG_1
	register4 = unix.NFT_REG32_00
)

// chain is one of the table's, with its rules.
type chain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority int
	rules    [][]expr.Any
}

// The directions of a connection (IP_CT_DIR_*).
const (
	directionOriginal = 0
	directionReply    = 1
)

// The priorities. IPVS looks at what leaves the node at -98 and at what
// arrives at 99; conntrack comes at -200, and others' destination NAT at -100.
const (
	beforeNAT        = -110
	beforeEverybody  = -150
	beforeMasquerade = 90
)

// chains lists the table's. A chain comes after those that it goes to.
func chains() []chain {
	all := refusals()
	judge := chain{name: judgeChain, rules: [][]expr.Any{
		// Answers to what had a virtual address as its source.
		join(isReply(), &expr.Verdict{Kind: expr.VerdictReturn}),
	}}
	// What leaves the node for a service that is not in IPVS comes to its own
	// input, and is judged there: a refusal on the way out would be EPERM to UDP.
	// But IPVS itself answers for a service whose backends all drain, by an ICMP
	// error that a connect() on this node does not see before its first
	// retransmission.
	output := chain{name: "output", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookOutput, priority: beforeEverybody}
	var destination [][]expr.Any
	masquerade := chain{name: masqueradeChain, kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, priority: beforeMasquerade}
	for _, suffix := range []string{"4", "6"} {
		v6 := families[suffix]
		toVirtual := join(family(v6), address(v6, false), in(networkSet+suffix))
		for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			judge.rules = append(judge.rules, join(protocol(p), toVirtual, gotoChain("serve"+suffix)))
			output.rules = append(output.rules, join(protocol(p), family(v6), loadKey(v6), in(drainingSet+suffix), gotoChain(newChain)))
		}
		all = append(all, chain{name: "serve" + suffix, rules: [][]expr.Any{
			join(loadKey(v6), &expr.Lookup{SourceRegister: register, SetName: frontendMap + suffix, IsDestRegSet: true}),
			{gotoChain(unservedChain)},
		}})
		// A translation to the same address is one, and there is only one for a
		// connection.
		destination = append(destination, join(toVirtual, &expr.NAT{Type: expr.NATTypeDestNAT, Family: familyNumber(v6), RegAddrMin: register}))
		translated := join(family(v6), originalDestination(v6), in(networkSet+suffix), addressType(false, false))
		masquerade.rules = append(masquerade.rules,
			join(translated, addressType(true, false), &expr.Masq{}),
			join(translated, address(v6, true), in(networkSet+suffix), &expr.Masq{}))
	}
	all = append(all, judge, output)
	jump := [][]expr.Any{{&expr.Verdict{Kind: expr.VerdictJump, Chain: judgeChain}}}
	for name, hook := range map[string]*nftables.ChainHook{"input": nftables.ChainHookInput, "forward": nftables.ChainHookForward} {
		all = append(all, chain{name, nftables.ChainTypeFilter, hook, beforeEverybody, jump})
	}
	for name, hook := range map[string]*nftables.ChainHook{"keep-arriving": nftables.ChainHookPrerouting, "keep-leaving": nftables.ChainHookOutput} {
		all = append(all, chain{name, nftables.ChainTypeNAT, hook, beforeNAT, destination})
	}
	return append(all, masquerade)
}

// refusals are where packets go that do not pass.
func refusals() []chain {
	return []chain{
		{name: refuseChain, rules: [][]expr.Any{
			join(protocol(unix.IPPROTO_TCP), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}),
			{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}},
		}},
		{name: unservedChain, rules: [][]expr.Any{{&expr.Counter{}, gotoChain(refuseChain)}}},
		{name: emptyChain, rules: [][]expr.Any{{&expr.Counter{}, gotoChain(refuseChain)}}},
		{name: newChain, rules: [][]expr.Any{join(isNew(), gotoChain(emptyChain))}},
	}
}

// join puts expressions and lists of them in one list.
func join(parts ...any) (all []expr.Any) {
	for _, p := range parts {
		switch p := p.(type) {
		case []expr.Any:
			all = append(all, p...)
		case expr.Any:
			all = append(all, p)
		}
	}
	return all
}

func gotoChain(name string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: name} }

func equal(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}
}

func in(set string) expr.Any { return &expr.Lookup{SourceRegister: register, SetName: set} }

func familyNumber(v6 bool) uint32 {
	if v6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

func family(v6 bool) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register}, equal(byte(familyNumber(v6)))}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, equal(number)}
}

// address loads the packet's source or destination.
func address(v6, source bool) expr.Any {
	p := &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
	if v6 {
		p.Offset, p.Len = 8, 16
	}
	if !source {
		p.Offset += p.Len
	}
	return p
}

// loadKey loads destination, protocol and destination port side by side.
func loadKey(v6 bool) []expr.Any {
	next := uint32(register4 + 1)
	if v6 {
		next = register4 + 4
	}
	return []expr.Any{
		address(v6, false),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next},
		&expr.Payload{DestRegister: next + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

func isNew() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

func isReply() []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: register}, equal(directionReply)}
}

// originalDestination loads where the connection's first packet went, before
// IPVS had translated it.
func originalDestination(v6 bool) expr.Any {
	k := expr.CtKey(unix.NFT_CT_DST_IP)
	if v6 {
		k = unix.NFT_CT_DST_IP6
	}
	return &expr.Ct{Key: k, Register: register, Direction: directionOriginal}
}

// addressType matches when the packet's source or destination is the node's
// own, or is not.
func addressType(source, local bool) []expr.Any {
	op := expr.CmpOpNeq
	if local {
		op = expr.CmpOpEq
	}
	return []expr.Any{
		&expr.Fib{Register: register, FlagSADDR: source, FlagDADDR: !source, ResultADDRTYPE: true},
		&expr.Cmp{Op: op, Register: register, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

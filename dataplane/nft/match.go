package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
)

// Every match below loads something into this register and compares it.
const register = 1

func equal(data ...byte) *expr.Cmp {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}
}

// family matches IPv4 or IPv6. A look at an address needs it first: the table
// sees both.
func family(v6 bool) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register}, equal(familyNumber(v6))}
}

func familyNumber(v6 bool) byte {
	if v6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
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

// local matches what is addressed to one host, this one.
func local() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: register, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// in looks the loaded address up in a set; notIn matches the others.
func in(set string) expr.Any { return &expr.Lookup{SourceRegister: register, SetName: set} }
func notIn(set string) expr.Any {
	return &expr.Lookup{SourceRegister: register, SetName: set, Invert: true}
}

// toClass sets the packet's mark to the class of the loaded address; without one
// the rule does not match.
func toClass(set string) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: register, DestRegister: register, IsDestRegSet: true, SetName: set},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register},
	}
}

// toChain goes to the chain that the map has for the packet's mark.
func toChain(set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Lookup{SourceRegister: register, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set},
	}
}

// marked matches packets with any mark.
func marked() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

// unmarked matches packets without a mark.
func unmarked() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: register}, equal(0, 0, 0, 0)}
}

// unmark takes the packet's mark away.
func unmark() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register, Data: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register},
	}
}

func goTo(chain string) *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

// prefix matches addresses of the prefix.
func prefix(p netip.Prefix, source bool) []expr.Any {
	v6, mask := p.Addr().Is6(), make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		address(v6, source),
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))},
		equal(p.Addr().AsSlice()...),
	}
}

// endpoint looks up destination, protocol and port, in registers that follow
// each other, 4 bytes each.
func endpoint(v6 bool, set string) []expr.Any {
	to := address(v6, false).(*expr.Payload)
	to.DestRegister = unix.NFT_REG32_00
	next := unix.NFT_REG32_00 + to.Len/4
	return []expr.Any{
		to,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next},
		&expr.Payload{DestRegister: next + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: unix.NFT_REG32_00, SetName: set},
	}
}

// metaTime loads the time of day in nanoseconds (Linux 5.4).
const metaTime = expr.MetaKey(30) // NFT_META_TIME_NS

// before matches until the time. The kernel compares bytes.
func before(t time.Time) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: metaTime, Register: register},
		&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 8, Size: 8},
		&expr.Cmp{Op: expr.CmpOpLt, Register: register, Data: binary.BigEndian.AppendUint64(nil, uint64(max(t.UnixNano(), 0)))},
	}
}

// notFrom matches what did not come in by the interface; a last "*" stands for
// any rest of its name.
func notFrom(name string) []expr.Any {
	data, wild := []byte(name), false
	if base, ok := strings.CutSuffix(name, "*"); ok {
		data, wild = []byte(base), true
	}
	if !wild {
		data = append(data, make([]byte, max(unix.IFNAMSIZ-len(data), 0))...)
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: data},
	}
}

// perSource matches the first n packets a second of each source, which the set
// counts.
func perSource(v6 bool, set string, n uint32) []expr.Any {
	return []expr.Any{
		address(v6, true),
		&expr.Dynset{
			SrcRegKey: register, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: meterTimeout,
			Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(n), Unit: expr.LimitTimeSecond, Burst: n}},
		},
	}
}

// bits matches when the loaded number of 32 bits, in the host's order, has one
// of the bits.
func bits(mask uint32) []expr.Any {
	return []expr.Any{
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

// state matches connections in one of conntrack's states.
func state(mask uint32) []expr.Any {
	return append([]expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: register}}, bits(mask)...)
}

// protocol matches the transport protocol, behind IPv6's extension headers.
func protocol(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, equal(number)}
}

// transport loads n bytes of the transport header.
func transport(offset, n uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: n}
}

// portSpan is a range of ports, both ends included.
type portSpan struct{ first, last uint16 }

// portSpans are the ports of one protocol in a rule, sorted and disjoint; all
// is true when the rule allows the protocol as a whole.
func portSpans(ports []api.PortRange, protocol string) (spans []portSpan, all bool) {
	for _, p := range ports {
		if p.Protocol != protocol {
			continue
		}
		if p.First == 0 && p.Last == 0 {
			return nil, true
		}
		spans = append(spans, portSpan{p.First, p.Last})
	}
	slices.SortFunc(spans, func(a, b portSpan) int { return int(a.first) - int(b.first) })
	var out []portSpan
	for _, s := range spans {
		if n := len(out) - 1; n >= 0 && int(s.first) <= int(out[n].last)+1 {
			out[n].last = max(out[n].last, s.last)
			continue
		}
		out = append(out, s)
	}
	return out, false
}

// inPorts matches when the loaded port is one of the spans'.
func inPorts(spans []portSpan) ([]expr.Any, *literal) {
	if len(spans) == 1 {
		s := spans[0]
		if s.first == s.last {
			return []expr.Any{equal(bigEndian(s.first)...)}, nil
		}
		return []expr.Any{
			&expr.Cmp{Op: expr.CmpOpGte, Register: register, Data: bigEndian(s.first)},
			&expr.Cmp{Op: expr.CmpOpLte, Register: register, Data: bigEndian(s.last)},
		}, nil
	}
	l := &literal{typ: nftables.TypeInetService}
	l.interval = slices.ContainsFunc(spans, func(s portSpan) bool { return s.first != s.last })
	for _, s := range spans {
		l.elements = append(l.elements, nftables.SetElement{Key: bigEndian(s.first)})
		if l.interval && s.last < 65535 {
			l.elements = append(l.elements, nftables.SetElement{Key: bigEndian(s.last + 1), IntervalEnd: true})
		}
	}
	return []expr.Any{l.look()}, l
}

// inBytes matches when the loaded byte is one of the values.
func inBytes(typ nftables.SetDatatype, values ...byte) (expr.Any, *literal) {
	l := &literal{typ: typ}
	for _, v := range values {
		l.elements = append(l.elements, nftables.SetElement{Key: []byte{v}})
	}
	return l.look(), l
}

// look makes the literal's expression; the set's number is filled in when the
// rule is written.
func (l *literal) look() *expr.Lookup {
	l.lookup = &expr.Lookup{SourceRegister: register, SetName: literalName}
	return l.lookup
}

// literalName is how the kernel is asked to number an unnamed set.
const literalName = "__set%d"

func bigEndian(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

package nft

import (
	"encoding/binary"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

// The messages of a batch, as include/uapi/linux/netfilter/nf_tables.h has them.
// The library's own ask the kernel to acknowledge every message and to send
// every new rule back, which takes a third of the time of a large batch.

// attributes are written one behind the other.
type attributes []byte

func (a attributes) bytes(typ uint16, data []byte) attributes {
	a = binary.NativeEndian.AppendUint16(a, uint16(4+len(data)))
	a = binary.NativeEndian.AppendUint16(a, typ)
	a = append(a, data...)
	for len(a)%4 != 0 {
		a = append(a, 0)
	}
	return a
}

func (a attributes) text(typ uint16, s string) attributes {
	at := len(a)
	a = append(a, 0, 0, 0, 0)
	a = append(append(a, s...), 0)
	return a.close(at, typ)
}

func (a attributes) number(typ uint16, n uint32) attributes {
	a = append(a, 8, 0, 0, 0)
	binary.NativeEndian.PutUint16(a[len(a)-4:], 8)
	binary.NativeEndian.PutUint16(a[len(a)-2:], typ)
	return binary.BigEndian.AppendUint32(a, n)
}

// open begins a nested attribute, which close ends: at is where it begins.
func (a attributes) open() (_ attributes, at int) { return append(a, 0, 0, 0, 0), len(a) }

func (a attributes) close(at int, typ uint16) attributes {
	binary.NativeEndian.PutUint16(a[at:], uint16(len(a)-at))
	binary.NativeEndian.PutUint16(a[at+2:], typ)
	for len(a)%4 != 0 {
		a = append(a, 0)
	}
	return a
}

func (a attributes) nested(typ uint16, data attributes) attributes {
	return a.bytes(unix.NLA_F_NESTED|typ, data)
}

// message begins one about our family: struct nfgenmsg, then attributes, the
// first two of which are the table's name and that of what it is about.
func (w *writer) message(names ...string) attributes {
	a := make(attributes, 0, 96)
	a = append(a, unix.NFPROTO_INET, 0, 0, 0)
	a = a.text(1, w.table)
	if len(names) > 0 {
		a = a.text(2, names[0])
	}
	return a
}

func (w *writer) add(typ int, flags netlink.HeaderFlags, a attributes) {
	w.messages = append(w.messages, netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ), Flags: netlink.Request | flags},
		Data:   a,
	})
}

func (w *writer) addTable() {
	w.add(unix.NFT_MSG_NEWTABLE, netlink.Create, w.message().number(unix.NFTA_TABLE_FLAGS, 0))
}

func (w *writer) delTable() { w.add(unix.NFT_MSG_DELTABLE, 0, w.message()) }

// addChain makes a chain, or gives an existing one the policy.
func (w *writer) addChain(name string, policy nftables.ChainPolicy) {
	a := w.message()
	a = a.text(unix.NFTA_CHAIN_NAME, name)
	if hook, priority := hookOf(name); hook != nil {
		a = a.nested(unix.NFTA_CHAIN_HOOK, attributes(nil).number(unix.NFTA_HOOK_HOOKNUM, uint32(*hook)).number(unix.NFTA_HOOK_PRIORITY, uint32(*priority)))
		a = a.number(unix.NFTA_CHAIN_POLICY, uint32(policy)).text(unix.NFTA_CHAIN_TYPE, string(nftables.ChainTypeFilter))
	}
	w.add(unix.NFT_MSG_NEWCHAIN, netlink.Create, a)
}

func (w *writer) delChain(name string) {
	w.add(unix.NFT_MSG_DELCHAIN, 0, w.message().text(unix.NFTA_CHAIN_NAME, name))
}

// flushChain takes all rules out of the chain.
func (w *writer) flushChain(name string) { w.add(unix.NFT_MSG_DELRULE, 0, w.message(name)) }

func (w *writer) addCounter(name string) {
	empty := attributes(nil).bytes(unix.NFTA_COUNTER_BYTES, make([]byte, 8)).bytes(unix.NFTA_COUNTER_PACKETS, make([]byte, 8))
	w.add(unix.NFT_MSG_NEWOBJ, netlink.Create, w.message(name).number(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER).nested(unix.NFTA_OBJ_DATA, empty))
}

func (w *writer) delCounter(name string) {
	w.add(unix.NFT_MSG_DELOBJ, 0, w.message(name).number(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER))
}

func (w *writer) delSet(name string) { w.add(unix.NFT_MSG_DELSET, 0, w.message(name)) }

// newSet makes a set without its elements.
func (w *writer) newSet(s *nftables.Set, size int) {
	var flags uint32
	for flag, on := range map[uint32]bool{
		unix.NFT_SET_ANONYMOUS: s.Anonymous, unix.NFT_SET_CONSTANT: s.Constant, unix.NFT_SET_INTERVAL: s.Interval, unix.NFT_SET_MAP: s.IsMap,
		unix.NFT_SET_TIMEOUT: s.HasTimeout, unix.NFT_SET_EVAL: s.Dynamic, nftables.NFT_SET_CONCAT: s.Concatenation,
	} {
		if on {
			flags |= flag
		}
	}
	a := w.message(s.Name).number(unix.NFTA_SET_FLAGS, flags).number(unix.NFTA_SET_KEY_TYPE, s.KeyType.GetNFTMagic()).
		number(unix.NFTA_SET_KEY_LEN, s.KeyType.Bytes).number(unix.NFTA_SET_ID, s.ID)
	if s.IsMap {
		typ := s.DataType.GetNFTMagic()
		if s.DataType.Name == nftables.TypeVerdict.Name {
			typ = uint32(unix.NFT_DATA_VERDICT)
		}
		a = a.number(unix.NFTA_SET_DATA_TYPE, typ).number(unix.NFTA_SET_DATA_LEN, s.DataType.Bytes)
	}
	if s.Timeout != 0 {
		a = a.bytes(unix.NFTA_SET_TIMEOUT, milliseconds(s.Timeout))
	}
	var desc attributes
	if s.Constant {
		desc = desc.number(unix.NFTA_SET_DESC_SIZE, uint32(size))
	} else if s.Size > 0 {
		desc = desc.number(unix.NFTA_SET_DESC_SIZE, s.Size)
	}
	if s.Concatenation {
		// nft aborts when it lists a concatenation without its parts.
		var parts attributes
		for _, t := range nftables.ConcatSetTypeElements(s.KeyType) {
			parts = parts.nested(unix.NFTA_LIST_ELEM, attributes(nil).number(unix.NFTA_SET_DESC_SIZE, t.Bytes))
		}
		desc = desc.nested(nftables.NFTA_SET_DESC_CONCAT, parts)
	}
	if len(desc) > 0 {
		a = a.nested(unix.NFTA_SET_DESC, desc)
	}
	if data := byteOrder(s); data != nil {
		a = a.bytes(unix.NFTA_SET_USERDATA, data)
	}
	w.add(unix.NFT_MSG_NEWSET, netlink.Create, a)
}

// byteOrder tells nft how to print the keys.
func byteOrder(s *nftables.Set) []byte {
	switch {
	case s.Anonymous || s.Constant || s.Interval || s.KeyByteOrder == binaryutil.BigEndian:
		return userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, 2)
	case s.KeyByteOrder == binaryutil.NativeEndian:
		return userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, 1)
	default:
		return nil
	}
}

func milliseconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(d.Milliseconds()))
}

// elements writes those of one message: at most elementsPerMessage. id is that
// of a set made in this batch, else 0.
func (w *writer) elements(typ int, name string, id uint32, all []nftables.SetElement) {
	a := make(attributes, 0, 128+64*len(all))
	a = append(a, unix.NFPROTO_INET, 0, 0, 0)
	a = a.text(unix.NFTA_SET_ELEM_LIST_TABLE, w.table).text(unix.NFTA_SET_ELEM_LIST_SET, name).number(unix.NFTA_SET_ELEM_LIST_SET_ID, id)
	a, list := a.open()
	for _, e := range all {
		var at int
		a, at = a.open()
		if e.IntervalEnd {
			a = a.number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
		}
		a = a.value(unix.NFTA_SET_ELEM_KEY, e.Key)
		if e.Timeout != 0 {
			a = a.bytes(unix.NFTA_SET_ELEM_TIMEOUT, milliseconds(e.Timeout))
		}
		if v := e.VerdictData; v != nil {
			verdict := attributes(nil).number(unix.NFTA_VERDICT_CODE, uint32(v.Kind)).text(unix.NFTA_VERDICT_CHAIN, v.Chain)
			a = a.nested(unix.NFTA_SET_ELEM_DATA, attributes(nil).nested(unix.NFTA_DATA_VERDICT, verdict))
		} else if len(e.Val) > 0 {
			a = a.value(unix.NFTA_SET_ELEM_DATA, e.Val)
		}
		a = a.close(at, unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM)
	}
	var flags netlink.HeaderFlags
	if typ == unix.NFT_MSG_NEWSETELEM {
		flags = netlink.Create
	}
	w.add(typ, flags, a.close(list, unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_LIST_ELEMENTS))
}

// value is a nested attribute with nothing but data.
func (a attributes) value(typ uint16, data []byte) attributes {
	a, at := a.open()
	return a.bytes(unix.NFTA_DATA_VALUE, data).close(at, unix.NLA_F_NESTED|typ)
}

// encode writes the expressions of a rule.
func encode(exprs []expr.Any) (attributes, error) {
	var a attributes
	for _, e := range exprs {
		data, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			return nil, err
		}
		a = a.nested(unix.NFTA_LIST_ELEM, data)
	}
	return a, nil
}

func (w *writer) addRule(chain string, r rule, code attributes) {
	a := make(attributes, 0, 128+len(code))
	a = append(a, unix.NFPROTO_INET, 0, 0, 0)
	a = a.text(unix.NFTA_RULE_TABLE, w.table).text(unix.NFTA_RULE_CHAIN, chain).nested(unix.NFTA_RULE_EXPRESSIONS, code).
		bytes(unix.NFTA_RULE_USERDATA, writeMarks(r.name, r.mark))
	w.add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, a)
}

func newWriter(conn *link) *writer { return &writer{conn: conn, table: dataplane.TableName} }

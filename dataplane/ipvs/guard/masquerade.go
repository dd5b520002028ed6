package guard

import (
	"fmt"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// addMasquerade adds the rules that look at the connection's original
// destination. The library cannot write that with the direction that it needs;
// what it can write, without the address's family, makes "nft list" abort. So
// these rules are a batch of their own, sent right after the table's. If that
// does not come, the table's marks tell the next Set that they are missing.
func (l *link) addMasquerade() error {
	batch := []netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN)}
	for _, c := range chains() {
		if c.name != masqueradeChain {
			continue
		}
		for _, exprs := range c.rules {
			m, err := newRule(c.name, exprs)
			if err != nil {
				return fmt.Errorf("write rule of chain %s: %w", c.name, err)
			}
			batch = append(batch, m)
		}
	}
	sent, err := l.socket.SendMessages(append(batch, edge(unix.NFNL_MSG_BATCH_END)))
	if err != nil {
		return fmt.Errorf("add rules of chain %s: %w", masqueradeChain, err)
	}
	for range len(sent) - 2 { // one answer for each rule
		if _, err := l.socket.Receive(); err != nil {
			return fmt.Errorf("add rules of chain %s: %w", masqueradeChain, err)
		}
	}
	return nil
}

// edge begins or ends a batch.
func edge(kind netlink.HeaderType) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
	}
}

func newRule(chain string, exprs []expr.Any) (netlink.Message, error) {
	var list []netlink.Attribute
	for _, e := range exprs {
		data, err := marshal(e)
		if err != nil {
			return netlink.Message{}, err
		}
		list = append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: data})
	}
	expressions, err := netlink.MarshalAttributes(list)
	if err != nil {
		return netlink.Message{}, err
	}
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(TableName + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(chain + "\x00")},
		{Type: unix.NLA_F_NESTED | unix.NFTA_RULE_EXPRESSIONS, Data: expressions},
		{Type: unix.NFTA_RULE_USERDATA, Data: mark(exprs)},
	})
	return netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Append,
		},
		Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, data...),
	}, err
}

// marshal is the library's, but for the expression that it cannot write.
func marshal(e expr.Any) ([]byte, error) {
	ct, ok := e.(*expr.Ct)
	if !ok {
		return expr.Marshal(unix.NFPROTO_INET, e)
	}
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_CT_KEY, Data: binaryutil.BigEndian.PutUint32(uint32(ct.Key))},
		{Type: unix.NFTA_CT_DREG, Data: binaryutil.BigEndian.PutUint32(ct.Register)},
		{Type: unix.NFTA_CT_DIRECTION, Data: []byte{byte(ct.Direction)}},
	})
	if err != nil {
		return nil, err
	}
	return netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_EXPR_NAME, Data: []byte("ct\x00")},
		{Type: unix.NLA_F_NESTED | unix.NFTA_EXPR_DATA, Data: data},
	})
}

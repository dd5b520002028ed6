package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// find gives our table; nil without one.
func find(conn *link) (*nftables.Table, error) {
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == TableName })
	if i < 0 {
		return nil, nil
	}
	return tables[i], nil
}

// marks lists those of the table's rules, by chain. The library's own listing
// cannot read back every rule that it has written.
func (l *link) marks() (map[string][]byte, error) {
	name, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(TableName), 0)}})
	if err != nil {
		return nil, err
	}
	const get = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE
	header := []byte{unix.NFPROTO_INET, 0, 0, 0} // struct nfgenmsg
	answers, err := l.socket.Execute(netlink.Message{
		Header: netlink.Header{Type: get, Flags: netlink.Request | netlink.Dump},
		Data:   append(header, name...),
	})
	if err != nil {
		return nil, err
	}
	marks := map[string][]byte{}
	for _, m := range answers {
		if len(m.Data) < len(header) {
			continue
		}
		attributes, err := netlink.UnmarshalAttributes(m.Data[len(header):])
		if err != nil {
			return nil, err
		}
		fields := map[uint16]string{}
		for _, a := range attributes {
			fields[a.Type] = string(a.Data)
		}
		if fields[unix.NFTA_RULE_TABLE] != TableName+"\x00" { // older kernels list all
			continue
		}
		chain := strings.TrimSuffix(fields[unix.NFTA_RULE_CHAIN], "\x00")
		mark := fields[unix.NFTA_RULE_USERDATA]
		if mark == "" {
			mark = "foreign"
		}
		marks[chain] = append(marks[chain], mark...)
	}
	return marks, nil
}

// read lists what the table holds; nil without one. What is not as we make it
// makes the rules differ.
func read(conn *link) (*content, error) {
	t, err := find(conn)
	if err != nil || t == nil {
		return nil, err
	}
	c := newContent()
	if t.Flags != 0 { // dormant
		return c, nil
	}
	if c.marks, err = conn.marks(); err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	for suffix := range families {
		if err := c.readSets(conn, suffix); errors.Is(err, unix.ENOENT) {
			c.marks = nil
		} else if err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *content) readSets(conn *link, suffix string) error {
	for _, set := range sets(table(), suffix) {
		elements, err := conn.GetSetElements(set)
		if err != nil {
			return fmt.Errorf("list elements of %s: %w", set.Name, err)
		}
		for _, e := range elements {
			value := ""
			switch {
			case set.Interval && e.IntervalEnd && allZero(e.Key):
				continue // the kernel's own, before the first interval
			case e.IntervalEnd:
				value = "end"
			case set.IsMap:
				value = chainOf(e.Val)
			}
			c.sets[set.Name][string(e.Key)] = value
		}
	}
	return nil
}

func allZero(b []byte) bool { return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }) }

// chainOf reads where a verdict goes to; "" is a return.
func chainOf(verdict []byte) string {
	attributes, err := netlink.UnmarshalAttributes(verdict)
	if err != nil {
		return "?"
	}
	chain := "?"
	for _, a := range attributes {
		switch a.Type {
		case unix.NFTA_VERDICT_CODE:
			if len(a.Data) == 4 && int32(binary.BigEndian.Uint32(a.Data)) == int32(expr.VerdictReturn) {
				chain = ""
			}
		case unix.NFTA_VERDICT_CHAIN:
			chain = string(a.Data[:max(len(a.Data)-1, 0)])
		}
	}
	return chain
}

// readCounter sums the counters of a chain's rules.
func readCounter(conn *link, chain string) (uint64, error) {
	rules, err := conn.GetRules(table(), &nftables.Chain{Name: chain})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return 0, err
	}
	var n uint64
	for _, r := range rules {
		for _, e := range r.Exprs {
			if c, ok := e.(*expr.Counter); ok {
				n += c.Packets
			}
		}
	}
	return n, nil
}

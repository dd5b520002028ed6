package guard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

const (
	// A batch goes to the kernel in one message. These are bounds: the kernel
	// allocates what is used, about 200 bytes for an IPv6 frontend.
	sendBuffer    = 256 << 20
	receiveBuffer = 32 << 20
	// elementsPerMessage keeps a list within the 64 KiB that one netlink
	// attribute can have. It is even, so that an interval's two ends stay together.
	elementsPerMessage = 512
	// patience bounds one talk with the kernel, which takes milliseconds.
	patience = 60 * time.Second
)

// link is one conversation with the kernel.
type link struct {
	*nftables.Conn
	socket *netlink.Conn
}

// dial opens a netlink socket in the thread's namespace, to be closed with
// CloseLasting.
func dial(ctx context.Context) (*link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l := &link{}
	prepare := func(s *netlink.Conn) error {
		l.socket = s
		return errors.Join(s.SetReadBuffer(receiveBuffer), s.SetWriteBuffer(sendBuffer), s.SetDeadline(time.Now().Add(patience)))
	}
	var err error
	if l.Conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(prepare)); err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return l, nil
}

func table() *nftables.Table {
	return &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}
}

// sets describes ours of one family.
func sets(t *nftables.Table, suffix string) []*nftables.Set {
	address := nftables.TypeIPAddr
	if families[suffix] {
		address = nftables.TypeIP6Addr
	}
	key := nftables.MustConcatSetType(address, nftables.TypeInetProto, nftables.TypeInetService)
	return []*nftables.Set{
		{Table: t, Name: networkSet + suffix, KeyType: address, Interval: true},
		{Table: t, Name: frontendMap + suffix, KeyType: key, Concatenation: true, IsMap: true, DataType: nftables.TypeVerdict},
		{Table: t, Name: drainingSet + suffix, KeyType: key, Concatenation: true},
	}
}

// write turns held into wanted in one step. A table whose rules differ is made
// anew whole; otherwise only elements change.
func write(conn *link, held, wanted *content) error {
	t := table()
	anew := !held.sameRules(wanted)
	if anew {
		conn.AddTable(t) // so that there is one to remove
		conn.DelTable(t)
		conn.AddTable(t)
		if err := create(conn, t); err != nil {
			return err
		}
		held = newContent()
	}
	for suffix := range families {
		for _, set := range sets(t, suffix) {
			if err := change(conn, set, held.sets[set.Name], wanted.sets[set.Name]); err != nil {
				return err
			}
		}
	}
	if err := conn.Flush(); err != nil || !anew {
		return err
	}
	return conn.addMasquerade()
}

// create fills a new table with empty sets, chains and rules.
func create(conn *link, t *nftables.Table) error {
	id := uint32(0) // of sets within a batch
	for suffix := range families {
		for _, s := range sets(t, suffix) {
			id++
			s.ID = id
			if err := conn.AddSet(s, nil); err != nil {
				return err
			}
		}
	}
	made := map[string]*nftables.Chain{}
	for _, c := range chains() {
		chain := &nftables.Chain{Table: t, Name: c.name}
		if c.hook != nil {
			chain.Hooknum, chain.Type, chain.Priority = c.hook, c.kind, nftables.ChainPriorityRef(nftables.ChainPriority(c.priority))
		}
		made[c.name] = conn.AddChain(chain)
	}
	for _, c := range chains() {
		if c.name != masqueradeChain {
			addRules(conn, t, made[c.name], c)
		}
	}
	return nil
}

func addRules(conn *link, t *nftables.Table, chain *nftables.Chain, c chain) {
	for _, exprs := range c.rules {
		conn.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs, UserData: mark(exprs)})
	}
}

// change removes the elements that differ and adds them as wanted. An end and a
// start of intervals may have the same key, so intervals are replaced whole.
func change(conn *link, set *nftables.Set, held, wanted map[string]string) error {
	if maps.Equal(held, wanted) {
		return nil
	}
	var gone, come []nftables.SetElement
	if set.Interval {
		conn.FlushSet(set)
		held = nil
	}
	for _, k := range slices.Sorted(maps.Keys(held)) {
		if v, keep := wanted[k]; !keep || v != held[k] {
			gone = append(gone, nftables.SetElement{Key: []byte(k)})
		}
	}
	for _, k := range slices.Sorted(maps.Keys(wanted)) {
		if v, there := held[k]; !there || v != wanted[k] {
			come = append(come, element(set, k, wanted[k]))
		}
	}
	for part := range slices.Chunk(gone, elementsPerMessage) {
		if err := conn.SetDeleteElements(set, part); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(come, elementsPerMessage) {
		if err := conn.SetAddElements(set, part); err != nil {
			return err
		}
	}
	return nil
}

func element(set *nftables.Set, key, value string) nftables.SetElement {
	e := nftables.SetElement{Key: []byte(key), IntervalEnd: value == "end"}
	if set.IsMap {
		e.VerdictData = &expr.Verdict{Kind: expr.VerdictReturn}
		if value != "" {
			e.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: value}
		}
	}
	return e
}

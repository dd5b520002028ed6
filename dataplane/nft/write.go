package nft

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"

	"github.com/weirproject/weir/dataplane"
)

// elementsPerMessage keeps a list of elements within the 64 KiB that one
// netlink attribute can have: a span takes up to 72 bytes, in a map 136. It is
// even, so that a span's two elements stay together.
const elementsPerMessage = 880

// writer collects one batch.
type writer struct {
	conn  *nftables.Conn
	table *nftables.Table
	ids   uint32 // of the sets made in this batch
	// stays are the addresses that sets that learn are made with, by set.
	stays map[string]map[netip.Addr]time.Time
	// pending counts the batch's parts, batches those that were sent.
	pending, batches int
	err              error
}

func newWriter(conn *link) *writer {
	return &writer{conn: conn.Conn, table: &nftables.Table{Name: dataplane.TableName, Family: nftables.TableFamilyINet}}
}

// write turns the kernel's content from found into wanted.
//
// What packets are judged by changes in one step, with the second of three
// batches. The first makes sets that no rule looks into yet, the last removes
// those that no rule looks into any more: measured on Linux 6.18, a set that
// comes or goes in the same step as the rules that use it is found empty by
// some packets at that moment. When the agent dies in between, the next Set
// finds unused sets and removes them.
func (w *writer) write(found, wanted *content) error {
	switch {
	case !wanted.exists:
		w.removeTable()
		return w.flush()
	case found.odd:
		return w.recreate(wanted)
	default:
		return w.change(found, wanted)
	}
}

// recreate makes the table anew, all in one step; but a deleted chain keeps its
// hook for some microseconds after it, and drops what comes by when that is its
// policy. Nothing opens.
func (w *writer) recreate(wanted *content) error {
	w.removeTable()
	w.addTable()
	w.addSets(newContent(), wanted)
	w.changeRules(newContent(), wanted)
	return w.flush()
}

// change alters a table in place, or makes a new one.
func (w *writer) change(found, wanted *content) error {
	if !found.exists {
		w.addTable()
	}
	w.addSets(found, wanted)
	if err := w.flush(); err != nil {
		return err
	}
	w.changeRules(found, wanted)
	if err := w.flush(); err != nil {
		return err
	}
	w.removeUnused(found, wanted)
	return w.flush()
}

// flush sends the batch.
func (w *writer) flush() error {
	if w.err != nil {
		return w.err
	}
	if w.pending == 0 {
		return nil
	}
	w.pending = 0
	if err := w.conn.Flush(); err != nil {
		return fmt.Errorf("send batch: %w", inWords(err))
	}
	w.batches++
	return nil
}

func (w *writer) addTable() {
	w.pending++
	w.conn.AddTable(w.table)
}

// removeTable removes the table. Adding it first makes it no error if there is
// none.
func (w *writer) removeTable() {
	w.addTable()
	w.conn.DelTable(w.table)
}

// addSets makes the sets and counters that were not found, and for maps the
// chains, still empty, that they lead to.
func (w *writer) addSets(found, wanted *content) {
	for _, name := range wanted.chainNames() {
		if _, there := found.chains[name]; !there && !slices.Contains(baseChains, name) {
			w.addChain(name, wanted.chains[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted.sets)) {
		if f := found.sets[name]; f == nil {
			w.addSet(name, wanted.sets[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted.counters)) {
		if !found.counters[name] {
			w.pending++
			w.conn.AddObj(&nftables.CounterObj{Table: w.table, Name: name})
		}
	}
}

// changeRules changes chains and rules, and the elements of the sets that stay.
func (w *writer) changeRules(found, wanted *content) {
	for _, name := range wanted.chainNames() {
		if p, there := found.chains[name]; slices.Contains(baseChains, name) && (!there || p != wanted.chains[name]) {
			w.addChain(name, wanted.chains[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted.sets)) {
		if old := found.sets[name]; old != nil {
			stale, fresh := old.changes(wanted.sets[name])
			if fresh.kind == verdicts {
				stale = &set{} // a packet may be on its way to them
			}
			w.changeElements(name, wanted.sets[name], stale, fresh)
		}
	}
	for _, name := range wanted.chainNames() {
		if sameRules(found.rules[name], wanted.rules[name]) {
			continue
		}
		if len(found.rules[name]) > 0 {
			w.pending++
			w.conn.FlushChain(&nftables.Chain{Name: name, Table: w.table})
		}
		w.addRules(name, wanted.rules[name])
	}
}

// removeUnused removes what nothing leads to any more.
func (w *writer) removeUnused(found, wanted *content) {
	for _, name := range slices.Sorted(maps.Keys(found.sets)) {
		if s := wanted.sets[name]; s != nil && s.kind == verdicts {
			stale, _ := found.sets[name].changes(s)
			w.changeElements(name, s, stale, &set{})
		}
	}
	var chains []string
	for name := range found.chains {
		if _, keep := wanted.chains[name]; !keep {
			chains = append(chains, name)
		}
	}
	slices.Sort(chains)
	for _, name := range chains { // they may go to each other
		w.pending++
		w.conn.FlushChain(&nftables.Chain{Name: name, Table: w.table})
	}
	for _, name := range slices.Sorted(maps.Keys(found.sets)) {
		if wanted.sets[name] == nil {
			w.pending++
			w.conn.DelSet(&nftables.Set{Table: w.table, Name: name})
		}
	}
	for _, name := range chains {
		w.conn.DelChain(&nftables.Chain{Name: name, Table: w.table})
	}
	for _, name := range slices.Sorted(maps.Keys(found.counters)) {
		if !wanted.counters[name] {
			w.pending++
			w.conn.DeleteObject(&nftables.CounterObj{Table: w.table, Name: name})
		}
	}
}

// addChain makes a chain, or gives an existing one the policy.
func (w *writer) addChain(name string, policy nftables.ChainPolicy) {
	w.pending++
	chain := &nftables.Chain{Name: name, Table: w.table}
	if hook, priority := hookOf(name); hook != nil {
		chain.Hooknum, chain.Priority, chain.Type, chain.Policy = hook, priority, nftables.ChainTypeFilter, &policy
	}
	w.conn.AddChain(chain)
}

// id numbers the sets of a batch. The library's own numbering is shared by all
// goroutines without a lock.
func (w *writer) id() uint32 {
	w.ids++
	return w.ids
}

func (w *writer) try(err error) {
	if w.err == nil && err != nil {
		w.err = fmt.Errorf("write batch: %w", err)
	}
}

// addRules appends the rules to the chain.
func (w *writer) addRules(chain string, rules []rule) {
	w.pending += len(rules)
	for _, r := range rules {
		for _, l := range r.literal {
			s := &nftables.Set{
				Table: w.table, ID: w.id(), Name: literalName, Anonymous: true, Constant: true, KeyType: l.typ, Interval: l.interval,
			}
			w.try(w.conn.AddSet(s, l.elements))
			l.lookup.SetID = s.ID
		}
		w.conn.AddRule(&nftables.Rule{
			Table: w.table, Chain: &nftables.Chain{Name: chain, Table: w.table}, Exprs: r.exprs, UserData: writeMarks(r.name, r.mark),
		})
	}
}

package nft

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/weirproject/weir/dataplane"
)

// elementsPerMessage keeps a list of elements within the 64 KiB that one
// netlink attribute can have: an IPv6 element takes 36 bytes. It is even, so
// that a span's two elements stay together.
const elementsPerMessage = 1024

// writer collects one batch.
type writer struct {
	conn  *nftables.Conn
	table *nftables.Table
	ids   uint32 // of the sets made in this batch
	// pending counts the batch's parts, batches those that were sent.
	pending, batches int
	err              error
}

// write turns the kernel's content from found into wanted.
//
// What packets are judged by changes in one step, with the second of three
// batches. The first makes sets that no rule looks into yet, the last removes
// those that no rule looks into any more: measured on Linux 6.18, a set that
// comes or goes in the same step as the rules that use it is found empty by
// some packets at that moment. When the agent dies in between, the next Set
// finds unused sets and removes them.
//
// It gives the number of batches.
func write(conn *nftables.Conn, found, wanted *content) (int, error) {
	w := &writer{conn: conn, table: &nftables.Table{Name: dataplane.TableName, Family: nftables.TableFamilyINet}}
	err := w.write(found, wanted)
	return w.batches, err
}

func (w *writer) write(found, wanted *content) error {
	if !wanted.exists {
		w.removeTable()
		return w.flush()
	}
	if !found.odd {
		if err := w.change(found, wanted); err == nil || w.err != nil {
			return err
		}
		// Somebody changed it since it was read: make it anew.
	}
	// All in one step, but a deleted chain keeps its hook for some microseconds
	// after it, and drops what comes by when that is its policy. Nothing opens.
	w.removeTable()
	w.addTable()
	w.create(wanted)
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
	for _, name := range slices.Sorted(maps.Keys(found.sets)) {
		if _, keep := wanted.sets[name]; !keep {
			w.pending++
			w.conn.DelSet(&nftables.Set{Table: w.table, Name: name})
		}
	}
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

// create fills a new table.
func (w *writer) create(wanted *content) {
	for _, name := range chainNames {
		w.addChain(name, wanted.chains[name])
	}
	w.addSets(newContent(), wanted)
	for _, name := range chainNames {
		w.addRules(name, wanted.rules[name], nil)
	}
}

// addSets makes the sets that were not found.
func (w *writer) addSets(found, wanted *content) {
	for _, name := range slices.Sorted(maps.Keys(wanted.sets)) {
		if _, there := found.sets[name]; !there {
			w.addSet(name, wanted.sets[name])
		}
	}
}

// changeRules changes the rules, and the elements of the sets that stay.
func (w *writer) changeRules(found, wanted *content) {
	for _, name := range chainNames {
		if p, there := found.chains[name]; !there || p != wanted.chains[name] {
			w.addChain(name, wanted.chains[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted.sets)) {
		if old, there := found.sets[name]; there {
			w.changeSet(name, old, wanted.sets[name])
		}
	}
	for _, name := range chainNames {
		if slices.EqualFunc(found.rules[name], wanted.rules[name], func(a, b rule) bool { return a.mark == b.mark }) {
			continue
		}
		if len(found.rules[name]) > 0 {
			w.pending++
			w.conn.FlushChain(&nftables.Chain{Name: name, Table: w.table})
		}
		w.addRules(name, wanted.rules[name], found.rules[name])
	}
}

// addChain makes a chain, or gives an existing one the policy.
func (w *writer) addChain(name string, policy nftables.ChainPolicy) {
	w.pending++
	hook, priority := hookOf(name)
	w.conn.AddChain(&nftables.Chain{
		Name: name, Table: w.table, Hooknum: hook, Priority: priority, Type: nftables.ChainTypeFilter, Policy: &policy,
	})
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

// kernelSet is the set as the library takes it.
func (w *writer) kernelSet(name string, v6 bool) *nftables.Set {
	s := &nftables.Set{Table: w.table, Name: name, KeyType: nftables.TypeIPAddr, Interval: true}
	if v6 {
		s.KeyType = nftables.TypeIP6Addr
	}
	return s
}

func (w *writer) addSet(name string, set addressSet) {
	s := w.kernelSet(name, set.v6)
	s.ID = w.id()
	w.pending++
	w.try(w.conn.AddSet(s, nil))
	for chunk := range slices.Chunk(elements(set.spans), elementsPerMessage) {
		w.try(w.conn.SetAddElements(s, chunk))
	}
}

// changeSet writes only the spans that differ.
func (w *writer) changeSet(name string, found, wanted addressSet) {
	s := w.kernelSet(name, wanted.v6)
	stale, fresh := difference(found.spans, wanted.spans)
	w.pending += len(stale) + len(fresh)
	for chunk := range slices.Chunk(elements(stale), elementsPerMessage) {
		w.try(w.conn.SetDeleteElements(s, chunk))
	}
	for chunk := range slices.Chunk(elements(fresh), elementsPerMessage) {
		w.try(w.conn.SetAddElements(s, chunk))
	}
}

// addRules appends the rules to the chain, with the counters of those of the
// old ones that mean the same.
func (w *writer) addRules(chain string, rules, old []rule) {
	counters := map[string]*expr.Counter{}
	for _, r := range old {
		if r.mark != "" && r.counter != nil {
			counters[r.mark] = r.counter
		}
	}
	w.pending += len(rules)
	for _, r := range rules {
		exprs := slices.Clone(r.exprs)
		for i, e := range exprs {
			if _, ok := e.(*expr.Counter); ok && counters[r.mark] != nil {
				exprs[i] = counters[r.mark]
			}
		}
		for _, l := range r.literal {
			s := &nftables.Set{
				Table: w.table, ID: w.id(), Name: literalName, Anonymous: true, Constant: true, KeyType: l.typ, Interval: l.interval,
			}
			w.try(w.conn.AddSet(s, l.elements))
			l.lookup.SetID = s.ID
		}
		w.conn.AddRule(&nftables.Rule{
			Table: w.table, Chain: &nftables.Chain{Name: chain, Table: w.table}, Exprs: exprs, UserData: writeMarks(r.name, r.mark),
		})
	}
}

package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// elementsPerMessage keeps a list of elements within the 64 KiB that one
// netlink attribute can have: a span takes up to 72 bytes, in a map 136. It is
// even, so that a span's two elements stay together.
const elementsPerMessage = 880

// writer collects one batch.
type writer struct {
	conn  *link
	table string
	ids   uint32 // of the sets made in this batch
	// stays are the addresses that sets that learn are made with, by set.
	stays    map[string]map[netip.Addr]time.Time
	messages []netlink.Message // of the batch
	batches  int               // how many were sent
	err      error
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
	if w.err != nil {
		return w.err
	}
	// The kernel takes as long for many elements as it takes to write many rules.
	sets, sent := w.messages, make(chan error, 1)
	w.messages = nil
	go func() { sent <- w.send(sets) }()
	w.changeRules(found, wanted)
	if err := <-sent; err != nil {
		return err
	}
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
	all := w.messages
	w.messages = nil
	return w.send(all)
}

func (w *writer) send(all []netlink.Message) error {
	if len(all) == 0 {
		return nil
	}
	if err := w.conn.send(all); err != nil {
		return fmt.Errorf("send batch: %w", inWords(err))
	}
	w.batches++
	return nil
}

// removeTable removes the table. Adding it first makes it no error if there is
// none.
func (w *writer) removeTable() {
	w.addTable()
	w.delTable()
}

// addSets makes the sets and counters that were not found, and for maps the
// chains, still empty, that they lead to.
func (w *writer) addSets(found, wanted *content) {
	alike := found.shapedLike(wanted)
	if !alike {
		for _, name := range wanted.chainNames() {
			if _, there := found.chains[name]; !there && !slices.Contains(baseChains, name) {
				w.addChain(name, wanted.chains[name])
			}
		}
	}
	for _, name := range missing(wanted.sets, found.sets) {
		w.addSet(name, wanted.sets[name])
	}
	if !alike {
		for _, name := range missing(wanted.counters, found.counters) {
			w.addCounter(name)
		}
	}
}

// changeRules changes chains and rules, and the elements of the sets that stay.
func (w *writer) changeRules(found, wanted *content) {
	alike := found.shapedLike(wanted)
	for _, name := range baseChains {
		if _, is := wanted.chains[name]; !is || alike {
			continue
		}
		if p, there := found.chains[name]; !there || p != wanted.chains[name] {
			w.addChain(name, wanted.chains[name])
		}
	}
	for _, name := range changing(found.sets, wanted.sets) {
		stale, fresh := found.sets[name].changes(wanted.sets[name])
		if fresh.kind == verdicts {
			stale = &set{} // a packet may be on its way to them
		}
		w.changeElements(name, wanted.sets[name], stale, fresh)
	}
	if alike {
		return
	}
	for _, name := range wanted.chainNames() {
		if sameRules(found.rules[name], wanted.rules[name]) {
			continue
		}
		if len(found.rules[name]) > 0 {
			w.flushChain(name)
		}
		w.addRules(name, wanted.rules[name])
	}
}

// removeUnused removes what nothing leads to any more.
func (w *writer) removeUnused(found, wanted *content) {
	for _, name := range changing(found.sets, wanted.sets) {
		if s := wanted.sets[name]; s.kind == verdicts {
			stale, _ := found.sets[name].changes(s)
			w.changeElements(name, s, stale, &set{})
		}
	}
	alike := found.shapedLike(wanted)
	var chains []string
	if !alike {
		chains = missing(found.chains, wanted.chains)
	}
	for _, name := range chains { // they may go to each other
		w.flushChain(name)
	}
	for _, name := range missing(found.sets, wanted.sets) {
		w.delSet(name)
	}
	for _, name := range chains {
		w.delChain(name)
	}
	if alike {
		return
	}
	for _, name := range missing(found.counters, wanted.counters) {
		w.delCounter(name)
	}
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
	for _, r := range rules {
		code := r.code
		for _, l := range r.literal {
			s := &nftables.Set{ID: w.id(), Name: literalName, Anonymous: true, Constant: true, KeyType: l.typ, Interval: l.interval}
			w.newSet(s, len(l.elements))
			w.elements(unix.NFT_MSG_NEWSETELEM, s.Name, s.ID, l.elements)
			l.lookup.SetID = s.ID
		}
		if code == nil {
			var err error
			code, err = encode(r.exprs)
			w.try(err)
		}
		w.addRule(chain, r, code)
	}
}

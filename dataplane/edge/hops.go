package edge

import (
	"net/netip"
	"sync/atomic"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// setConfig makes the programs know this node's addresses. The words that change
// are those that nobody reads, until which says so.
func (e *Edge) setConfig(w *wanted, c *dataplane.Changes) {
	cell := &e.cells.config[0]
	next := cell.Source[cell.Which&1]
	next.V4, next.V6 = bpf.EdgeAddress{}, bpf.EdgeAddress{}
	if w.source4.IsValid() {
		next.V4 = encodeAddress(w.source4)
	}
	if w.source6.IsValid() {
		next.V6 = encodeAddress(w.source6)
	}
	if cell.Source[cell.Which&1] != next {
		other := 1 - cell.Which&1
		cell.Source[other] = next
		atomic.StoreUint32(&cell.Which, other)
		e.count(c, e.made.config, "addresses", "")
	}
	if nat := natWord(w.nat); cell.Nat != nat {
		atomic.StoreUint32(&cell.Nat, nat)
		e.count(c, e.made.config && e.made.nat == w.nat, "nat", "")
	}
	e.made.config, e.made.nat = true, w.nat
}

// setHops finds the way to every node and writes new ways to ids of their own. A
// hop's cell does not change while a backend has its id.
func (e *Edge) setHops(w *wanted, c *dataplane.Changes) {
	for node := range w.nodes {
		hop, ok := e.nextHop(node)
		if !ok {
			continue
		}
		id, known := e.hops[hop]
		if !known {
			var ok bool
			if id, ok = e.hopIDs.Take(); !ok {
				e.log.Warn("table of hops is full", "holds", len(e.cells.hops)-1)
				continue
			}
			e.hops[hop] = id
		}
		if e.cells.hops[id] != hop {
			e.count(c, known, "hop", node.String())
			e.cells.hops[id] = hop
		}
		w.nodes[node] = id
	}
}

func (e *Edge) nextHop(node netip.Addr) (bpf.EdgeEdgeHop, bool) {
	if e.options.Hops == nil {
		return bpf.EdgeEdgeHop{}, false
	}
	hop, err := e.options.Hops.NextHop(node)
	if err != nil {
		e.log.Debug("next hop not known", "node", node, "error", err)
		return bpf.EdgeEdgeHop{}, false
	}
	return encodeHop(hop), true
}

// retireHops gives back the ids of ways that no backend uses any more.
func (e *Edge) retireHops(c *dataplane.Changes) {
	used := map[uint32]bool{}
	for _, s := range e.entries {
		for _, id := range s.ids {
			used[e.cells.backends[id].Hop] = true
		}
	}
	for hop, id := range e.hops {
		if !used[id] {
			delete(e.hops, hop)
			e.hopIDs.Retire(id)
			c.Removed++
		}
	}
}

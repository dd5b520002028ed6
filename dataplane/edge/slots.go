package edge

import (
	"slices"
	"time"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane/internal/room"
)

// inheritance is how long slots keep the previous backends that an earlier process
// gave them, while the table gives none: who made it may have lost its past with
// that process.
const inheritance = 5 * time.Minute

// planSlots puts the wanted slots into the terms of the maps. A slot that had a
// previous backend and has none any more still may have flows that are remembered
// to be elsewhere: it says so by naming its own backend as the previous one. So a
// connection lasts for as long as the cache remembers it, and not for as long as
// the table remembers the change.
func (e *Edge) planSlots(s *wantedService, p *plan) {
	p.slots = make([]bpf.EdgeEdgeSlot, len(s.slots))
	held := e.heldSlots(p.entry.run)
	// A table that has grown splits each slot; any other size is another table.
	split := len(held) > 0 && len(s.slots)%len(held) == 0
	moved := slices.ContainsFunc(held, func(s bpf.EdgeEdgeSlot) bool { return s.Previous != 0 })
	heirs := map[uint32]bool{}
	if split && monotonic() < p.entry.inherited {
		for _, id := range p.order {
			heirs[id] = true
		}
	}
	for i, index := range s.slots {
		slot := &p.slots[i]
		slot.Current = p.order[index]
		if s.previous != nil && s.previous[i] != index {
			slot.Previous = p.order[s.previous[i]]
			continue
		}
		var before bpf.EdgeEdgeSlot
		if split {
			before = held[i*len(held)/len(s.slots)]
		}
		switch {
		case before.Current != slot.Current && heirs[before.Current]:
			slot.Previous = before.Current
		case before.Previous != slot.Current && heirs[before.Previous]:
			slot.Previous = before.Previous
		case before.Previous != 0, !split && moved:
			slot.Previous = slot.Current
		}
	}
}

// heldSlots are those in the kernel.
func (e *Edge) heldSlots(r room.Run) []bpf.EdgeEdgeSlot {
	return e.cells.slots[r.First : r.First+r.Count]
}

package edge

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/room"
)

// entry is a service that the kernel holds.
type entry struct {
	id  uint32
	run room.Run
	ids map[endpoint]uint32 // of its backends
	// What this process wrote last; zero when an earlier process did.
	record bpf.EdgeEdgeService
	states map[endpoint]bpf.EdgeBackendState
	slots  []bpf.EdgeEdgeSlot
	// inherited is until when, by monotonic, an earlier process's word on previous
	// backends counts where the table has none.
	inherited uint64
}

// endpoint is what makes a backend the same backend: its cell never changes it.
type endpoint struct {
	addr, node bpf.EdgeAddress
	portBe     uint16
}

func endpointOf(b *bpf.EdgeEdgeBackend) endpoint { return endpoint{b.Addr, b.Node, b.PortBe} }

// plan is everything that a service needs, taken before anything is written, so
// that a full table leaves no half of it behind.
type plan struct {
	entry *entry
	fresh bool            // the service is new
	added map[uint32]bool // new backends, by id
	order []uint32        // ids in the order of the wanted backends
	slots []bpf.EdgeEdgeSlot
	run   room.Run // where the slots are or go
	moved bool     // they are not there yet
}

// setService makes the kernel hold the service: allow list and backends first,
// then the slots beside the old ones, then the record, whose run is the
// publication, and then it lets go of what the old publication used.
func (e *Edge) setService(w *wanted, s *wantedService, c *dataplane.Changes) error {
	p, err := e.plan(s)
	if err != nil {
		return err
	}
	if err := e.writeAllowed(w, s, p.entry.id, c); err != nil {
		e.drop(p)
		return err
	}
	keep := map[endpoint]bool{}
	for i := range s.backends {
		keep[endpointOf(&s.backends[i])] = true
		e.writeBackend(w, s, i, p, c)
	}
	if p.moved {
		copy(e.cells.slots[p.run.First:], p.slots)
		e.count(c, p.entry.slots != nil && slices.Equal(p.entry.slots, p.slots), "slots", s.name)
	}
	old := p.entry.run
	e.writeRecord(s, p, c)
	if p.moved {
		e.slots.Retire(old)
	}
	p.entry.slots = p.slots
	e.removeBackends(p.entry, keep, c)
	e.entries[s.name] = p.entry
	return nil
}

func (e *Edge) plan(s *wantedService) (*plan, error) {
	p := &plan{entry: e.entries[s.name], added: map[uint32]bool{}}
	if p.entry == nil {
		id, ok := e.ids.Take()
		if !ok {
			return nil, fmt.Errorf("the table of services is full: it holds %d", len(e.cells.services)-1)
		}
		p.fresh = true
		p.entry = &entry{id: id, ids: map[endpoint]uint32{}, states: map[endpoint]bpf.EdgeBackendState{}}
	}
	for i := range s.backends {
		id, known := p.entry.ids[endpointOf(&s.backends[i])]
		if !known {
			if id, known = e.backends.Take(); !known {
				e.drop(p)
				return nil, fmt.Errorf("the table of backends is full: it holds %d", len(e.cells.backends)-1)
			}
			p.added[id] = true
		}
		p.order = append(p.order, id)
	}
	e.planSlots(s, p)
	p.run = p.entry.run
	if !p.fresh && e.holds(p.run, p.slots) {
		return p, nil
	}
	taken, ok := e.slots.Take(uint32(len(p.slots)))
	if !ok {
		e.drop(p)
		return nil, fmt.Errorf("the table of slots is full: %d in a row are needed, of %d in all", len(p.slots), len(e.cells.slots))
	}
	// A run of nothing is no write: the record says it.
	p.run, p.moved = taken, taken.Count > 0 || p.entry.run.Count > 0
	return p, nil
}

// drop gives back what a plan has taken. Nothing was written, so no program has
// seen it.
func (e *Edge) drop(p *plan) {
	for id := range p.added {
		e.backends.Return(id)
	}
	if p.fresh {
		e.ids.Return(p.entry.id)
	}
	if p.moved {
		e.slots.Retire(p.run)
	}
}

// holds tells whether the slots lie in the run.
func (e *Edge) holds(r room.Run, slots []bpf.EdgeEdgeSlot) bool {
	return int(r.Count) == len(slots) && slices.Equal(e.cells.slots[r.First:r.First+r.Count], slots)
}

func (e *Edge) writeBackend(w *wanted, s *wantedService, index int, p *plan, c *dataplane.Changes) {
	id, next := p.order[index], s.backends[index]
	cell, at := &e.cells.backends[id], endpointOf(&next)
	next.Service, next.Birth = p.entry.id, cell.Birth
	next.Hop = w.nodes[decodeAddress(next.Node)]
	before, made := p.entry.states[at]
	p.entry.ids[at], p.entry.states[at] = id, next.State
	if p.added[id] {
		e.birth++
		next.Birth = e.birth
	}
	if *cell == next {
		return
	}
	if endpointOf(cell) != at || cell.Birth != next.Birth {
		// No slot holds a new id yet, but caches may remember an old one: they
		// look at state, service and birth.
		storeState(cell, stateAbsent)
		cell.Addr, cell.Node, cell.PortBe, cell.Pad, cell.Pad2 = next.Addr, next.Node, next.PortBe, 0, 0
		atomic.StoreUint32(&cell.Birth, next.Birth)
	}
	moved := cell.Hop != next.Hop || cell.Flags != next.Flags
	atomic.StoreUint32(&cell.Flags, next.Flags)
	atomic.StoreUint32(&cell.Hop, next.Hop)
	atomic.StoreUint32(&cell.Service, next.Service)
	storeState(cell, next.State)
	cell.Pad, cell.Pad2 = 0, 0
	e.count(c, made && before == next.State && !moved, "backend", s.name)
}

// writeRecord publishes. A run that moves is counted with its slots.
func (e *Edge) writeRecord(s *wantedService, p *plan, c *dataplane.Changes) {
	cell, name := &e.cells.services[p.entry.id], &e.cells.names[p.entry.id]
	next := s.cell
	next.Run, next.ChangedNs = p.run.Word(), cell.ChangedNs
	if made := p.entry.record; made.Deliver != deliverNone {
		next.ChangedNs = made.ChangedNs
	}
	if p.moved || p.fresh {
		next.ChangedNs = monotonic()
	}
	if wanted := encodeName(s.name); *name != wanted {
		if cell.Deliver == deliverNone {
			e.zero(p.entry.id)
		}
		*name = wanted
		e.count(c, p.entry.record.Deliver != deliverNone, "name", s.name)
	}
	before, made := *cell, p.entry.record
	for _, r := range []*bpf.EdgeEdgeService{&before, &made} {
		if p.moved {
			r.Run, r.ChangedNs = next.Run, next.ChangedNs
		}
	}
	if before != next {
		e.count(c, made == next, "service", s.name)
	}
	if *cell != next {
		atomic.StoreUint64(&cell.SettleNs, next.SettleNs)
		atomic.StoreUint64(&cell.SynBurstNs, next.SynBurstNs)
		atomic.StoreUint64(&cell.SynNs, next.SynNs)
		atomic.StoreUint64(&cell.ChangedNs, next.ChangedNs)
		atomic.StoreUint32((*uint32)(&cell.Deliver), uint32(next.Deliver))
		atomic.StoreUint32(&cell.Flags, next.Flags)
		atomic.StoreUint64(&cell.Run, next.Run)
		cell.Pad = next.Pad
	}
	p.entry.run, p.entry.record = p.run, next
}

// monotonic is the time by which the programs measure.
func monotonic() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0
	}
	return uint64(now.Nano())
}

// removeBackends retires those that are not wanted. Their addresses stay until
// the id is given away anew: a program that read the old run may still come.
func (e *Edge) removeBackends(s *entry, keep map[endpoint]bool, c *dataplane.Changes) {
	for at, id := range s.ids {
		if keep[at] {
			continue
		}
		storeState(&e.cells.backends[id], stateAbsent)
		e.backends.Retire(id)
		delete(s.ids, at)
		delete(s.states, at)
		c.Removed++
	}
}

// removeServices removes what is not wanted any more. No frontend leads there.
func (e *Edge) removeServices(w *wanted, c *dataplane.Changes) {
	for name, s := range e.entries {
		if w.names[name] {
			continue
		}
		e.removeBackends(s, nil, c)
		e.clearService(s.id)
		e.slots.Retire(s.run)
		e.ids.Retire(s.id)
		delete(e.entries, name)
		c.Removed++
	}
}

func (e *Edge) clearService(id uint32) {
	cell := &e.cells.services[id]
	atomic.StoreUint64(&cell.Run, 0)
	atomic.StoreUint32((*uint32)(&cell.Deliver), uint32(deliverNone))
	e.cells.names[id] = bpf.EdgeServiceName{}
}

// zero forgets what an id's earlier owner has counted. An id whose counters cannot
// be zeroed starts too high, which is no reason not to serve.
func (e *Edge) zero(id uint32) {
	_ = e.maps[bpf.EdgeMapEdgeServiceCounts].Put(id, make([]bpf.EdgeEdgeServiceCount, ebpf.MustPossibleCPU()))
	_ = e.maps[bpf.EdgeMapEdgeSyns].Put(id, bpf.EdgeEdgeSyn{})
}

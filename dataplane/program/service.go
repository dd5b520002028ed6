package program

import (
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// entry is a service that the kernel holds.
type entry struct {
	id  uint32
	run run
	ids map[endpoint]uint32 // of its backends
	// What this process wrote last; zero when an earlier process did.
	record bpf.BalanceService
	states map[endpoint]bpf.BalanceBackendState
	slots  []uint32
}

// endpoint is what makes a backend the same backend.
type endpoint struct {
	addr   bpf.BalanceAddress
	portBe uint16
}

func endpointOf(b *bpf.BalanceBackend) endpoint { return endpoint{b.Addr, b.PortBe} }

// plan is everything that a service needs, taken before anything is written,
// so that a full table leaves no half of it behind.
type plan struct {
	entry *entry
	fresh bool              // the service is new
	added map[uint32]bool   // new backends, by id
	order []uint32          // ids in the order of the wanted backends
	slots []uint32          // ids
	run   run               // where the slots are or go
	moved bool              // they are not there yet
	ids   map[endpoint]bool // wanted
}

// setService makes the kernel hold the service: backends first, then the slots
// beside the old ones, then the record, whose run is the publication, and then
// it lets go of what the old publication used.
func (b *Balancer) setService(w *wantedService, c *dataplane.Changes) error {
	p, err := b.plan(w)
	if err != nil {
		return err
	}
	e := p.entry
	for i := range w.backends {
		b.writeBackend(w, &w.backends[i], p, p.order[i], c)
	}
	if p.moved {
		copy(b.cells.slots[p.run.first:], p.slots)
		// Without this the count would miss slots that were changed in place.
		b.count(c, equal(e.slots, p.slots), "slots", w.name)
	}
	old := e.run
	e.run = p.run
	b.writeRecord(w, e, old, c)
	if p.moved {
		b.slots.retire(old)
	}
	e.slots = p.slots
	b.removeBackends(e, p.ids, c)
	b.entries[w.name] = e
	return nil
}

func equal(a, b []uint32) bool {
	if len(a) != len(b) || a == nil {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func (b *Balancer) plan(w *wantedService) (*plan, error) {
	p := &plan{entry: b.entries[w.name], added: map[uint32]bool{}, ids: map[endpoint]bool{}}
	if p.entry == nil {
		id, err := b.takeService()
		if err != nil {
			return nil, err
		}
		p.fresh = true
		p.entry = &entry{id: id, ids: map[endpoint]uint32{}, states: map[endpoint]bpf.BalanceBackendState{}}
	}
	if err := b.planBackends(w, p); err != nil {
		b.drop(p)
		return nil, err
	}
	p.slots = make([]uint32, len(w.slots))
	for i, index := range w.slots {
		p.slots[i] = p.order[index]
	}
	p.run = p.entry.run
	if !p.fresh && b.holds(p.run, p.slots) {
		return p, nil
	}
	taken, err := b.takeRun(uint32(len(p.slots)))
	if err != nil {
		b.drop(p)
		return nil, err
	}
	// A run of nothing is no write: the record says it.
	p.run, p.moved = taken, taken.count > 0 || p.entry.run.count > 0
	return p, nil
}

func (b *Balancer) planBackends(w *wantedService, p *plan) error {
	for i := range w.backends {
		at := endpointOf(&w.backends[i])
		id, known := p.entry.ids[at]
		if !known {
			var err error
			if id, err = b.takeBackend(); err != nil {
				return err
			}
			p.added[id] = true
		}
		p.order = append(p.order, id)
		p.ids[at] = true
	}
	return nil
}

// drop gives back what a plan has taken. Nothing was written, so no program
// has seen it.
func (b *Balancer) drop(p *plan) {
	for id := range p.added {
		b.backends.free = append(b.backends.free, id)
	}
	if p.fresh {
		b.ids.free = append(b.ids.free, p.entry.id)
	}
}

// holds tells whether the slots lie in the run.
func (b *Balancer) holds(r run, slots []uint32) bool {
	if int(r.count) != len(slots) {
		return false
	}
	for i, id := range slots {
		if b.cells.slots[int(r.first)+i] != id {
			return false
		}
	}
	return true
}

func (b *Balancer) writeBackend(w *wantedService, want *bpf.BalanceBackend, p *plan, id uint32, c *dataplane.Changes) {
	e, at := p.entry, endpointOf(want)
	cell := &b.cells.backends[id]
	next := *want
	next.Service = e.id
	before, made := e.states[at]
	e.ids[at], e.states[at] = id, want.State
	if *cell == next {
		return
	}
	if p.added[id] {
		zeroCounter[bpf.BalanceBackendCount](b.maps[bpf.BalanceMapBackendCounts], id)
	}
	// No slot holds a new id yet, but affinities and sockets may remember an
	// old one: they look at service and state.
	if cell.Addr != next.Addr || cell.PortBe != next.PortBe {
		storeState(cell, stateAbsent)
		cell.Addr, cell.PortBe = next.Addr, next.PortBe
	}
	atomic.StoreUint32(&cell.Service, next.Service)
	storeState(cell, next.State)
	cell.Pad, cell.Pad2 = 0, 0
	b.count(c, made && before == want.State, "backend", w.name)
}

// writeRecord publishes. A run that moves is counted with its slots.
func (b *Balancer) writeRecord(w *wantedService, e *entry, old run, c *dataplane.Changes) {
	cell, name := &b.cells.services[e.id], &b.cells.names[e.id]
	next := bpf.BalanceService{Run: e.run.encode(), AffinityNs: w.affinity, Balance: w.balance}
	if wanted := encodeName(w.name); *name != wanted {
		if cell.Balance == 0 {
			zeroCounter[bpf.BalanceServiceCount](b.maps[bpf.BalanceMapServiceCounts], e.id)
		}
		*name = wanted
		b.count(c, e.record.Balance != 0, "name", w.name)
	}
	before, made := *cell, e.record
	if made.Run == old.encode() {
		made.Run = next.Run
	}
	if before.Run == old.encode() {
		before.Run = next.Run
	}
	if before != next {
		b.count(c, made == next, "service", w.name)
	}
	if *cell != next {
		atomic.StoreUint64(&cell.AffinityNs, next.AffinityNs)
		atomic.StoreUint64(&cell.Run, next.Run)
		storeBalance(cell, next.Balance)
		cell.Pad = 0
	}
	e.record = next
}

// removeBackends retires those that are not wanted. Their addresses stay until
// the id is given away anew: a program that read the old run may still come.
func (b *Balancer) removeBackends(e *entry, keep map[endpoint]bool, c *dataplane.Changes) {
	for at, id := range e.ids {
		if keep[at] {
			continue
		}
		storeState(&b.cells.backends[id], stateAbsent)
		b.backends.retire(id)
		delete(e.ids, at)
		delete(e.states, at)
		c.Removed++
	}
}

// removeServices removes what is not wanted any more. No frontend leads there.
func (b *Balancer) removeServices(w *wanted, c *dataplane.Changes) error {
	for name, e := range b.entries {
		if w.names[name] {
			continue
		}
		b.removeBackends(e, nil, c)
		cell := &b.cells.services[e.id]
		atomic.StoreUint64(&cell.Run, 0)
		storeBalance(cell, 0)
		b.cells.names[e.id] = bpf.BalanceServiceName{}
		b.slots.retire(e.run)
		b.ids.retire(e.id)
		delete(b.entries, name)
		c.Removed++
	}
	return nil
}

// zeroCounter forgets what an id's earlier owner has counted. An id whose
// counter cannot be zeroed starts too high, which is no reason not to serve.
func zeroCounter[T any](m *ebpf.Map, id uint32) {
	_ = m.Put(id, make([]T, ebpf.MustPossibleCPU()))
}

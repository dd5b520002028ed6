package program

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/inet"
	"github.com/weirproject/weir/dataplane/internal/room"
)

// entry is a service that the kernel holds.
type entry struct {
	name     string
	id       uint32
	source   *dataplane.Service // what it is; nil when an earlier process knew
	run      room.Run
	backends []held // sorted by address
	// What this process wrote last; zero when an earlier process did.
	record    bpf.BalanceService
	slots     []uint32 // ids
	frontends []bpf.BalanceFrontendKey
}

// held is a backend that the kernel holds.
type held struct {
	at    netip.AddrPort
	id    uint32
	state bpf.BalanceBackendState // that this process wrote last, or absent
}

// plan is everything that a service needs, taken before anything is written,
// so that a full table leaves no half of it behind.
type plan struct {
	entry   *entry
	fresh   bool     // the service is new
	next    []held   // in the order of the wanted backends
	added   []uint32 // ids of new backends
	removed []held
	slots   []uint32 // ids
	run     room.Run // where the slots are or go
	moved   bool     // they are not there yet
}

// setService makes the kernel hold the service at index i: backends first,
// then the slots beside the old ones, then the record, whose run is the
// publication, and then it lets go of what the old publication used.
func (b *Balancer) setService(p *pass, i int, c *dataplane.Changes) {
	w, err := encode(p.order[i].service)
	if err == nil {
		err = b.conflict(p, p.order[i].entry, w.frontends)
	}
	var todo *plan
	if err == nil {
		todo, err = b.plan(p, p.order[i].entry, w)
	}
	if err != nil {
		p.leave(i, err)
		return
	}
	e := todo.entry
	p.order[i].entry, b.entries[w.Name] = e, e
	for n := range todo.next {
		b.writeBackend(w, n, &todo.next[n], e, c)
	}
	if todo.moved {
		copy(b.cells.slots[todo.run.First:], todo.slots)
		// Without this the count would miss slots that were changed in place.
		b.count(c, e.slots != nil && slices.Equal(e.slots, todo.slots), "slots", w.Name)
	}
	old := e.run
	e.run = todo.run
	b.writeRecord(w, e, old, c)
	if todo.moved {
		b.slots.Retire(old)
	}
	e.slots, e.backends, e.source = todo.slots, todo.next, w.Service
	b.removeBackends(e, todo.removed, c)
	p.claim(e, w.frontends)
}

func (b *Balancer) plan(p *pass, e *entry, w *wanted) (*plan, error) {
	todo := &plan{entry: e}
	if e == nil {
		id, err := b.takeService(p)
		if err != nil {
			return nil, err
		}
		todo.fresh, todo.entry = true, &entry{name: w.Name, id: id}
	}
	if err := b.planBackends(p, w, todo); err != nil {
		b.drop(todo)
		return nil, err
	}
	todo.slots = make([]uint32, len(w.Slots))
	for i, index := range w.Slots {
		todo.slots[i] = todo.next[index].id
	}
	todo.run = todo.entry.run
	if !todo.fresh && b.holds(todo.run, todo.slots) {
		return todo, nil
	}
	taken, err := b.takeRun(p, uint32(len(todo.slots)))
	if err != nil {
		b.drop(todo)
		return nil, err
	}
	// A run of nothing is no write: the record says it.
	todo.run, todo.moved = taken, taken.Count > 0 || todo.entry.run.Count > 0
	return todo, nil
}

// planBackends goes through what is held and what is wanted side by side; both
// are sorted.
func (b *Balancer) planBackends(p *pass, w *wanted, todo *plan) error {
	before := todo.entry.backends
	todo.next = make([]held, len(w.Backends))
	for i, backend := range w.Backends {
		for len(before) > 0 && before[0].at.Compare(backend.Address) < 0 {
			todo.removed, before = append(todo.removed, before[0]), before[1:]
		}
		if len(before) > 0 && before[0].at == backend.Address {
			todo.next[i], before = before[0], before[1:]
			continue
		}
		id, err := b.takeBackend(p)
		if err != nil {
			return err
		}
		todo.added = append(todo.added, id)
		todo.next[i] = held{at: backend.Address, id: id}
		b.cells.newOwner(id)
	}
	todo.removed = append(todo.removed, before...)
	return nil
}

// drop gives back what a plan has taken. Nothing was written, so no program
// has seen it.
func (b *Balancer) drop(todo *plan) {
	for _, id := range todo.added {
		b.backends.Return(id)
	}
	if todo.fresh {
		b.ids.Return(todo.entry.id)
	}
}

// holds tells whether the slots lie in the run.
func (b *Balancer) holds(r room.Run, slots []uint32) bool {
	return int(r.Count) == len(slots) && slices.Equal(b.cells.slots[r.First:r.First+r.Count], slots)
}

func (b *Balancer) writeBackend(w *wanted, i int, h *held, e *entry, c *dataplane.Changes) {
	cell, want := &b.cells.backends[h.id], &w.Backends[i]
	state, made := states[want.State], h.state
	h.state = state
	addr, port := encodeAddress(want.Address.Addr()), inet.Port(want.Address.Port())
	if cell.Addr == addr && cell.PortBe == port && cell.State == state && cell.Service == e.id {
		return
	}
	// No slot holds a new id yet, but affinities and sockets may remember an
	// old one: they look at service and state.
	if cell.Addr != addr || cell.PortBe != port {
		storeState(cell, stateAbsent)
		cell.Addr, cell.PortBe = addr, port
	}
	atomic.StoreUint32(&cell.Service, e.id)
	storeState(cell, state)
	if state == bpf.BalanceBackendStateBACKEND_DOWN {
		b.reset.lost[h.id] = true
	}
	b.count(c, made == state, "backend", w.Name)
}

// writeRecord publishes. A run that moves is counted with its slots.
func (b *Balancer) writeRecord(w *wanted, e *entry, old room.Run, c *dataplane.Changes) {
	cell, name := &b.cells.services[e.id], &b.cells.names[e.id]
	next := w.record
	next.Run = e.run.Word()
	if wanted := encodeName(w.Name); *name != wanted {
		if cell.Balance == 0 {
			atomic.StoreUint64(&cell.Gone, 0)
			zeroCounter[bpf.BalanceServiceCount](b.maps[bpf.BalanceMapServiceCounts], e.id)
		}
		*name = wanted
		b.count(c, e.record.Balance != 0, "name", w.Name)
	}
	before, made := *cell, e.record
	before.Open, before.Gone, before.Pad = 0, 0, [3]uint64{}
	e.record = next
	if before == next {
		return
	}
	if made.Run == old.Word() {
		made.Run = next.Run
	}
	if before.Run == old.Word() {
		before.Run = next.Run
	}
	if before != next {
		b.count(c, made == next, "service", w.Name)
	}
	if next.MaxOpen != 0 && cell.MaxOpen == 0 {
		atomic.StoreInt32(&cell.Open, b.cells.open(e.backends))
	}
	atomic.StoreInt32(&cell.MaxOpen, next.MaxOpen)
	atomic.StoreUint32((*uint32)(&cell.Flags), uint32(next.Flags))
	atomic.StoreUint64(&cell.AffinityNs, next.AffinityNs)
	atomic.StoreUint64(&cell.Run, next.Run)
	storeBalance(cell, next.Balance)
}

// removeBackends retires those that are not wanted. Their addresses stay until
// the id is given away anew: a program that read the old run may still come.
func (b *Balancer) removeBackends(e *entry, removed []held, c *dataplane.Changes) {
	for _, h := range removed {
		cell := &b.cells.backends[h.id]
		storeState(cell, stateAbsent)
		atomic.AddUint64(&b.cells.services[e.id].Gone, connections(cell))
		b.backends.Retire(h.id)
		b.reset.lost[h.id] = true
		c.Removed++
	}
}

// removeServices removes what is not wanted any more. No frontend leads there.
func (b *Balancer) removeServices(p *pass, c *dataplane.Changes) {
	for _, e := range p.gone {
		b.removeBackends(e, e.backends, c)
		cell := &b.cells.services[e.id]
		atomic.StoreUint64(&cell.Run, 0)
		storeBalance(cell, 0)
		b.cells.names[e.id] = bpf.BalanceServiceName{}
		b.slots.Retire(e.run)
		b.ids.Retire(e.id)
		delete(b.entries, e.name)
		c.Removed++
	}
}

// zeroCounter forgets what an id's earlier owner has counted. An id whose
// counter cannot be zeroed starts too high, which is no reason not to serve.
func zeroCounter[T any](m *ebpf.Map, id uint32) {
	_ = m.Put(id, make([]T, ebpf.MustPossibleCPU()))
}

package program

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane/internal/inet"
	"github.com/weirproject/weir/dataplane/internal/room"
)

// recover learns from the maps what an earlier process has put there: which
// ids and slots are in use, and by whom. It writes nothing.
func (b *Balancer) recover() {
	b.entries = map[string]*entry{}
	byID := map[uint32]*entry{}
	slots := room.NewClaims(uint32(len(b.cells.slots)))
	limit := b.cells.serviceLimit(b.maps)
	for id := range limit {
		cell, name := &b.cells.services[id], decodeName(&b.cells.names[id])
		if id == 0 || cell.Balance == 0 || name == "" || b.entries[name] != nil {
			continue
		}
		e := &entry{name: name, id: id}
		if r := room.RunOf(cell.Run); slots.Claim(r) {
			e.run = r
		}
		b.entries[name], byID[e.id] = e, e
	}
	usedServices, usedBackends := map[uint32]bool{}, map[uint32]bool{}
	for id := range byID {
		usedServices[id] = true
	}
	for id := range b.cells.backends {
		cell := &b.cells.backends[id]
		e := byID[cell.Service]
		if id == 0 || e == nil || cell.State == stateAbsent {
			continue
		}
		at := netip.AddrPortFrom(decodeAddress(cell.Addr), inet.Port(cell.PortBe))
		e.backends = append(e.backends, held{at: at, id: uint32(id)})
	}
	for _, e := range byID {
		slices.SortFunc(e.backends, func(x, y held) int { return x.at.Compare(y.at) })
		e.backends = slices.CompactFunc(e.backends, func(x, y held) bool { return x.at == y.at })
		for _, h := range e.backends {
			usedBackends[h.id] = true
		}
	}
	b.ids = room.NewIDs(limit, usedServices)
	b.backends = room.NewIDs(uint32(len(b.cells.backends)), usedBackends)
	b.slots = slots.Runs()
}

// sweep clears, once, what an earlier process left unfinished when it was
// killed: records that nobody can find by name, backends of no service. Then
// it waits until no program can hold an id that the earlier process retired.
func (b *Balancer) sweep() {
	if !b.adopted {
		return
	}
	b.adopted = false
	services, backends := map[uint32]bool{}, map[uint32]bool{}
	for _, e := range b.entries {
		services[e.id] = true
		for _, h := range e.backends {
			backends[h.id] = true
		}
	}
	for id := range b.cells.serviceLimit(b.maps) {
		if cell := &b.cells.services[id]; !services[id] && *cell != (bpf.BalanceService{}) {
			atomic.StoreUint64(&cell.Run, 0)
			storeBalance(cell, 0)
			b.cells.names[id] = bpf.BalanceServiceName{}
		}
	}
	for id := range b.cells.backends {
		if cell := &b.cells.backends[id]; !backends[uint32(id)] && cell.State != stateAbsent {
			storeState(cell, stateAbsent)
		}
	}
	room.Grace()
}

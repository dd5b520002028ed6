package edge

import (
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane/internal/room"
)

// recover learns from the maps what an earlier process has put there: which ids
// and slots are in use, and by whom. It writes nothing.
func (e *Edge) recover() {
	e.entries = map[string]*entry{}
	byID, services := map[uint32]*entry{}, map[uint32]bool{}
	var runs []room.Run
	taken := make([]bool, len(e.cells.slots))
	for i := range e.cells.services {
		id, cell, name := uint32(i), &e.cells.services[i], decodeName(&e.cells.names[i])
		if id == 0 || cell.Deliver == deliverNone || name == "" || e.entries[name] != nil {
			continue
		}
		s := &entry{id: id, ids: map[endpoint]uint32{}, states: map[endpoint]bpf.EdgeBackendState{}}
		if r := room.RunOf(cell.Run); claim(taken, r) {
			s.run, s.inherited = r, cell.ChangedNs+uint64(inheritance)
			runs = append(runs, r)
		}
		e.entries[name], byID[id], services[id] = s, s, true
	}
	backends, hops := map[uint32]bool{}, map[uint32]bool{}
	for i := range e.cells.backends {
		id, cell := uint32(i), &e.cells.backends[i]
		e.birth = max(e.birth, cell.Birth)
		s := byID[cell.Service]
		if id == 0 || s == nil || cell.State == stateAbsent {
			continue
		}
		if _, twice := s.ids[endpointOf(cell)]; twice {
			continue
		}
		s.ids[endpointOf(cell)] = id
		backends[id] = true
		if cell.Hop != 0 && int(cell.Hop) < len(e.cells.hops) {
			hops[cell.Hop] = true
			e.hops[e.cells.hops[cell.Hop]] = cell.Hop
		}
	}
	e.ids = room.NewIDs(uint32(len(e.cells.services)), services)
	e.backends = room.NewIDs(uint32(len(e.cells.backends)), backends)
	e.hopIDs = room.NewIDs(uint32(len(e.cells.hops)), hops)
	e.slots = room.NewRuns(uint32(len(e.cells.slots)), runs)
}

// claim marks the run's slots as taken; it refuses a run that no sane writer has
// made.
func claim(taken []bool, r room.Run) bool {
	if r.Count == 0 || uint64(r.First)+uint64(r.Count) > uint64(len(taken)) {
		return false
	}
	span := taken[r.First : r.First+r.Count]
	for _, t := range span {
		if t {
			return false
		}
	}
	for i := range span {
		span[i] = true
	}
	return true
}

// sweep clears, once, what an earlier process left unfinished when it was killed:
// records that nobody can find by name, backends of no service. Then it waits
// until no program can hold an id that the earlier process retired.
func (e *Edge) sweep() {
	if !e.adopted {
		return
	}
	e.adopted = false
	services, backends := map[uint32]bool{}, map[uint32]bool{}
	for _, s := range e.entries {
		services[s.id] = true
		for _, id := range s.ids {
			backends[id] = true
		}
	}
	for id := range e.cells.services {
		if !services[uint32(id)] && e.cells.services[id].Deliver != deliverNone {
			e.clearService(uint32(id))
		}
	}
	for id := range e.cells.backends {
		if cell := &e.cells.backends[id]; !backends[uint32(id)] && cell.State != stateAbsent {
			storeState(cell, stateAbsent)
		}
	}
	room.Grace()
}

package vip

import (
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// edgeMemory is an edge table with what its slots remember.
type edgeMemory struct {
	made *dataplane.EdgeService
	// last has the owners of slots when there were any, and before those who had
	// them before the last change, since the time changed (in Unix nanoseconds).
	// They are indexes into made.Backends, or vacant.
	last, before []uint32
	changed      []int64
	next         time.Time // when a slot forgets; zero: never
}

// service is the table; nil without a memory.
func (m *edgeMemory) service() *dataplane.EdgeService {
	if m == nil {
		return nil
	}
	return m.made
}

// keep has the memory refer to an equal table.
func (m *edgeMemory) keep(made *dataplane.EdgeService) {
	if m != nil {
		m.made = made
	}
}

// newEdgeMemory completes a new table with the slots' previous owners.
func newEdgeMemory(e *dataplane.EdgeService, old *edgeMemory, now time.Time, settle time.Duration) *edgeMemory {
	m := &edgeMemory{made: e, last: e.Slots}
	if old == nil || old.last == nil || now.IsZero() {
		return m
	}
	last, before, changed := old.carryOver(e)
	if e.Slots == nil {
		m.last, m.before, m.changed = last, before, changed
		return m
	}
	if len(last) != len(e.Slots) {
		return m // another table altogether
	}
	m.before, m.changed = before, changed
	remembers := false
	for slot, owner := range e.Slots {
		if was := last[slot]; was != owner {
			if m.before == nil {
				m.before, m.changed = slices.Repeat([]uint32{vacant}, len(last)), make([]int64, len(last))
			}
			m.before[slot], m.changed[slot] = was, now.UnixNano()
		}
		if m.before != nil && m.before[slot] != vacant {
			if m.forgets(slot, now, settle) {
				m.before[slot] = vacant
				continue
			}
			remembers = true
			m.next = earliest(m.next, time.Unix(0, m.changed[slot]).Add(settle))
		}
	}
	if !remembers {
		m.before, m.changed = nil, nil
		return m
	}
	e.Previous = slices.Clone(e.Slots)
	for slot, was := range m.before {
		if was != vacant {
			e.Previous[slot] = was
		}
	}
	return m
}

// forgets tells whether the slot's previous owner is of no use any more.
func (m *edgeMemory) forgets(slot int, now time.Time, settle time.Duration) bool {
	was := m.before[slot]
	return was == m.made.Slots[slot] || m.made.Backends[was].State == api.Down ||
		now.UnixNano()-m.changed[slot] >= settle.Nanoseconds()
}

// carryOver puts what is remembered into the terms of the new table: its
// numbers of backends, and its size if that has grown.
func (m *edgeMemory) carryOver(e *dataplane.EdgeService) (last, before []uint32, changed []int64) {
	now := make([]uint32, len(m.made.Backends))
	for i, j := 0, 0; i < len(now); i++ {
		now[i] = vacant
		for j < len(e.Backends) && e.Backends[j].Address.Compare(m.made.Backends[i].Address) < 0 {
			j++
		}
		if j < len(e.Backends) && e.Backends[j].Address == m.made.Backends[i].Address {
			now[i] = uint32(j)
		}
	}
	times := max(len(e.Slots)/len(m.last), 1)
	translate := func(owners []uint32) []uint32 {
		var all []uint32
		for _, o := range owners {
			if o != vacant {
				o = now[o]
			}
			for range times {
				all = append(all, o)
			}
		}
		return all
	}
	for _, at := range m.changed {
		for range times {
			changed = append(changed, at)
		}
	}
	return translate(m.last), translate(m.before), changed
}

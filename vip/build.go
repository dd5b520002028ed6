package vip

import (
	"net/netip"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// builder makes the tables of one service.
type builder struct {
	ref     ServiceRef
	doc     *api.Service
	fleet   *fleet
	options *Options
	// old has the service's bases by name; bases are those that it now needs.
	old, bases map[string]*Base
	next       time.Time // when to build again; zero: on a change only
}

// family makes the table of one address family.
func (b *builder) family(family int, frontends []netip.AddrPort) (*dataplane.Service, []server) {
	all, next := servers(b.ref, b.doc, family, b.fleet, b.options)
	b.next = earliest(b.next, next)
	d := &dataplane.Service{
		Name: b.ref.table(family), Protocol: b.ref.Protocol, Frontends: frontends,
		Balance: inKernel(b.doc.Balance), Affinity: b.doc.Affinity.Std(), AffinityBy: b.doc.AffinityBy,
		MaxConnections: b.doc.MaxConnections, Watch: b.doc.Outlier != nil,
	}
	d.Backends = slices.Grow(d.Backends, len(all))
	for _, s := range all {
		d.Backends = append(d.Backends, dataplane.Backend{Address: s.address, State: s.state})
	}
	load := loads(all)
	p := parts(all, load)
	weigh(d.Backends, all, load, p)
	if d.Balance == api.Maglev {
		d.Slots = b.maglev(d.Name, all, load)
	} else {
		d.Slots = shares(p)
	}
	return d, all
}

// inKernel is what the programs do for a way of balancing. They do p2c for
// least-conn: to look for the least loaded of all at every connection would
// cost more the more backends there are, and clients that see the same counts
// would all run to the same one.
func inKernel(b api.Balance) api.Balance {
	switch b {
	case "":
		return api.Random
	case api.LeastConn:
		return api.P2C
	default:
		return b
	}
}

// maglev fills a table of the backends. Each level of nearness has a table of its own,
// so that clients move among the near backends only as these change; when
// several levels are used, a slot belongs to one of them by its hash, and less
// load on a level leaves its other slots where they are.
func (b *builder) maglev(name string, all []server, load [levels]int) []uint32 {
	if b.doc.Prefer == "" {
		return b.base(name, all, b.least()).fill(levelsOf(all))
	}
	var tables [levels][]uint32
	size := 0
	for level := range tables {
		var members []server
		var numbers []uint32
		for i, s := range all {
			if s.near == level {
				members, numbers = append(members, s), append(numbers, uint32(i))
			}
		}
		if len(members) == 0 {
			continue
		}
		slots := b.base(name+levelNames[level], members, minSlots).fill(levelsOf(members))
		for i := range slots {
			slots[i] = numbers[slots[i]]
		}
		if tables[level] = slots; load[level] == 100 {
			size = len(slots)
		} else if load[level] > 0 {
			size = max(size, len(slots))
		}
	}
	return join(tables, load, size)
}

// least is the smallest size of the service's table of all backends.
func (b *builder) least() int {
	if b.doc.Edge != nil {
		return edgeSlots
	}
	return minSlots
}

// join picks each slot of the table from one of the levels' tables, by their
// loads.
func join(tables [levels][]uint32, load [levels]int, size int) []uint32 {
	var slots []uint32
	for slot := range size {
		draw := int(mix(uint64(slot)^0x6e656172) % 100)
		for level, n := range load {
			if draw -= n; draw < 0 {
				slots = append(slots, tables[level][slot*len(tables[level])/size])
				break
			}
		}
	}
	return slots
}

// base is the table of the backends whatever their health, made of the one
// before.
func (b *builder) base(name string, all []server, least int) *Base {
	if made := b.bases[name]; made != nil {
		return made
	}
	members := make([]Member, len(all))
	for i, s := range all {
		members[i] = Member{s.address, s.weight}
	}
	previous := b.old[name]
	if given := b.options.Bases[name]; given != nil && (previous == nil || slices.Equal(given.members, members)) {
		previous = given
	}
	made := NewBase(previous, members, least)
	b.bases[name] = made
	return made
}

func levelsOf(all []server) []int {
	l := make([]int, len(all))
	for i, s := range all {
		l[i] = s.level
	}
	return l
}

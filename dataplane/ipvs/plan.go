package ipvs

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// op is what a step does.
type op int

const (
	addService op = iota
	editService
	deleteService
	addDestination
	editDestination
	deleteDestination
)

// step is one change of the kernel's services.
type step struct {
	op
	at          virtual
	service     *service       // to add or edit
	destination netip.AddrPort // to add, edit or delete
	weight      uint32         // to add or edit
}

// object is what a step is about: a service, or a destination of it.
type object struct {
	at          virtual
	destination netip.AddrPort // invalid: the service itself
}

// plan lists the steps from held to wanted. First come those of the services
// that are wanted, each with its destinations: those to add before those to
// edit, so that one is there all the time, and those to delete last. Then come
// the services that are no longer wanted. A service that is held but not ours,
// by its mark or its address, is passed over.
func plan(wanted, held map[virtual]*service, ours func(netip.Addr) bool) (set, remove []step) {
	for _, v := range sorted(wanted) {
		w, h := wanted[v], held[v]
		switch {
		case h == nil:
			set = append(set, step{op: addService, at: v, service: w})
			h = &service{}
		case h.scheduler != w.scheduler || h.flags&svcFlags != w.flags || h.timeout != w.timeout:
			set = append(set, step{op: editService, at: v, service: w})
		}
		set = append(set, planDestinations(v, w.destinations, h.destinations)...)
	}
	for _, v := range sorted(held) {
		if wanted[v] == nil && (held[v].marked() || ours(v.At.Addr())) {
			remove = append(remove, step{op: deleteService, at: v})
		}
	}
	return set, remove
}

func (s *service) marked() bool { return s.flags&svcMarks == svcMark }

func planDestinations(v virtual, wanted, held map[netip.AddrPort]uint32) (steps []step) {
	for _, d := range slices.SortedFunc(maps.Keys(wanted), netip.AddrPort.Compare) {
		weight := wanted[d]
		if old, there := held[d]; !there {
			steps = append(steps, step{op: addDestination, at: v, destination: d, weight: weight})
		} else if old != weight {
			steps = append(steps, step{op: editDestination, at: v, destination: d, weight: weight})
		}
	}
	for _, d := range slices.SortedFunc(maps.Keys(held), netip.AddrPort.Compare) {
		if _, keep := wanted[d]; !keep {
			steps = append(steps, step{op: deleteDestination, at: v, destination: d})
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.op, b.op) })
	return steps
}

// sorted lists the services in the order of their addresses.
func sorted[T any](m map[virtual]T) []virtual {
	return slices.SortedFunc(maps.Keys(m), func(a, b virtual) int {
		if c := a.At.Compare(b.At); c != 0 || a.UDP == b.UDP {
			return c
		} else if b.UDP {
			return -1
		}
		return 1
	})
}

// objects lists what a service consists of, for telling a repair from a change.
func objects(services map[virtual]*service) map[object]any {
	all := map[object]any{}
	for v, s := range services {
		all[object{at: v}] = [3]any{s.scheduler, s.flags, s.timeout}
		for d, weight := range s.destinations {
			all[object{v, d}] = weight
		}
	}
	return all
}

// repairs tells whether the step brings back what an earlier Set had made
// already, so that somebody else must have changed it. made are the objects of
// that Set.
func (s step) repairs(made map[object]any) bool {
	switch s.op {
	case addService, editService:
		was, there := made[object{at: s.at}]
		return there && was == [3]any{s.service.scheduler, s.service.flags, s.service.timeout}
	case addDestination, editDestination:
		was, there := made[object{s.at, s.destination}]
		return there && was == any(s.weight)
	case deleteService:
		_, there := made[object{at: s.at}]
		return made != nil && !there
	default:
		_, there := made[object{s.at, s.destination}]
		return made != nil && !there
	}
}

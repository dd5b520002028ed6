package ipvs

import (
	"maps"
	"net/netip"

	"golang.org/x/sys/unix"
)

// fake is IPVS in memory, as strict as the kernel about what is there.
type fake struct {
	held    map[virtual]*service
	lacks   map[string]bool // schedulers
	applied []step
}

func newFake(held map[virtual]*service) *fake {
	f := &fake{held: map[virtual]*service{}, lacks: map[string]bool{}}
	for v, s := range held {
		f.held[v] = clone(s)
	}
	return f
}

func clone(s *service) *service {
	c := *s
	c.destinations = maps.Clone(s.destinations)
	return &c
}

func (f *fake) services() (map[virtual]*service, error) { return newFake(f.held).held, nil }

func (f *fake) list(func(virtual, *service, uint64) error) error { return nil }

func (f *fake) destinations(virtual, func(destination)) error { return nil }

func (f *fake) close() {}

func (f *fake) do(s step) error {
	f.applied = append(f.applied, s)
	held := f.held[s.at]
	if s.service != nil && f.lacks[s.service.scheduler] {
		return unix.ENOENT
	}
	if s.op == addService {
		if held != nil {
			return unix.EEXIST
		}
		f.held[s.at] = clone(s.service)
		f.held[s.at].destinations = map[netip.AddrPort]uint32{}
		return nil
	}
	if held == nil {
		return unix.ESRCH
	}
	_, there := held.destinations[s.destination]
	switch s.op {
	case editService:
		destinations := held.destinations
		f.held[s.at] = clone(s.service)
		f.held[s.at].destinations = destinations
	case deleteService:
		delete(f.held, s.at)
	case addDestination:
		if there {
			return unix.EEXIST
		}
		held.destinations[s.destination] = s.weight
	case editDestination, deleteDestination:
		if !there {
			return unix.ENOENT
		}
		if delete(held.destinations, s.destination); s.op == editDestination {
			held.destinations[s.destination] = s.weight
		}
	}
	return nil
}

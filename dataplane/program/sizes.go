package program

import (
	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
)

// Sizes of the maps, in elements; zero takes what bpf/maps.h says. Services
// and Backends count one more than fit: the id 0 is nobody's.
type Sizes struct {
	Services  uint32 // 64 bytes each, and 256 for the name
	Frontends uint32 // and addresses outside of the ranges; memory is taken for what exists
	Backends  uint32 // 64 bytes each
	Slots     uint32 // 4 bytes each, rounded up to 16; a change needs room beside what is there
	Clients   uint32 // that have affinity; does not grow
	Datagrams uint32 // earlier peers of UDP sockets with several virtual peers; does not grow
}

// DefaultLimits are what one node is trusted to need: 4 million backends.
func DefaultLimits() Sizes {
	return Sizes{Services: 1 << 18, Frontends: 1 << 19, Backends: 1 << 22, Slots: 1 << 26, Clients: 1 << 20, Datagrams: 1 << 20}
}

func (s Sizes) apply(spec *ebpf.CollectionSpec) {
	chunk := uint32(len(bpf.BalanceSlotChunk{}.Backend))
	for name, size := range map[string]uint32{
		bpf.BalanceMapServices: s.Services, bpf.BalanceMapNames: s.Services, bpf.BalanceMapServiceCounts: s.Services,
		bpf.BalanceMapFrontends: s.Frontends, bpf.BalanceMapAddresses: s.Frontends,
		bpf.BalanceMapBackends:   s.Backends,
		bpf.BalanceMapSlots:      (s.Slots + chunk - 1) / chunk,
		bpf.BalanceMapAffinities: s.Clients, bpf.BalanceMapDatagrams: s.Datagrams,
	} {
		if size > 0 {
			spec.Maps[name].MaxEntries = size
		}
	}
}

// growing are the fields that grow, in a fixed order.
func (s *Sizes) growing() [4]*uint32 {
	return [4]*uint32{&s.Services, &s.Frontends, &s.Backends, &s.Slots}
}

// each combines two sizes field by field.
func (s Sizes) each(o Sizes, combine func(a, b uint32) uint32) Sizes {
	mine, theirs := s.growing(), o.growing()
	for i := range mine {
		*mine[i] = combine(*mine[i], *theirs[i])
	}
	return s
}

func (s Sizes) max(o Sizes) Sizes {
	return s.each(o, func(a, b uint32) uint32 { return max(a, b) })
}

func (s Sizes) min(o Sizes) Sizes {
	return s.each(o, func(a, b uint32) uint32 { return min(a, b) })
}

// or takes the other's where a field is zero.
func (s Sizes) or(o Sizes) Sizes {
	return s.each(o, func(a, b uint32) uint32 {
		if a == 0 {
			return b
		}
		return a
	})
}

// growth doubles at least what has to grow, so that it does not happen often.
func (s Sizes) growth(now Sizes) Sizes {
	return s.each(now, func(next, now uint32) uint32 {
		if next <= now {
			return now
		}
		return max(next, 2*now)
	})
}

// covers tells whether no field is smaller than the other's.
func (s Sizes) covers(o Sizes) bool { return s.max(o) == s }

// only is the field of from that is set in s.
func (s Sizes) only(from Sizes) uint32 {
	mine, theirs := s.growing(), from.growing()
	for i := range mine {
		if *mine[i] > 0 {
			return *theirs[i]
		}
	}
	return 0
}

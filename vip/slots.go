package vip

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// A service balanced by chance takes as many slots as its weights ask for, up
// to minSlotCap, or slotsPerBackend for each backend where that is more.
const (
	minSlotCap      = 4096
	slotsPerBackend = 16
)

// shares gives every backend that is up as many slots as its weight asks for:
// exactly, by what the weights have in common, where that fits the cap, and
// rounded to the cap otherwise. Rounding moves less than a slot for each
// backend, one with a weight keeps at least one, and so all shares together are
// off by less than 1 in slotsPerBackend (2.5% for 100 backends).
func shares(backends []dataplane.Backend) []uint32 {
	divisor, total, count := 0, 0, 0
	for _, b := range backends {
		if b.State == api.Up && b.Weight > 0 {
			divisor, total, count = gcd(divisor, b.Weight), total+b.Weight, count+1
		}
	}
	if count == 0 {
		return nil
	}
	scale := func(weight int) int { return weight / divisor }
	if limit := max(minSlotCap, slotsPerBackend*count); total/divisor > limit {
		scale = func(weight int) int { return max((weight*limit+total/2)/total, 1) }
	}
	var slots []uint32
	for i, b := range backends {
		if b.State == api.Up && b.Weight > 0 {
			for range scale(b.Weight) {
				slots = append(slots, uint32(i))
			}
		}
	}
	return slots
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// maglevSizes are the table sizes: primes, some hundred times the backends
// where that is affordable.
var maglevSizes = []int{251, 1021, 4093, 16381, 65521}

// maglevSize counts every backend, also those that are not up, so that one
// that goes down and comes back does not move all clients to a table of
// another size.
func maglevSize(backends int) int {
	for _, size := range maglevSizes {
		if size >= backends*80 {
			return size
		}
	}
	return maglevSizes[len(maglevSizes)-1]
}

// turn is a backend that takes slots of a Maglev table.
type turn struct {
	backend    uint32
	next, step int // where its permutation stands, and its stride
	weight     int
	credit     int // a slot costs the heaviest weight
}

// maglev fills a lookup table by the Maglev paper (NSDI 2016, section 3.4):
// each backend has a permutation of the slots by its address and takes the
// next free one in turn, as often as its weight says. The result depends on
// the backends alone, so every node computes the same.
func maglev(backends []dataplane.Backend) []uint32 {
	size := maglevSize(len(backends))
	turns, heaviest := maglevTurns(backends, size)
	if len(turns) == 0 {
		return nil
	}
	slots := make([]uint32, size)
	taken := make([]bool, size)
	for left := size; ; {
		for i := range turns {
			t := &turns[i]
			// A backend of half the heaviest weight takes every other turn.
			if t.credit += t.weight; t.credit < heaviest {
				continue
			}
			t.credit -= heaviest
			// The stride is prime to the size, so this meets every slot.
			for taken[t.next] {
				t.next = (t.next + t.step) % size
			}
			slots[t.next], taken[t.next] = t.backend, true
			if left--; left == 0 {
				return slots
			}
		}
	}
}

// maglevTurns lists the backends that take slots, and the heaviest weight.
func maglevTurns(backends []dataplane.Backend, size int) (turns []turn, heaviest int) {
	for _, b := range backends {
		if b.State == api.Up {
			heaviest = max(heaviest, b.Weight)
		}
	}
	for i, b := range backends {
		if b.State != api.Up || b.Weight == 0 {
			continue
		}
		hash := hashAddress(b.Address)
		turns = append(turns, turn{
			backend: uint32(i), weight: b.Weight,
			next: int(hash % uint64(size)), step: int((hash>>32)%uint64(size-1)) + 1,
			// Everybody takes a slot in the first round, however light.
			credit: heaviest - b.Weight,
		})
	}
	return turns, heaviest
}

func hashAddress(a netip.AddrPort) uint64 {
	h := fnv.New64a()
	address := a.Addr().As16()
	h.Write(address[:])
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], a.Port())
	h.Write(port[:])
	return mix(h.Sum64())
}

// mix spreads the bits of a weak hash (the finaliser of splitmix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

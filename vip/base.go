package vip

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
)

// Member of a Base: a backend, whatever its health.
type Member struct {
	Address netip.AddrPort
	Weight  int // 0 to api.MaxWeight; zero takes no slots
}

// Base says which member owns which slot of a Maglev table while all of them
// are up. It depends on the members that there have been: a member that goes
// gives its slots away, one that comes takes its share from the fullest, and
// nothing else moves. So nodes agree as far as they are given the same Base. It is
// never changed.
//
// Fairness: from scratch a member has its exact share of the slots, rounded up
// or down, and at least one. After any updates it has at most 1 + ln n slots more
// than its share, of n members, and n slots are misplaced at most.
type Base struct {
	members []Member // sorted by address
	owners  []uint32 // by slot: an index into members; empty when nobody takes slots
}

// The sizes of tables are minSlots times a power of four. So a table grows without
// moving a client: since a slot is hash * size / 2^32, each of them becomes
// four, with one owner.
const (
	minSlots  = 256
	maxSlots  = 65536
	edgeSlots = 1024 // least of an edge table, where a slot is a share of all clients
	// slotsPerMember keeps what rounding misplaces at about one in a hundred. A
	// table grows when there are twice as many members as it was made for.
	slotsPerMember = 80
)

func tableSize(members, least int) int {
	size := minSlots
	for size < max(least, slotsPerMember*members) && size < maxSlots {
		size *= 4
	}
	return size
}

// NewBase makes a table of the members, of least slots or more. From scratch,
// with no previous one or none of its members left, it follows the Maglev paper
// (NSDI 2016, section 3.4) with weights. Otherwise it is the previous one with as few
// slots moved as the change asks for, and that very one if nothing changed. Of
// an address given twice the first weight counts.
func NewBase(previous *Base, members []Member, least int) *Base {
	if !slices.IsSortedFunc(members, byAddress) {
		members = slices.SortedStableFunc(slices.Values(members), byAddress)
	}
	members = slices.CompactFunc(slices.Clone(members), func(a, b Member) bool { return a.Address == b.Address })
	if previous == nil || len(previous.owners) == 0 {
		return scratch(members, tableSize(len(members), least))
	}
	grown := previous.grow(least, len(members))
	if slices.Equal(previous.members, members) {
		return grown
	}
	return grown.update(members)
}

func byAddress(a, b Member) int { return a.Address.Compare(b.Address) }

// Members of the table, sorted by address. The caller must not change them.
func (b *Base) Members() []Member { return b.members }

// Size is the number of slots; zero when no member takes any.
func (b *Base) Size() int { return len(b.owners) }

// grow returns the table with each slot repeated until it is large enough.
func (b *Base) grow(least, members int) *Base {
	size := len(b.owners)
	for size < maxSlots && (size < least || members*slotsPerMember > 2*size) {
		size *= 4
	}
	times := size / len(b.owners)
	if times == 1 {
		return b
	}
	owners := make([]uint32, 0, size)
	for _, o := range b.owners {
		for range times {
			owners = append(owners, o)
		}
	}
	return &Base{members: b.members, owners: owners}
}

// turn is a member that takes slots in its own order.
type turn struct {
	member     uint32
	next, step uint32 // where its permutation stands, and its stride
	quota      int
	taken      int
}

// scratch fills a table: each member has a permutation of the slots by its
// address, and takes the next free one in turn.
func scratch(members []Member, size int) *Base {
	b := &Base{members: members}
	turns := newTurns(members, size)
	if len(turns) == 0 {
		return b
	}
	b.owners = make([]uint32, size)
	taken := make([]bool, size)
	mask := uint32(size - 1)
	// In each round a member takes its part of its quota, rounded up, so that
	// everybody takes a slot in the first.
	rounds := max(size/len(turns), 1)
	for round := 1; round <= rounds; round++ {
		for i := range turns {
			t := &turns[i]
			for until := (t.quota*round + rounds - 1) / rounds; t.taken < until; t.taken++ {
				for taken[t.next] {
					t.next = (t.next + t.step) & mask
				}
				b.owners[t.next], taken[t.next] = t.member, true
			}
		}
	}
	return b
}

// newTurns lists the members that take slots. Sizes are powers of two, and an
// odd stride is prime to them: it meets every slot.
func newTurns(members []Member, size int) []turn {
	var turns []turn
	for i, quota := range apportion(members, size) {
		if quota == 0 {
			continue
		}
		hash := hashAddress(members[i].Address)
		turns = append(turns, turn{
			member: uint32(i), quota: quota,
			next: uint32(hash) & uint32(size-1), step: uint32(hash>>32)&uint32(size-1) | 1,
		})
	}
	return turns
}

// apportion gives every member its share of the slots by its weight, rounded
// up for those whose remainder is largest. Who would have none gets one of the
// heaviest's, as long as there are enough slots.
func apportion(members []Member, size int) []int {
	total := totalWeight(members)
	quota := make([]int, len(members))
	left := size
	for i, m := range members {
		if m.Weight > 0 {
			quota[i] = max(size*m.Weight/total, 1)
			left -= quota[i]
		}
	}
	if left == 0 || total == 0 {
		return quota
	}
	step, sign := 1, 1
	if left < 0 {
		step, sign = -1, -1
	}
	over := func(i int) int { return sign * (quota[i]*total - size*members[i].Weight) }
	q := newQueue(len(members), func(i int) bool { return quota[i] > 0 }, func(a, b int) bool {
		if last := quota[a] <= 1; step < 0 && last != (quota[b] <= 1) {
			return !last
		}
		return over(a) < over(b)
	})
	for ; left != 0; left -= step {
		quota[q.first()] += step
		q.fix()
	}
	return quota
}

func totalWeight(members []Member) int {
	total := 0
	for _, m := range members {
		total += m.Weight
	}
	return total
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

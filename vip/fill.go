package vip

// full is the level of a member that takes all of its slots.
const full = 10

// tries bounds how often a slot looks for another owner by its base: enough
// that of members which hold 7% of the slots one is found in 99% of all cases.
// When hardly anybody is up, weights count for less than an end of the search.
const tries = 64

// fill is the table of the members that can serve, as numbers of members. A
// member of level 1 to 9 takes so many tenths of its slots, and 0 is down. It is
// empty when all are.
//
// A slot whose owner does not take it has a sequence of other slots, by a hash
// of its own number, and goes to the first of their owners that does. So the
// result depends on the base and the levels alone, and not on what has been: a
// member that goes down moves its own slots only, to the others by their
// weights; when it comes back it has the same again, with several down at once too. A
// change of the base moves what it moves and the slots that lead there.
func (b *Base) fill(levels []int) []uint32 {
	f := &filler{base: b, levels: levels, hashes: make([]uint64, len(b.members))}
	partial := false
	for i, m := range b.members {
		if m.Weight == 0 || levels[i] == 0 {
			continue
		}
		f.able = append(f.able, uint32(i))
		if levels[i] < full {
			f.hashes[i] = hashAddress(m.Address)
			partial = true
		}
	}
	if len(f.able) == 0 || len(b.owners) == 0 {
		return nil
	}
	slots := make([]uint32, len(b.owners))
	for slot, owner := range b.owners {
		if !f.takes(owner, uint64(slot)) {
			owner = f.other(uint64(slot))
		}
		slots[slot] = owner
	}
	if partial {
		f.leaveNobodyOut(slots)
	}
	return slots
}

type filler struct {
	base   *Base
	levels []int
	able   []uint32 // members that take slots at all
	hashes []uint64 // of the members of a level below full
	ranks  []uint64 // of able, once they are asked for
}

// takes tells whether the member takes the slot: of the slots that it takes at
// one level it takes all at a higher one.
func (f *filler) takes(member uint32, slot uint64) bool {
	level := f.levels[member]
	return level == full || level > 0 && mix(f.hashes[member]^mix(slot+1))%full < uint64(level)
}

func (f *filler) other(slot uint64) uint32 {
	owners := f.base.owners
	seed := mix(slot+1) | 1
	for n := range uint64(tries) {
		// Sizes are powers of two.
		owner := owners[mix(seed+n<<32)&uint64(len(owners)-1)]
		if f.takes(owner, slot) {
			return owner
		}
	}
	// Few can serve: the same by members.
	members := uint64(len(f.base.members))
	for n := range uint64(tries) {
		member := uint32(mix(seed^n) % members)
		if f.base.members[member].Weight > 0 && f.takes(member, slot) {
			return member
		}
	}
	return f.highest(seed)
}

// highest is the member of the highest hash with the seed.
func (f *filler) highest(seed uint64) uint32 {
	if f.ranks == nil {
		for _, member := range f.able {
			f.ranks = append(f.ranks, hashAddress(f.base.members[member].Address))
		}
	}
	best, score := 0, uint64(0)
	for i, rank := range f.ranks {
		if s := mix(rank ^ seed); s >= score {
			best, score = i, s
		}
	}
	return f.able[best]
}

// leaveNobodyOut gives a member that can serve one slot at least: the first of
// its own.
func (f *filler) leaveNobodyOut(slots []uint32) {
	has := make([]bool, len(f.levels))
	for _, member := range slots {
		has[member] = true
	}
	for slot, owner := range f.base.owners {
		if f.levels[owner] > 0 && !has[owner] {
			slots[slot], has[owner] = owner, true
		}
	}
}

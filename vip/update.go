package vip

import "slices"

// vacant marks a slot that has no owner for the moment.
const vacant = ^uint32(0)

// update of a table to other members. Slots move for three reasons alone: the
// owner is gone, or it has become lighter and has more than its share, or a
// member that is new or has become heavier claims its share, rounded up, which
// it takes from the fullest where the first two leave too little.
type update struct {
	members []Member
	size    int
	total   int // weight
	owners  []uint32
	vacant  []uint32 // slots
	count   []int    // slots of each member
	claims  []int    // how many more it may claim
	gives   []int    // how many it still has to give away
	gets    []int    // how many of the vacant slots it gets
}

func (b *Base) update(members []Member) *Base {
	u := &update{
		members: members, size: len(b.owners), total: totalWeight(members), owners: slices.Clone(b.owners),
		count: make([]int, len(members)), claims: make([]int, len(members)),
		gives: make([]int, len(members)), gets: make([]int, len(members)),
	}
	was := u.carryOver(b)
	if len(u.vacant) == u.size {
		return scratch(members, u.size)
	}
	u.judge(was, totalWeight(b.members))
	u.share()
	u.vacate()
	u.settle()
	return &Base{members: members, owners: u.owners}
}

// carryOver gives every slot to the member that had it, and returns the weights
// that the members had; -1 is new.
func (u *update) carryOver(b *Base) (was []int) {
	now := make([]uint32, len(b.members)) // by the number that a member had
	was = slices.Repeat([]int{-1}, len(u.members))
	for i, j := 0, 0; i < len(b.members); i++ {
		now[i] = vacant
		for j < len(u.members) && byAddress(u.members[j], b.members[i]) < 0 {
			j++
		}
		if j < len(u.members) && u.members[j].Address == b.members[i].Address {
			was[j] = b.members[i].Weight
			if u.members[j].Weight > 0 {
				now[i] = uint32(j)
			}
		}
	}
	for slot, old := range b.owners {
		owner := now[old]
		u.owners[slot] = owner
		if owner == vacant {
			u.vacant = append(u.vacant, uint32(slot))
		} else {
			u.count[owner]++
		}
	}
	return was
}

// ceil is the member's share of the slots, rounded up.
func (u *update) ceil(i int) int {
	return (u.size*u.members[i].Weight + u.total - 1) / u.total
}

// over is how far the member is above its share, in slots * total weight.
func (u *update) over(i int) int { return u.count[i]*u.total - u.size*u.members[i].Weight }

// judge finds who claims slots and who has to give some.
func (u *update) judge(was []int, total int) {
	for i, m := range u.members {
		if m.Weight == 0 {
			continue
		}
		switch more := u.ceil(i) - u.count[i]; {
		case was[i] <= 0:
			u.claims[i] = more
		// A weight may grow while the share shrinks, as others grow more.
		case m.Weight > was[i] && m.Weight*total > was[i]*u.total:
			u.claims[i] = max(more, 0)
		case m.Weight < was[i] && m.Weight*total < was[i]*u.total:
			u.gives[i] = max(-more, 0)
		}
	}
}

// share decides how many slots each member gets and gives.
func (u *update) share() {
	free := len(u.vacant)
	for i, n := range u.gives {
		free += n
		u.count[i] -= n
	}
	emptier := func(a, b int) bool { return u.over(a) < u.over(b) }
	claimants := newQueue(len(u.members), func(i int) bool { return u.claims[i] > 0 }, emptier)
	fullest := newQueue(len(u.members), func(i int) bool { return u.count[i] > 1 && u.claims[i] == 0 }, func(a, b int) bool {
		return u.over(a) > u.over(b)
	})
	for claimants.Len() > 0 && (free > 0 || fullest.Len() > 0) {
		if free > 0 {
			free--
		} else {
			u.take(fullest)
		}
		i := claimants.first()
		u.gets[i]++
		u.count[i]++
		if u.claims[i]--; u.claims[i] > 0 {
			claimants.fix()
		} else {
			claimants.drop()
		}
	}
	others := newQueue(len(u.members), func(i int) bool { return u.members[i].Weight > 0 }, emptier)
	for ; free > 0; free-- {
		i := others.first()
		u.gets[i]++
		u.count[i]++
		others.fix()
	}
}

// take has the fullest member give one slot; it keeps its last.
func (u *update) take(fullest *queue) {
	i := fullest.first()
	u.gives[i]++
	if u.count[i]--; u.count[i] > 1 {
		fullest.fix()
	} else {
		fullest.drop()
	}
}

// vacate frees as many slots of each member as it gives. It comes to the slots
// in a mixed order, so that those it frees are spread over the table.
func (u *update) vacate() {
	left := 0
	for _, n := range u.gives {
		left += n
	}
	seed := mix(uint64(left)<<32 | uint64(len(u.members)))
	slot, step, mask := uint32(seed), uint32(seed>>32)|1, uint32(u.size-1)
	for ; left > 0; slot += step {
		at := slot & mask
		owner := u.owners[at]
		if owner == vacant || u.gives[owner] == 0 {
			continue
		}
		u.gives[owner]--
		left--
		u.owners[at] = vacant
		u.vacant = append(u.vacant, at)
	}
}

// settle gives the vacant slots away: each to one of those who still get some,
// by a hash of the slot.
func (u *update) settle() {
	var takers []uint32
	for i, n := range u.gets {
		if n > 0 {
			takers = append(takers, uint32(i))
		}
	}
	slices.Sort(u.vacant)
	for _, slot := range u.vacant {
		j := mix(uint64(slot)+1) % uint64(len(takers))
		taker := takers[j]
		u.owners[slot] = taker
		if u.gets[taker]--; u.gets[taker] == 0 {
			takers[j] = takers[len(takers)-1]
			takers = takers[:len(takers)-1]
		}
	}
}

package scheduler

import "sort"

// scoreOf is how much is free of all cores and memory, 0 to 2.
func scoreOf(free, all *amount) float64 {
	score := 0.0
	if all.cpu > 0 {
		score += float64(free.cpu) / float64(all.cpu)
	}
	if all.mem > 0 {
		score += float64(free.mem) / float64(all.mem)
	}
	return score
}

// rank is where a slot with this score is in the order, or is to be put.
func (t *nodes) rank(score float64, slot int32) int {
	return sort.Search(len(t.order), func(at int) bool {
		other := t.order[at]
		return t.score[other] > score || t.score[other] == score && other >= slot
	})
}

// rate counts a node's score anew, and moves the node in the order: two steps of
// a few kilobytes in memory, which is less than to look through nodes that are
// in no order.
func (t *nodes) rate(slot int32) {
	score := scoreOf(&t.free[slot], &t.all[slot])
	if score == t.score[slot] {
		return
	}
	from := t.rank(t.score[slot], slot)
	to := t.rank(score, slot)
	if to > from {
		to--
		copy(t.order[from:to], t.order[from+1:to+1])
	} else {
		copy(t.order[to+1:from+1], t.order[to:from])
	}
	t.order[to] = slot
	t.score[slot] = score
}

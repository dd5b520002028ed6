package vip

import "container/heap"

// queue holds numbers of members, the one that comes before all others first.
type queue struct {
	members []int
	before  func(a, b int) bool
}

// newQueue holds those of the first n numbers that are wanted. Of equals the
// lowest number comes first, so that the order depends on the members alone.
func newQueue(n int, wanted func(i int) bool, before func(a, b int) bool) *queue {
	q := &queue{before: before}
	for i := range n {
		if wanted(i) {
			q.members = append(q.members, i)
		}
	}
	heap.Init(q)
	return q
}

// first is the first member; the queue must not be empty.
func (q *queue) first() int { return q.members[0] }

// fix puts the first member where it belongs after its rank has changed.
func (q *queue) fix() { heap.Fix(q, 0) }

// drop takes the first member out.
func (q *queue) drop() { heap.Pop(q) }

// Len implements heap.Interface.
func (q *queue) Len() int { return len(q.members) }

// Less implements heap.Interface.
func (q *queue) Less(i, j int) bool {
	a, b := q.members[i], q.members[j]
	if q.before(a, b) {
		return true
	}
	return !q.before(b, a) && a < b
}

// Swap implements heap.Interface.
func (q *queue) Swap(i, j int) { q.members[i], q.members[j] = q.members[j], q.members[i] }

// Push implements heap.Interface; nothing is pushed.
func (q *queue) Push(any) {}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := q.members[len(q.members)-1]
	q.members = q.members[:len(q.members)-1]
	return last
}

package scheduler

import (
	"slices"
	"time"
)

// Plan decides what to do, and takes it as done: when a plan could not be stored,
// begin with a new table.
func (t *Table) Plan(now time.Time) *Plan {
	t.plan = &Plan{}
	for a, at := range t.timed {
		if !at.After(now) {
			t.touch(a)
		}
	}
	todo := make([]*app, 0, len(t.dirty))
	for a := range t.dirty {
		todo = append(todo, a)
	}
	clear(t.dirty)
	slices.SortFunc(todo, byID)
	for _, a := range todo {
		t.reconcile(a, now)
	}
	t.report()
	return t.plan
}

// report adds what is not for this plan alone: what still waits, and for when.
func (t *Table) report() {
	for _, at := range t.timed {
		if t.plan.Next.IsZero() || at.Before(t.plan.Next) {
			t.plan.Next = at
		}
	}
	waiting := make([]*app, 0, len(t.waiting))
	for a := range t.waiting {
		waiting = append(waiting, a)
	}
	slices.SortFunc(waiting, byID)
	for _, a := range waiting {
		t.plan.Pending = append(t.plan.Pending, a.pending...)
		if a.breaker != nil {
			t.plan.Breakers = append(t.plan.Breakers, *a.breaker)
		}
	}
}

package scheduler

import (
	"cmp"
	"slices"

	"github.com/weirproject/weir/api"
)

// victims are n of the instances: those that are of the least use, then those
// whose end leaves the others spread most evenly, then the youngest or oldest as
// the app wants.
func (t *Table) victims(v *view, target *Target, from []*instance, n int) []*instance {
	if n >= len(from) {
		return slices.Clone(from)
	}
	rest := slices.Clone(from)
	spread := t.crowds(target, rest)
	var all []*instance
	for range n {
		worst := 0
		for k := 1; k < len(rest); k++ {
			if t.worse(v, target, spread, rest[k], rest[worst]) {
				worst = k
			}
		}
		i := rest[worst]
		all = append(all, i)
		rest = slices.Delete(rest, worst, worst+1)
		for _, c := range spread {
			c.counts[c.column.of[i.slot]]--
		}
	}
	return all
}

// crowd counts instances by the values of a field that they are spread over.
type crowd struct {
	column *column
	counts []int32
}

// crowds are those of the app's GROUP_BY constraints, of its wishes to spread,
// and of nodes.
func (t *Table) crowds(target *Target, of []*instance) []crowd {
	var fields []string
	for _, c := range constraintsOf(&target.App) {
		if c.operator == "GROUP_BY" {
			fields = append(fields, c.field)
		}
	}
	for _, f := range target.App.Spread {
		if f != "host" {
			fields = append(fields, "@"+f)
		}
	}
	if !slices.Contains(fields, hostname) {
		fields = append(fields, hostname)
	}
	all := make([]crowd, len(fields))
	for k, f := range fields {
		c := t.nodes.column(f)
		all[k] = crowd{c, make([]int32, len(c.values))}
		for _, i := range of {
			all[k].counts[c.of[i.slot]]++
		}
	}
	return all
}

// use is how useful an instance is: what serves nobody goes first.
func (t *Table) use(v *view, target *Target, i *instance) int {
	switch {
	case t.nodes.state[i.slot] == dead:
		return 0
	case !i.Serving():
		return 1
	case t.nodes.state[i.slot] == draining || v.replaced[i.ID]:
		return 2
	case target.App.Instances == api.EveryNode && v.served(i):
		return 3
	}
	return 4
}

// served tells whether an instance of another version serves on the same node.
func (v *view) served(i *instance) bool {
	return slices.ContainsFunc(v.alive, func(o *instance) bool { return o.slot == i.slot && o.Version != i.Version && o.Serving() })
}

// paired tells whether an instance is one of two, of which one was launched to
// replace the other.
func (v *view) paired(i *instance) bool {
	return v.replaced[i.ID] || i.Replaces != "" && slices.ContainsFunc(v.alive, func(o *instance) bool { return o.ID == i.Replaces })
}

func (t *Table) worse(v *view, target *Target, spread []crowd, a, b *instance) bool {
	if x, y := t.use(v, target, a), t.use(v, target, b); x != y {
		return x < y
	}
	if x, y := v.paired(a), v.paired(b); x != y {
		return x
	}
	for _, c := range spread {
		if x, y := c.counts[c.column.of[a.slot]], c.counts[c.column.of[b.slot]]; x != y {
			return x > y
		}
	}
	age := a.Launched.Compare(b.Launched)
	if target.App.KillSelection != api.KillOldestFirst {
		age = -age
	}
	return cmp.Or(age, cmp.Compare(a.ID, b.ID)) < 0
}

// uneven are the instances to move for an even spread: from every value with two
// more than another one that has a node for it.
func (t *Table) uneven(v *view, target *Target, stay []*instance) []*instance {
	m := t.nodes.mask(&target.App, constraintsOf(&target.App))
	needs := ofApp(&target.App)
	rest := slices.Clone(stay)
	var moved []*instance
	for _, c := range t.crowds(target, rest) {
		// Values with room may take more; those without count for nothing.
		room := make([]bool, len(c.counts))
		m.each(func(slot int32) {
			if t.nodes.state[slot] == up && t.nodes.free[slot].holds(&needs) {
				room[c.column.of[slot]] = true
			}
		})
		for _, i := range moved {
			c.counts[c.column.of[i.slot]]-- // moved for another field already
		}
		for {
			most, least := extremes(c.counts, room)
			if most < 0 || least < 0 || c.counts[most]-c.counts[least] < 2 {
				break
			}
			at := slices.IndexFunc(rest, func(i *instance) bool { return c.column.of[i.slot] == most })
			if at < 0 {
				break
			}
			moved = append(moved, rest[at])
			rest = slices.Delete(rest, at, at+1)
			c.counts[most]--
			c.counts[least]++
		}
	}
	return moved
}

// extremes are the value with the most, and the one with the least of those that
// have room; -1 for none.
func extremes(counts []int32, room []bool) (most, least int32) {
	most, least = -1, -1
	for v, n := range counts {
		if most < 0 || n > counts[most] {
			most = int32(v)
		}
		if room[v] && (least < 0 || n < counts[least]) {
			least = int32(v)
		}
	}
	return most, least
}

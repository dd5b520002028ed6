package scheduler

import (
	"cmp"
	"fmt"
	"slices"
)

// fill launches what a target lacks and ends what is too much of it.
func (t *Table) fill(v *view, target *Target) {
	version := Version(&target.App)
	var stay, movers []*instance
	for _, i := range v.alive {
		switch {
		case i.Version != version:
		case v.moving[i] && !target.Keep:
			movers = append(movers, i)
		default:
			stay = append(stay, i)
		}
	}
	stay, movers = t.needed(target, stay, movers)
	if v.app.rebalance && !target.Keep && len(movers) == 0 && len(stay) == target.Count {
		movers = t.uneven(v, target, stay)
		stay = slices.DeleteFunc(stay, func(i *instance) bool { return slices.Contains(movers, i) })
	}
	if len(stay) > target.Count {
		surplus := len(stay) - target.Count
		victims := t.victims(v, target, stay, surplus)
		for _, i := range victims {
			t.kill(v, i, fmt.Sprintf("%d instances are wanted", target.Count), false)
		}
		stay = slices.DeleteFunc(stay, func(i *instance) bool { return slices.Contains(victims, i) })
	}
	lost := t.lostOf(v, version)
	launched := 0
	if need := target.Count - len(stay); need > 0 && !target.Keep {
		launched = t.launch(v, target, stay, need, append(v.unreplaced(movers), lost...))
	}
	t.endMoved(v, target, stay, movers)
	// The lost ones that are replaced, or not wanted, shall end when they come
	// back. The others may yet be what is missing.
	missing := max(target.Count-len(stay)-launched, 0)
	for n, i := range lost {
		if n >= missing {
			t.kill(v, i, "its node was lost, and others run in its place", false)
		}
	}
}

// needed lets stay what could, and was to be moved for a better spread only: when
// it is needed, and as one of many when there are too many.
func (t *Table) needed(target *Target, stay, movers []*instance) (more, rest []*instance) {
	for _, i := range movers {
		if len(stay) != target.Count && t.nodes.state[i.slot] != draining {
			stay = append(stay, i)
		} else {
			rest = append(rest, i)
		}
	}
	return stay, rest
}

func (t *Table) lostOf(v *view, version string) []*instance {
	var all []*instance
	for _, i := range v.lost {
		if i.Version == version {
			all = append(all, i)
		}
	}
	slices.SortFunc(all, func(a, b *instance) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// unreplaced are the movers that nothing was launched for yet.
func (v *view) unreplaced(movers []*instance) []*instance {
	var all []*instance
	for _, i := range movers {
		if !v.replaced[i.ID] {
			all = append(all, i)
		}
	}
	return all
}

// endMoved ends movers as far as enough others serve in their place: those that
// do not serve first.
func (t *Table) endMoved(v *view, target *Target, stay, movers []*instance) {
	serving := 0
	for _, i := range stay {
		if i.Serving() {
			serving++
		}
	}
	end := len(movers) - max(target.Count-serving, 0)
	if end <= 0 {
		return
	}
	for _, i := range t.victims(v, target, movers, end) {
		reason := "its node is drained"
		if t.nodes.state[i.slot] != draining {
			reason = "another instance runs in its place"
		}
		t.kill(v, i, reason, false)
	}
}

// everyNode has one instance on every node that fits.
func (t *Table) everyNode(v *view, target *Target) {
	version := Version(&target.App)
	m := t.nodes.mask(&target.App, constraintsOf(&target.App))
	have := map[int32]bool{}
	var stay []*instance
	for _, i := range slices.Clone(v.alive) {
		if i.Version != version {
			continue
		}
		switch {
		case !m.has(i.slot):
			t.kill(v, i, "its node does not fit any more", false)
		case t.nodes.state[i.slot] == draining:
			t.kill(v, i, "its node is drained", false)
		case have[i.slot]:
			t.kill(v, i, "its node has another one", false)
		default:
			have[i.slot] = true
			stay = append(stay, i)
		}
	}
	missing := 0
	m.each(func(slot int32) {
		if t.nodes.state[slot] == up && !have[slot] {
			missing++
		}
	})
	if missing > 0 && !target.Keep {
		t.launch(v, target, stay, missing, nil)
	}
}

package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
)

// launch starts as many instances of a target as fit, at most need, beside those
// that stay, and tells how many. Each is launched for one of those it replaces,
// as long as there are any.
func (t *Table) launch(v *view, target *Target, stay []*instance, need int, replaces []*instance) int {
	a := &target.App
	pending := Pending{App: a.ID, Version: Version(a), Count: need}
	if next := v.app.history.Next(a); next.After(v.now) {
		pending.Next = next
		v.at(next)
		v.app.pending = append(v.app.pending, pending)
		return 0
	}
	if target.Limit > 0 {
		need = min(need, target.Limit-v.total)
	}
	if need <= 0 {
		return 0
	}
	s := t.search(v, target, stay, need)
	defer s.close()
	launched := 0
	for ; launched < need; launched++ {
		slot, ports, ok := s.next()
		if !ok {
			pending.Count = need - launched
			s.explain(&pending)
			v.app.pending = append(v.app.pending, pending)
			break
		}
		l := Launch{App: a.ID, Version: pending.Version, Node: t.nodes.facts[slot].Name}
		if launched < len(replaces) {
			l.Replaces = replaces[launched].ID
		}
		l.Spec = spec(a, t.newID(a.ID), &t.nodes.facts[slot], ports)
		t.assume(v, &l, slot, s.needs)
		t.plan.Launch = append(t.plan.Launch, l)
	}
	return launched
}

// assume books what was decided, so that the next decision sees it.
func (t *Table) assume(v *view, l *Launch, slot int32, needs amount) {
	s := l.Spec
	i := &instance{
		Instance: Instance{
			ID: s.ID, App: l.App, Version: l.Version, Node: l.Node, Spec: &s, State: api.TaskStaging,
			Since: v.now, Launched: v.now, Replaces: l.Replaces,
		},
		slot: -1, needs: needs, ports: hostPorts(&s),
	}
	t.instances[i.ID] = i
	v.app.instances = append(v.app.instances, i)
	t.place(i)
	v.total++
}

// newID is a task's id as Marathon makes them, which other tools take apart.
func (t *Table) newID(app string) string {
	for {
		a, b := t.random.Uint64(), t.random.Uint64()
		a = a&^0xf000 | 0x4000         // a random UUID,
		b = b&^(3<<62) | uint64(2)<<62 // of RFC 9562
		id := fmt.Sprintf("%s.instance-%08x-%04x-%04x-%04x-%012x._app.1", strings.ReplaceAll(strings.TrimPrefix(app, "/"), "/", "_"),
			a>>32, a>>16&0xffff, a&0xffff, b>>48, b&(1<<48-1))
		if t.instances[id] == nil {
			return id
		}
	}
}

// wishes are the host ports that an app's tasks need: fixed ones, and a number
// of any. Order holds them in the order of the app's ports: -1 is for none, 0
// for any.
type wishes struct {
	order []int
	fixed []uint16
	any   int
}

func wishesOf(a *api.App) wishes {
	var w wishes
	add := func(port int) {
		w.order = append(w.order, port)
		switch {
		case port > 0:
			w.fixed = append(w.fixed, uint16(port))
		case port == 0:
			w.any++
		}
	}
	if a.HostNetwork() {
		for _, p := range a.PortDefinitions {
			if a.RequirePorts {
				add(p.Port)
			} else {
				add(0)
			}
		}
		return w
	}
	if a.Container != nil {
		for _, m := range a.Container.PortMappings {
			if m.HostPort == nil {
				add(-1)
			} else {
				add(*m.HostPort)
			}
		}
	}
	return w
}

// allot picks host ports of a node: one for each of the app's ports, 0 for one
// that is not published. Ports of no wish are taken from a place by chance, so
// that a new task seldom gets what an old one just had.
func (t *Table) allot(slot int32, w *wishes) ([]uint16, bool) {
	if len(w.order) == 0 {
		return nil, true
	}
	spans := t.nodes.spans(slot)
	size := 0
	for _, s := range spans {
		size += int(s.Last) - int(s.First) + 1
	}
	at := 0
	if w.any > 0 {
		if size <= 0 {
			return nil, false
		}
		at = t.random.IntN(size)
	}
	ports := make([]uint16, len(w.order))
	tries := 0
	for k, want := range w.order {
		if want != 0 {
			ports[k] = uint16(max(want, 0))
			continue
		}
		for ; ; tries, at = tries+1, (at+1)%size {
			if tries >= size {
				return nil, false
			}
			p := nth(spans, at)
			if !t.nodes.isUsed(slot, p) && !slices.Contains(w.fixed, p) {
				ports[k] = p
				tries, at = tries+1, (at+1)%size
				break
			}
		}
	}
	return ports, true
}

func nth(spans []api.PortSpan, n int) uint16 {
	for _, s := range spans {
		size := int(s.Last) - int(s.First) + 1
		if n < size {
			return s.First + uint16(n)
		}
		n -= size
	}
	return 0
}

package scheduler

import (
	"cmp"
	"fmt"
	"time"

	"github.com/weirproject/weir/api"
)

func byCount(a, b Reason) int {
	return cmp.Or(cmp.Compare(b.Nodes, a.Nodes), cmp.Compare(a.Text, b.Text))
}

// Explain tells why nodes would decline one more instance of a target now. Nodes
// that are in no reason would take it.
func (t *Table) Explain(target Target, now time.Time) Pending {
	a := t.apps[target.App.ID]
	if a == nil {
		a = &app{id: target.App.ID}
	}
	version := Version(&target.App)
	v := &view{now: now, app: a}
	var stay []*instance
	for _, i := range a.instances {
		if !i.State.Ended() && !i.Stopping() && i.slot >= 0 && t.nodes.state[i.slot] != dead {
			v.alive = append(v.alive, i)
			if i.Version == version {
				stay = append(stay, i)
			}
		}
	}
	s := t.search(v, &target, stay, 1)
	defer s.close()
	p := Pending{App: a.id, Version: version, Count: 1}
	if next := a.history.Next(&target.App); next.After(now) {
		p.Next = next
	}
	s.explain(&p)
	return p
}

// decline is the first reason for which a node declines one more; none when it
// does not.
func (s *search) decline(slot int32) Reason {
	n := s.t.nodes
	role := n.facts[slot].EffectiveRole()
	switch n.state[slot] {
	case dead:
		return Reason{Kind: "dead", Text: "is dead"}
	case draining:
		return Reason{Kind: "draining", Text: "is drained"}
	case suspect:
		return Reason{Kind: "suspect", Text: "does not answer"}
	}
	if !acceptsRole(s.app.AcceptedResourceRoles, role) {
		return Reason{Kind: "role", Text: fmt.Sprintf("role %s is not accepted", role)}
	}
	for _, c := range s.constraints {
		col := n.column(c.field)
		if value := col.of[slot]; !s.mask.has(slot) && !c.accepts(col)[value] {
			return Reason{Kind: "constraint", Text: fmt.Sprintf("constraint %s", c)}
		}
	}
	if r := s.lacks(slot); r.Kind != "" {
		return r
	}
	if s.perHost > 0 && s.t.scratch.same[slot] >= s.perHost {
		for _, c := range s.constraints {
			if int32(c.perHost()) == s.perHost {
				return Reason{Kind: "constraint", Text: fmt.Sprintf("constraint %s", c)}
			}
		}
		return Reason{Kind: "constraint", Text: "has its instance"}
	}
	for k := range s.rules {
		r := &s.rules[k]
		if r.allows(r.column.of[slot]) {
			continue
		}
		text := fmt.Sprintf("constraint %s", r.constraint)
		if r.operator == "GROUP_BY" && r.kinds < r.number {
			text += fmt.Sprintf(": only %d values are known", r.kinds)
		}
		return Reason{Kind: "constraint", Text: text}
	}
	return Reason{}
}

// lacks is what a node has too little of.
func (s *search) lacks(slot int32) Reason {
	n := s.t.nodes
	free, needs := n.free[slot], s.needs
	switch {
	case needs.cpu > 0 && free.cpu < needs.cpu:
		return Reason{Kind: "cpus", Text: "insufficient cpus"}
	case needs.mem > 0 && free.mem < needs.mem:
		return Reason{Kind: "mem", Text: "insufficient mem"}
	case needs.disk > 0 && free.disk < needs.disk:
		return Reason{Kind: "disk", Text: "insufficient disk"}
	case needs.gpu > 0 && free.gpu < needs.gpu:
		return Reason{Kind: "gpus", Text: "insufficient gpus"}
	}
	for _, p := range s.wishes.fixed {
		if n.isUsed(slot, p) {
			return Reason{Kind: "ports", Text: fmt.Sprintf("port %d is taken", p)}
		}
	}
	if int(n.spanFree[slot]) < s.wishes.any {
		return Reason{Kind: "ports", Text: "insufficient ports"}
	}
	return Reason{}
}

// mostFailures is how often in a row a check may fail; 0: as often as it likes.
// That is what Marathon's own checks mean by 0; those that Mesos does end the
// task at the first failure.
func mostFailures(c *api.AppCheck) int {
	most := 3
	if c.MaxConsecutiveFailures != nil {
		most = *c.MaxConsecutiveFailures
	}
	if most == 0 && onAgent(c) {
		return 1
	}
	return most
}

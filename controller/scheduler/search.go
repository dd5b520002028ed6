package scheduler

import (
	"slices"

	"github.com/weirproject/weir/api"
)

// search finds the best nodes for one target. All candidates are scored once;
// from then on every decision costs the number of domains and a logarithm.
type search struct {
	t           *Table
	app         *api.App
	constraints []constraint
	mask        *mask
	needs       amount
	wishes      wishes
	perHost     int32 // instances that a node may have; 0: any number
	rules       []rule
	// column combines the fields of all rules; its numbers are the domains.
	column  *column
	domains []domain
	// many are looked for: all candidates are kept, in order.
	many bool
	// beside others of the app, which are on some of the nodes.
	beside  bool
	refused map[int32]bool
	slots   []int32 // whose scratch to clear
}

// domain has the candidates that no rule tells apart.
type domain struct {
	known      bool // has a node to run on, if not now
	size       int  // nodes that fit, when the search began
	candidates []candidate
	one        [1]candidate // room for the best
}

type candidate struct {
	score float64 // the lower the better
	slot  int32
}

// scratch is memory that searches use again.
type scratch struct {
	hosts, same []int32 // instances of the app, and of the version, by slot
	found, all  []candidate
	domains     []domain
	domain      []int32 // of what was found
}

func (t *Table) search(v *view, target *Target, stay []*instance, need int) *search {
	a := &target.App
	s := &search{t: t, app: a, constraints: constraintsOf(a), needs: ofApp(a), wishes: wishesOf(a), many: need > 1}
	s.mask = t.nodes.mask(a, s.constraints)
	if a.Instances == api.EveryNode {
		s.perHost = 1
	}
	n := len(t.nodes.facts)
	for len(t.scratch.hosts) < n {
		t.scratch.hosts, t.scratch.same = append(t.scratch.hosts, 0), append(t.scratch.same, 0)
	}
	s.beside = len(v.alive) > 0
	for _, i := range v.alive {
		t.scratch.hosts[i.slot]++
		s.slots = append(s.slots, i.slot)
	}
	for _, i := range stay {
		t.scratch.same[i.slot]++
		s.slots = append(s.slots, i.slot)
	}
	s.makeRules()
	for k := range s.rules {
		for _, i := range stay {
			s.rules[k].add(s.rules[k].column.of[i.slot])
		}
	}
	s.find()
	return s
}

// close leaves the scratch clean.
func (s *search) close() {
	for _, slot := range s.slots {
		s.t.scratch.hosts[slot], s.t.scratch.same[slot] = 0, 0
	}
}

func (s *search) fits(slot int32) bool {
	n := s.t.nodes
	if !n.free[slot].holds(&s.needs) || int(n.spanFree[slot]) < s.wishes.any {
		return false
	}
	if s.perHost > 0 && s.t.scratch.same[slot] >= s.perHost {
		return false
	}
	if s.refused != nil && s.refused[slot] {
		return false
	}
	for _, p := range s.wishes.fixed {
		if n.isUsed(slot, p) {
			return false
		}
	}
	return true
}

// score prefers nodes with few instances of the app, and of these the fullest,
// so that room for large tasks stays in one piece.
func (s *search) score(slot int32) float64 {
	score := s.t.nodes.score[slot]
	if s.beside {
		score += 4 * float64(s.t.scratch.hosts[slot])
	}
	return score
}

// next takes the best node that there is.
func (s *search) next() (slot int32, ports []uint16, ok bool) {
	for {
		at := s.best()
		if at < 0 {
			return 0, nil, false
		}
		d := &s.domains[at]
		slot := d.candidates[0].slot
		ports, ok := s.t.allot(slot, &s.wishes)
		if !ok {
			s.refuse(d, slot)
			continue
		}
		s.beside = true
		s.t.scratch.hosts[slot]++
		s.t.scratch.same[slot]++
		s.slots = append(s.slots, slot)
		for k := range s.rules {
			s.rules[k].add(s.value(at, k))
			s.rules[k].count()
		}
		if s.many {
			s.again(d, slot)
		}
		return slot, ports, true
	}
}

// value is what a domain's nodes have in the field of a rule.
func (s *search) value(at, rule int) int32 {
	if s.column.parts == nil {
		return int32(at)
	}
	return s.column.numbered[at][rule]
}

// refuse leaves a node out whose free ports are not those that are needed.
func (s *search) refuse(d *domain, slot int32) {
	if s.many {
		d.pop()
		return
	}
	if s.refused == nil {
		s.refused = map[int32]bool{}
	}
	s.refused[slot] = true
	for at := range s.domains {
		s.domains[at].size, s.domains[at].candidates = 0, s.domains[at].candidates[:0]
	}
	s.find()
}

// again puts a node that was taken back in its place, as it will be once the
// task is booked, or takes it out when nothing more fits.
func (s *search) again(d *domain, slot int32) {
	n := s.t.nodes
	before := n.free[slot]
	n.free[slot] = before.minus(s.needs)
	fits := len(s.wishes.fixed) == 0 && int(n.spanFree[slot]) >= 2*s.wishes.any && s.fits(slot)
	score := scoreOf(&n.free[slot], &n.all[slot]) + 4*float64(s.t.scratch.hosts[slot])
	n.free[slot] = before
	if !fits {
		d.pop()
		return
	}
	d.candidates[0].score = score
	sink(d.candidates, 0)
}

func (d *domain) pop() {
	last := len(d.candidates) - 1
	d.candidates[0] = d.candidates[last]
	d.candidates = d.candidates[:last]
	sink(d.candidates, 0)
}

// best is the domain with the best candidate of those that the rules allow; -1
// when there is none.
func (s *search) best() int {
	best := -1
	for at := range s.domains {
		if len(s.domains[at].candidates) > 0 && s.allows(at) && (best < 0 || s.better(at, best)) {
			best = at
		}
	}
	return best
}

func (s *search) allows(at int) bool {
	for k := range s.rules {
		if !s.rules[k].allows(s.value(at, k)) {
			return false
		}
	}
	return true
}

func (s *search) better(a, b int) bool {
	x, y := &s.domains[a], &s.domains[b]
	for k := range s.rules {
		r := &s.rules[k]
		if r.soft {
			if n, m := r.counts[s.value(a, k)], r.counts[s.value(b, k)]; n != m {
				return n < m
			}
		}
		// All will follow the first one: where the most nodes are, they fit best.
		if r.operator == "CLUSTER" && r.total == 0 && x.size != y.size {
			return x.size > y.size
		}
	}
	return x.candidates[0].less(y.candidates[0])
}

func (c candidate) less(d candidate) bool {
	return c.score < d.score || c.score == d.score && c.slot < d.slot
}

func sink(heap []candidate, i int) {
	for {
		least := 2*i + 1
		if least >= len(heap) {
			return
		}
		if r := least + 1; r < len(heap) && heap[r].less(heap[least]) {
			least = r
		}
		if !heap[least].less(heap[i]) {
			return
		}
		heap[i], heap[least] = heap[least], heap[i]
		i = least
	}
}

// explain counts why the nodes decline.
func (s *search) explain(p *Pending) {
	n := s.t.nodes
	reasons := map[Reason]int{}
	for slot := range n.facts {
		if n.state[slot] != gone {
			p.Nodes++
			reasons[s.decline(int32(slot))]++
		}
	}
	for r, count := range reasons {
		if r.Kind != "" {
			r.Nodes = count
			p.Reasons = append(p.Reasons, r)
		}
	}
	slices.SortFunc(p.Reasons, byCount)
}

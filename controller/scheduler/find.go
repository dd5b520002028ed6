package scheduler

import (
	"math/bits"
	"slices"
)

// find collects the candidates of every domain: all of them, or only the best
// when one is enough.
func (s *search) find() {
	if s.findFirst() {
		return
	}
	n, sc := s.t.nodes, &s.t.scratch
	sc.found, sc.domain = sc.found[:0], sc.domain[:0]
	for at, word := range s.mask.bits {
		for ; word != 0; word &= word - 1 {
			slot := int32(at*64 + bits.TrailingZeros64(word))
			if n.state[slot] > suspect {
				continue
			}
			number := int32(0)
			if s.column != nil {
				number = s.column.of[slot]
				s.domains[number].known = true
			}
			if n.state[slot] != up || !s.fits(slot) {
				continue
			}
			c := candidate{s.score(slot), slot}
			if !s.many {
				s.domains[number].offer(c)
				continue
			}
			sc.found, sc.domain = append(sc.found, c), append(sc.domain, number)
			s.domains[number].size++
		}
	}
	for k := range s.rules {
		s.rules[k].know(s.domains, s.column, k)
	}
	if s.many {
		s.share()
	}
}

// findFirst looks for a single node along the order of scores, where the first
// that fits is the best: as long as no rule prefers one domain to another. It
// tells whether it has found one.
func (s *search) findFirst() bool {
	if s.many {
		return false
	}
	for k := range s.rules {
		r := &s.rules[k]
		if r.operator == "CLUSTER" || r.total > 0 && (r.soft || r.operator == "GROUP_BY") {
			return false
		}
	}
	n := s.t.nodes
	for _, slot := range n.order {
		if n.state[slot] != up || !s.mask.has(slot) || s.beside && s.t.scratch.hosts[slot] > 0 || !s.fits(slot) {
			continue
		}
		number := 0
		if s.column != nil {
			number = int(s.column.of[slot])
			if !s.allows(number) {
				continue
			}
		}
		s.domains[number].offer(candidate{n.score[slot], slot})
		return true
	}
	return false
}

// offer keeps the better one of a candidate and what is there.
func (d *domain) offer(c candidate) {
	d.size++
	if d.size == 1 {
		d.one[0] = c
		d.candidates = d.one[:]
	} else if c.less(d.candidates[0]) {
		d.candidates[0] = c
	}
}

// share gives every domain what was found of it, as a heap.
func (s *search) share() {
	sc := &s.t.scratch
	sc.all = slices.Grow(sc.all[:0], len(sc.found))
	rest := sc.all[:len(sc.found)]
	for at := range s.domains {
		d := &s.domains[at]
		d.candidates, rest = rest[:0:d.size], rest[d.size:]
	}
	for n, c := range sc.found {
		d := &s.domains[sc.domain[n]]
		d.candidates = append(d.candidates, c)
	}
	for at := range s.domains {
		heap := s.domains[at].candidates
		for i := len(heap)/2 - 1; i >= 0; i-- {
			sink(heap, i)
		}
	}
}

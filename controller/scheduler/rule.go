package scheduler

import "strings"

// rule is a counted constraint, or a wish to spread, over the values of a field.
type rule struct {
	constraint
	soft   bool
	column *column
	counts []int32
	known  []bool
	least  int32 // of the counts of known values
	kinds  int   // known values
	total  int32
}

func (s *search) makeRules() {
	for _, c := range s.constraints {
		if n := c.perHost(); n > 0 {
			if s.perHost == 0 || int32(n) < s.perHost {
				s.perHost = int32(n)
			}
			continue
		}
		if c.counted() {
			s.rules = append(s.rules, rule{constraint: c})
		}
	}
	for _, field := range s.app.Spread {
		if field != "host" { // nodes are spread over anyway
			s.rules = append(s.rules, rule{constraint: constraint{field: "@" + field}, soft: true})
		}
	}
	if len(s.rules) == 0 {
		s.domains = s.t.scratch.clean(1)
		return
	}
	fields := make([]string, len(s.rules))
	for k := range s.rules {
		r := &s.rules[k]
		fields[k] = r.field
		r.column = s.t.nodes.column(r.field)
		r.counts, r.known = make([]int32, len(r.column.values)), make([]bool, len(r.column.values))
	}
	s.column = s.t.nodes.column(strings.Join(fields, separator))
	s.domains = s.t.scratch.clean(len(s.column.values))
}

// know notes which values have a node to run on, as their domains tell; the rule
// is the k-th of the column's.
func (r *rule) know(domains []domain, c *column, k int) {
	r.kinds = 0
	clear(r.known)
	for at := range domains {
		value := int32(at)
		if c.parts != nil {
			value = c.numbered[at][k]
		}
		if domains[at].known && !r.known[value] {
			r.known[value] = true
			r.kinds++
		}
	}
	r.count()
}

func (r *rule) add(value int32) {
	r.counts[value]++
	r.total++
}

// count finds the least count of the known values.
func (r *rule) count() {
	if r.operator != "GROUP_BY" {
		return
	}
	r.least = -1
	for v, known := range r.known {
		if known && (r.least < 0 || r.counts[v] < r.least) {
			r.least = r.counts[v]
		}
	}
	if r.kinds < r.number {
		r.least = 0 // values that are not known yet have none
	}
}

// allows tells whether one more may have this value.
func (r *rule) allows(value int32) bool {
	n := r.counts[value]
	switch {
	case r.soft:
		return true
	case r.operator == "UNIQUE":
		return n == 0
	case r.operator == "MAX_PER":
		return int(n) < r.number
	case r.operator == "GROUP_BY":
		return n <= r.least
	case r.operator == "CLUSTER":
		return n == r.total
	}
	return true
}

// clean is room for so many domains.
func (sc *scratch) clean(n int) []domain {
	if cap(sc.domains) < n {
		sc.domains = make([]domain, n)
	}
	sc.domains = sc.domains[:n]
	clear(sc.domains)
	return sc.domains
}

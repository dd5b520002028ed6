package zones

import (
	"maps"
	"net/netip"
	"slices"
)

// classes part all addresses into sets that no region tells apart: two
// addresses of one class are in the same regions, so every rule judges them
// alike.
type classes struct {
	all []class
	of  map[string][]int // classes of a region, by its key
}

// class is one of them. It has addresses of one family only.
type class struct {
	spans   space
	regions []string // keys, sorted
}

// example is one address of it.
func (c class) example() netip.Addr { return c.spans[0].lo }

func (c class) v4() bool { return c.example().Is4() }

func (c class) in(key string) bool {
	_, found := slices.BinarySearch(c.regions, key)
	return found
}

// edge is where regions begin or end.
type edge struct {
	at     netip.Addr // the first address that is inside, or behind the last one
	region int
	begins bool
}

// classify makes the classes. The regions' keys must differ, or their spaces
// be the same.
func classify(regions map[string]space) *classes {
	keys := slices.Sorted(maps.Keys(regions))
	var edges []edge
	for i, key := range keys {
		for _, s := range regions[key] {
			edges = append(edges, edge{s.lo, i, true})
			if next := s.hi.Next(); next.IsValid() {
				edges = append(edges, edge{next, i, false})
			}
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at.Compare(b.at) })
	c := &classes{of: map[string][]int{}}
	w := walker{classes: c, keys: keys, active: make([]bool, len(keys)), marks: marks(len(keys)), known: map[[2]uint64]int{}}
	for i, whole := range everywhere() {
		if i > 0 { // what reached the end of IPv4 has no edge there
			clear(w.active)
			w.sum = [2]uint64{}
		}
		edges = w.walk(whole, edges)
	}
	for i := range c.all {
		for _, key := range c.all[i].regions {
			c.of[key] = append(c.of[key], i)
		}
	}
	return c
}

// walker goes through the addresses of one family in their order.
type walker struct {
	*classes
	keys   []string
	active []bool      // the regions that the present address is in
	marks  [][2]uint64 // of the regions; their sum tells sets of regions apart
	sum    [2]uint64
	known  map[[2]uint64]int // classes by the sum, within the family
}

// marks are numbers without any relation (splitmix64).
func marks(n int) [][2]uint64 {
	all := make([][2]uint64, n)
	state := uint64(n)
	next := func() uint64 {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return z ^ z>>31
	}
	for i := range all {
		all[i] = [2]uint64{next(), next()}
	}
	return all
}

// walk takes the edges of the family and gives the rest.
func (w *walker) walk(whole span, edges []edge) []edge {
	clear(w.known)
	from := whole.lo
	for len(edges) > 0 && edges[0].at.BitLen() == whole.lo.BitLen() {
		at := edges[0].at
		if from.Less(at) {
			w.add(span{from, at.Prev()})
			from = at
		}
		for len(edges) > 0 && edges[0].at == at {
			e := edges[0]
			if w.active[e.region] != e.begins {
				w.active[e.region] = e.begins
				w.sum[0] ^= w.marks[e.region][0]
				w.sum[1] ^= w.marks[e.region][1]
			}
			edges = edges[1:]
		}
	}
	w.add(span{from, whole.hi})
	return edges
}

func (w *walker) add(s span) {
	i, known := w.known[w.sum]
	if !known {
		i = len(w.all)
		w.known[w.sum] = i
		var in []string
		for r, active := range w.active {
			if active {
				in = append(in, w.keys[r])
			}
		}
		w.all = append(w.all, class{regions: in})
	}
	w.all[i].spans = append(w.all[i].spans, s)
}

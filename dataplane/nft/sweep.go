package nft

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// changed gives the regions in which inputs differ from those of the last map,
// when that is known without looking at all of them.
func changed(inputs []*set, last *set) (regions []span, known bool) {
	if last == nil || len(last.inputs) != len(inputs) {
		return nil, false
	}
	for i, in := range inputs {
		switch old := last.inputs[i]; {
		case in == old:
		case in.from == old:
			regions = slices.Concat(regions, in.stale, in.fresh)
		default:
			return nil, false
		}
	}
	return join(regions), true
}

// sweep goes over the spans of all inputs in the order of addresses, and gives
// the classes of what lies in any of them. It reports false when two classes
// would have the same number.
func (d *dispatch) sweep(inputs [][]span) ([]span, bool) {
	type edge struct {
		at    addr
		input int
		opens bool
	}
	var edges []edge
	for i, in := range inputs {
		for _, s := range in {
			edges = append(edges, edge{s.first, i, true})
			if next := s.last.Next(); next.IsValid() {
				edges = append(edges, edge{next, i, false})
			}
		}
	}
	slices.SortFunc(edges, func(a, b edge) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.input, b.input))
	})
	var out []span
	var open []int
	numbers := map[string]uint32{}
	for i := 0; i < len(edges); {
		at := edges[i].at
		for ; i < len(edges) && edges[i].at == at; i++ {
			j, there := slices.BinarySearch(open, edges[i].input)
			switch {
			case edges[i].opens && !there:
				open = slices.Insert(open, j, edges[i].input)
			case !edges[i].opens && there:
				open = slices.Delete(open, j, j+1)
			}
		}
		if len(open) == 0 {
			continue
		}
		class, ok := d.number(open, numbers)
		if !ok {
			return nil, false
		}
		last := at.highest()
		if i < len(edges) {
			last = edges[i].at.Prev()
		}
		if n := len(out) - 1; n >= 0 && out[n].class == class && out[n].last.Next() == at {
			out[n].last = last
			continue
		}
		out = append(out, span{at, last, class})
	}
	return out, true
}

// number gives the class of a combination of sets. It comes from their names
// alone, so that it is the same after a restart.
func (d *dispatch) number(open []int, known map[string]uint32) (uint32, bool) {
	key := make([]byte, 0, 4*len(open))
	for _, i := range open {
		key = binary.NativeEndian.AppendUint32(key, uint32(i))
	}
	if class, ok := known[string(key)]; ok {
		return class, true
	}
	names := make([]string, len(open))
	for i, n := range open {
		names[i] = d.sets[n]
	}
	class := digest(strings.Join(names, " "))
	if other, taken := d.of[class]; taken && !slices.Equal(other, open) || class == 0 {
		return 0, false
	}
	d.of[class] = slices.Clone(open)
	known[string(key)] = class
	return class, true
}

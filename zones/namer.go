package zones

import (
	"maps"
	"slices"

	"github.com/weirproject/weir/api"
)

// namer gives sets of classes the names that people know.
type namer struct {
	*classes
	view    *View
	prefix  string
	outside []int // classes in no zone
}

// oneFamily tells whether the zones have addresses of one family only.
func (n namer) oneFamily(e Ends) bool {
	seen := map[bool]bool{}
	for _, z := range e.Zones {
		switch z {
		case api.AnyZone:
			return false
		case OutsideZones:
			for _, i := range n.outside {
				seen[n.all[i].v4()] = true
			}
		default:
			for _, i := range n.of[n.prefix+z] {
				seen[n.all[i].v4()] = true
			}
		}
	}
	return len(seen) < 2
}

// ends names classes of one family: by the zones that they make up, the largest
// first, and the rest by address.
func (n namer) ends(some []int) Ends {
	left, all := map[int]bool{}, map[int]bool{}
	for _, i := range some {
		left[i], all[i] = true, true
	}
	v4 := n.all[some[0]].v4()
	take := func(classes []int) bool {
		var ofFamily []int
		fresh := false
		for _, i := range classes {
			if n.all[i].v4() != v4 {
				continue
			}
			if !all[i] {
				return false
			}
			ofFamily = append(ofFamily, i)
			fresh = fresh || left[i]
		}
		for _, i := range ofFamily {
			delete(left, i)
		}
		return fresh
	}
	var everything []int
	for i := range n.all {
		everything = append(everything, i)
	}
	var e Ends
	if take(everything) {
		return Ends{Zones: []string{api.AnyZone}}
	}
	zones := slices.Clone(n.view.zones)
	slices.SortStableFunc(zones, func(a, b string) int { return len(n.of[n.prefix+b]) - len(n.of[n.prefix+a]) })
	for _, z := range zones {
		if take(n.of[n.prefix+z]) {
			e.Zones = append(e.Zones, z)
		}
	}
	slices.Sort(e.Zones)
	if take(n.outside) {
		e.Zones = append(e.Zones, OutsideZones)
	}
	var rest space
	for _, i := range slices.Sorted(maps.Keys(left)) {
		rest = append(rest, n.all[i].spans...)
	}
	e.Blocks = rest.normalize().prefixes()
	if len(e.Zones) == 0 {
		return n.complement(some, v4, e)
	}
	return e
}

// complement says the same as the blocks in terms of what is not in them, when
// that is shorter.
func (n namer) complement(some []int, v4 bool, e Ends) Ends {
	var without space
	for i, c := range n.all {
		if _, in := slices.BinarySearch(some, i); !in && c.v4() == v4 {
			without = append(without, c.spans...)
		}
	}
	if but := without.normalize().prefixes(); len(but) < len(e.Blocks) {
		return Ends{Zones: []string{api.AnyZone}, But: but}
	}
	return e
}

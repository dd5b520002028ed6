package zones

import (
	"slices"

	"github.com/weirproject/weir/api"
)

// Matrix says what is open between the zones.
type Matrix struct {
	// Zones in the order of rows and columns: the policy's by name, and last
	// OutsideZones, all addresses that are in none, but for multicast, loopback
	// and those of a link alone.
	Zones []string `json:"zones"`
	// Cells by source, then destination.
	Cells [][]Cell `json:"cells"`
}

// Cell is what is open from one zone to another.
type Cell struct {
	// Open are the ports that are open from all of the one to all of the other,
	// as far as their address families agree.
	Open []api.PortRange `json:"open,omitempty"`
	// Partly are those that are open for some addresses only.
	Partly []api.PortRange `json:"partly,omitempty"`
	// Rules that open them, in the order of the policy.
	Rules []string `json:"rules,omitempty"`
	// Empty is set when there is no flow at all: a zone has no members, or they
	// have no address family in common.
	Empty bool `json:"empty,omitempty"`
}

// Matrix works out what is open between every two zones for straight flows. A
// cell to OutsideZones is what the egress rules leave open for the fleet.
func (v *View) Matrix() Matrix {
	m := Matrix{Zones: append(slices.Clone(v.zones), OutsideZones)}
	c := v.classes()
	f := v.flows(c, "", path{})
	members := make([][]int, len(m.Zones))
	for i, z := range m.Zones {
		members[i] = c.of[z]
		if z != OutsideZones {
			continue
		}
		for j, x := range c.all {
			if !x.in("/zoned") && !x.in("/special") {
				members[i] = append(members[i], j)
			}
		}
	}
	m.Cells = make([][]Cell, len(m.Zones))
	for i := range m.Zones {
		for j := range m.Zones {
			m.Cells[i] = append(m.Cells[i], cellOf(f, members[i], members[j]))
		}
	}
	v.nameRules(m, f, members)
	return m
}

func cellOf(f flows, from, to []int) Cell {
	all, some, any := everyPort(), portSpace(nil), false
	f.each(from, to, func(x pair) {
		any = true
		open := f.open[x]
		some = some.union(open)
		if !all.equal(open) {
			all = all.intersect(open)
		}
	})
	if !any {
		return Cell{Empty: true}
	}
	return Cell{Open: all.ranges(), Partly: some.subtract(all).ranges()}
}

// nameRules lists in each cell the rules that open something in it.
func (v *View) nameRules(m Matrix, f flows, members [][]int) {
	zonesOf := make([][]int, len(f.all)) // indexes in m.Zones by class
	for zone, classes := range members {
		for _, c := range classes {
			zonesOf[c] = append(zonesOf[c], zone)
		}
	}
	zonesIn := func(key string) []int {
		seen := make([]bool, len(m.Zones))
		for _, c := range f.of[key] {
			for _, z := range zonesOf[c] {
				seen[z] = true
			}
		}
		var all []int
		for z, is := range seen {
			if is {
				all = append(all, z)
			}
		}
		return all
	}
	for _, r := range v.rules {
		for _, t := range r.terms {
			to := zonesIn(t.to.key)
			for _, i := range zonesIn(t.from.key) {
				for _, j := range to {
					cell := &m.Cells[i][j]
					n := len(cell.Rules)
					if len(cell.Open)+len(cell.Partly) > 0 && (n == 0 || cell.Rules[n-1] != r.Name) {
						cell.Rules = append(cell.Rules, r.Name)
					}
				}
			}
		}
	}
}

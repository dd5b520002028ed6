package vip

import (
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// The levels of nearness of a backend: on this node, in its zone, elsewhere. A
// service that prefers nobody has all of its backends at the first level.
const levels = 3

// levelNames end the names of the levels' base tables.
var levelNames = [levels]string{" node", " zone", " rest"}

// nearness is the level of a backend on the node. Where this node has no zone,
// nobody is in it.
func (f *fleet) nearness(p api.Prefer, node string) int {
	switch {
	case p == "":
		return 0
	case p == api.PreferNode && node != "" && node == f.self:
		return 0
	case node != "" && f.zone != "" && f.zones[node] == f.zone:
		return 1
	default:
		return 2
	}
}

// spillPercent of the part of a level's weight that is up is what the level can
// take: it takes all while 5 of 7 are up, since the others can bear that much
// more.
const spillPercent = 140

// loads are the percentages of connections for each level. The nearest takes
// min(100, 140 * up / all), by weight, where all has the backends of any state;
// the next one takes as much of the rest as it can by the same rule, and so on. If all of them
// together can take less than everything, each takes in proportion. (This is
// Envoy's rule for priority levels.) They add up to 100, or to 0 when nobody is
// up.
func loads(all []server) (load [levels]int) {
	var up, weight [levels]int
	for _, s := range all {
		weight[s.near] += s.weight
		if s.level > 0 {
			up[s.near] += s.weight
		}
	}
	var able [levels]int
	total := 0
	for i := range able {
		if up[i] > 0 {
			able[i] = max(min(spillPercent*up[i]/weight[i], 100), 1)
			total += able[i]
		}
	}
	left, last := 100, 0
	for i := range load {
		if able[i] == 0 {
			continue
		}
		load[i] = min(able[i], left)
		if total < 100 {
			load[i] = able[i] * 100 / total
		}
		left -= load[i]
		last = i
	}
	if total > 0 {
		load[last] += left // what rounding left
	}
	return load
}

// exactParts bounds the numbers in which parts are counted exactly.
const exactParts = 1 << 24

// parts are the backends' shares of all connections, in proportion: by weight
// and slow start within a level, and by the loads between levels.
func parts(all []server, load [levels]int) []uint64 {
	var sum [levels]uint64
	for _, s := range all {
		sum[s.near] += uint64(s.weight * s.level)
	}
	// A backend's part is weight * level * load / sum, all over one denominator.
	denominator := uint64(1)
	for i := range sum {
		if sum[i] > 0 && load[i] > 0 {
			d := sum[i] / gcd(sum[i], uint64(load[i]))
			if denominator = denominator / gcd(denominator, d) * d; denominator > exactParts {
				denominator = exactParts
				break
			}
		}
	}
	p := make([]uint64, len(all))
	for i, s := range all {
		if s.level == 0 || load[s.near] == 0 {
			continue
		}
		p[i] = max(uint64(s.weight*s.level)*uint64(load[s.near])*denominator/sum[s.near], 1)
	}
	return p
}

// adjusted tells whether the shares are not what the weights say: somebody
// starts slowly, or connections go to more than one level.
func adjusted(all []server, load [levels]int) bool {
	used := 0
	for _, n := range load {
		if n > 0 {
			used++
		}
	}
	for _, s := range all {
		if s.level > 0 && s.level < full {
			return true
		}
	}
	return used > 1
}

// weigh sets the weights for sinks that have no slots: the documents', without
// those of levels that get nothing, or the real shares scaled to api.MaxWeight
// where they differ.
func weigh(backends []dataplane.Backend, all []server, load [levels]int, p []uint64) {
	scaled := adjusted(all, load)
	most := uint64(1)
	for _, n := range p {
		most = max(most, n)
	}
	for i, s := range all {
		switch {
		case s.level > 0 && load[s.near] == 0:
			backends[i].Weight = 0
		case s.level > 0 && scaled:
			backends[i].Weight = int(max((p[i]*api.MaxWeight+most/2)/most, 1))
		default:
			backends[i].Weight = s.weight
		}
	}
}

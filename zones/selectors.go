package zones

import (
	"maps"
	"slices"

	"github.com/weirproject/weir/api"
)

// selectors find the zones that a node may be in without a look at all of them:
// each is filed under one thing that it asks for.
type selectors struct {
	policy *api.Policy
	byName map[string][]string
	byZone map[string][]string
	byPair map[[2]string][]string
	byRole map[string][]string
	absent map[string][]string // zones by an attribute that is to be empty
	moving []string            // zones of apps and services
}

func newSelectors(p *api.Policy) selectors {
	x := selectors{policy: p, byName: map[string][]string{}, byZone: map[string][]string{}, byPair: map[[2]string][]string{}, byRole: map[string][]string{}, absent: map[string][]string{}}
	for _, name := range slices.Sorted(maps.Keys(p.Zones)) {
		z := p.Zones[name]
		if z.Apps != nil || len(z.Services) > 0 {
			x.moving = append(x.moving, name)
		}
		if s := z.Nodes; s != nil {
			x.file(name, s)
		}
	}
	return x
}

func (x selectors) file(zone string, s *api.NodeSelector) {
	switch {
	case len(s.Names) > 0:
		for _, n := range slices.Compact(slices.Sorted(slices.Values(s.Names))) {
			x.byName[n] = append(x.byName[n], zone)
		}
	case s.Zone != "":
		x.byZone[s.Zone] = append(x.byZone[s.Zone], zone)
	case len(s.Attributes) > 0:
		k := slices.Min(slices.Collect(maps.Keys(s.Attributes)))
		if v := s.Attributes[k]; v == "" {
			x.absent[k] = append(x.absent[k], zone)
		} else {
			x.byPair[[2]string{k, v}] = append(x.byPair[[2]string{k, v}], zone)
		}
	default:
		x.byRole[s.Role] = append(x.byRole[s.Role], zone) // "" selects all
	}
}

// zonesOf lists the zones whose selectors match the node, sorted.
func (x selectors) zonesOf(n api.Node) []string {
	var all []string
	try := func(zones []string) {
		for _, z := range zones {
			if x.policy.Zones[z].Nodes.Matches(n) {
				all = append(all, z)
			}
		}
	}
	try(x.byName[n.Name])
	try(x.byZone[n.Zone])
	for k, v := range n.Attributes {
		try(x.byPair[[2]string{k, v}])
	}
	for k, zones := range x.absent {
		if n.Attributes[k] == "" { // also where there is none
			try(zones)
		}
	}
	try(x.byRole[n.EffectiveRole()])
	try(x.byRole[""])
	slices.Sort(all)
	return all
}

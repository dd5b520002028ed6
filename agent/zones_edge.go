package agent

import (
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/zones"
)

// edgeLimits makes the edge's programs let in whom the policy lets in: what they
// send on to backends never reaches the packet filter. It is for one goroutine.
type edgeLimits struct {
	view *zones.View
	// made are the services with their limits: the same ones as long as neither
	// the service nor the policy has changed, since sinks compare pointers.
	made map[*dataplane.EdgeService][]*dataplane.EdgeService
}

// nobody are sources that no packet has, for a list that must not be empty.
var nobody = map[bool]netip.Prefix{
	false: netip.MustParsePrefix("255.255.255.255/32"),
	true:  netip.MustParsePrefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"),
}

// limitEdge is the table with the policy in it, where it is enforced.
func (c *zonesComponent) limitEdge(s *api.Snapshot, t dataplane.EdgeTable) dataplane.EdgeTable {
	if c.mode != "enforce" || s.Policy == nil || len(t.Services) == 0 {
		return t
	}
	return c.edge.limit(c.viewOf(s), s.Node, t)
}

func (e *edgeLimits) limit(view *zones.View, self api.Node, t dataplane.EdgeTable) dataplane.EdgeTable {
	made := make(map[*dataplane.EdgeService][]*dataplane.EdgeService, len(t.Services))
	var all []*dataplane.EdgeService
	for _, s := range t.Services {
		made[s] = e.made[s]
		if e.view != view || made[s] == nil {
			if now := limited(view, self, s); !reflect.DeepEqual(now, made[s]) {
				made[s] = now
			}
		}
		all = append(all, made[s]...)
	}
	e.view, e.made = view, made
	slices.SortFunc(all, func(a, b *dataplane.EdgeService) int { return strings.Compare(a.Name, b.Name) })
	t.Services = all
	return t
}

// limited parts a service by who may reach its frontends.
func limited(view *zones.View, self api.Node, s *dataplane.EdgeService) []*dataplane.EdgeService {
	var all []*dataplane.EdgeService
	for _, f := range s.Frontends {
		sources, any := view.EdgeSources(self, f, s.Protocol)
		allow := s.Allow
		if !any {
			allow = both(s.Allow, sources)
			if len(allow) == 0 {
				allow = []netip.Prefix{nobody[f.Addr().Is6()]}
			}
		}
		i := slices.IndexFunc(all, func(o *dataplane.EdgeService) bool { return slices.Equal(o.Allow, allow) })
		if i >= 0 {
			all[i].Frontends = append(all[i].Frontends, f)
			continue
		}
		part := *s
		part.Allow, part.Frontends = allow, []netip.AddrPort{f}
		if len(all) > 0 {
			part.Name += "/" + strconv.Itoa(len(all)+1)
		}
		all = append(all, &part)
	}
	return all
}

// both are the addresses in both lists; an empty first one stands for all.
func both(a, b []netip.Prefix) []netip.Prefix {
	if len(a) == 0 {
		return b
	}
	var all []netip.Prefix
	for _, x := range a {
		for _, y := range b {
			switch {
			case !x.Overlaps(y):
			case x.Bits() >= y.Bits():
				all = append(all, x)
			default:
				all = append(all, y)
			}
		}
	}
	slices.SortFunc(all, func(x, y netip.Prefix) int { return strings.Compare(x.String(), y.String()) })
	return slices.Compact(all)
}

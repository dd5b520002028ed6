package ipvs

import (
	"net/netip"
	"slices"

	"github.com/weirproject/weir/dataplane"
)

// ours tells whether an address is ours: in the ranges, or in a network that
// bears our mark.
func ours(ranges []netip.Prefix, l *link) func(netip.Addr) bool {
	networks := slices.Clone(ranges)
	for p := range l.routes {
		networks = append(networks, p)
	}
	known := map[netip.Addr]bool{}
	var wide []netip.Prefix
	for _, p := range networks {
		if p.IsSingleIP() {
			known[p.Addr()] = true
		} else {
			wide = append(wide, p)
		}
	}
	return func(a netip.Addr) bool { return known[a] || within(wide, a) }
}

// addNetworks makes the networks virtual.
func (b *Balancer) addNetworks(networks []netip.Prefix, n node, l *link, c *dataplane.Changes) error {
	last := b.networks
	b.networks = map[netip.Prefix]netip.Addr{}
	for _, p := range networks {
		source := n.source(p.Addr())
		if held, there := l.routes[p]; !there || held != source {
			if err := l.add(p, source); err != nil {
				return err
			}
			was, before := last[p]
			b.count(true, before && was == source, c)
		}
		b.networks[p] = source
	}
	return nil
}

func removeNetworks(wanted []netip.Prefix, l *link, c *dataplane.Changes) error {
	for p := range l.routes {
		if slices.Contains(wanted, p) {
			continue
		}
		if err := l.remove(p); err != nil {
			return err
		}
		c.Removed++
	}
	return nil
}

package zones

import (
	"hash/maphash"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/dataplane"
)

// seed of the versions of sets: others cannot choose addresses that collide.
var seed = maphash.MakeSeed()

// group is a set of addresses that follows its members: networks that the
// policy gives, and hosts that come and go. A host may come several times.
type group struct {
	nets    []netip.Prefix       // merged
	hosts   map[netip.Addr]int32 // how often each is in it
	fresh   bool                 // no set has been made with hosts
	touched map[netip.Addr]bool  // after that: whether it was an element when the set was made
	set     dataplane.AddressSet // as it was made last
}

func newGroup(name string, nets []netip.Prefix) *group {
	g := &group{nets: spaceOf(nets).prefixes(), hosts: map[netip.Addr]int32{}, touched: map[netip.Addr]bool{}, fresh: true}
	g.set = dataplane.AddressSet{Name: name, Pieces: piecesOf(g.nets), Version: versionOf(g.nets)}
	return g
}

// versionOf sums up hashes of the elements, so that a change costs no more than
// what changes. It is never 0.
func versionOf(prefixes []netip.Prefix) uint64 {
	v := uint64(1)
	for _, p := range prefixes {
		v += maphash.Comparable(seed, p)
	}
	return max(v, 1)
}

// add counts a host, or discounts it when by is negative.
func (g *group) add(a netip.Addr, by int32) {
	was := g.hosts[a]
	now := was + by
	if now == 0 {
		delete(g.hosts, a)
	} else {
		g.hosts[a] = now
	}
	if g.fresh || (was > 0) == (now > 0) {
		return
	}
	if _, known := g.touched[a]; !known {
		g.touched[a] = was > 0
	}
}

// contains tells whether the address is in it now.
func (g *group) contains(a netip.Addr) bool { return g.hosts[a] > 0 || inNets(g.nets, a) }

// size is how many elements it has now, at least.
func (g *group) size() int { return len(g.nets) + len(g.hosts) }

func inNets(nets []netip.Prefix, a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(nets, a, func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
	return found || i > 0 && nets[i-1].Contains(a)
}

// settle makes the set of the present members. Its slices are new where
// anything has changed.
func (g *group) settle() {
	if g.fresh {
		g.first()
	}
	if len(g.touched) == 0 {
		return
	}
	var added, removed []netip.Prefix
	for a, was := range g.touched {
		is := g.hosts[a] > 0
		switch {
		case is == was || inNets(g.nets, a):
		case is:
			added = append(added, host(a))
		default:
			removed = append(removed, host(a))
		}
	}
	g.touched = map[netip.Addr]bool{}
	if len(added)+len(removed) == 0 {
		return
	}
	slices.SortFunc(added, comparePrefix)
	slices.SortFunc(removed, comparePrefix)
	old := g.set
	version := old.Version + versionOf(added) - versionOf(removed)
	g.set = dataplane.AddressSet{
		Name: old.Name, Pieces: changePieces(old.Pieces, added, removed), Version: max(version, 1),
		Delta: &dataplane.SetDelta{From: old.Version, Added: added, Removed: removed},
	}
}

// first makes the set for the first time.
func (g *group) first() {
	g.fresh = false
	if len(g.hosts) == 0 {
		return
	}
	all := slices.Grow(slices.Clone(g.nets), len(g.hosts))
	for a := range g.hosts {
		if !inNets(g.nets, a) {
			all = append(all, host(a))
		}
	}
	slices.SortFunc(all, comparePrefix)
	g.set.Pieces, g.set.Version = piecesOf(all), versionOf(all)
}

// member is something whose addresses are in groups: a node, or a part of a
// service or app.
type member struct {
	groups []*group
	addrs  []netip.Addr
}

func (m *member) count(by int32, addrs []netip.Addr) {
	for _, g := range m.groups {
		for _, a := range addrs {
			g.add(a, by)
		}
	}
}

// replace makes the groups hold the new member instead of the old one; either
// may be nil.
func replace(old, now *member) {
	if old == nil {
		old = &member{}
	}
	if now == nil {
		now = &member{}
	}
	if !slices.Equal(old.groups, now.groups) {
		old.count(-1, old.addrs)
		now.count(1, now.addrs)
		return
	}
	head, tail := common(old.addrs, now.addrs, func(a, b *netip.Addr) bool { return *a == *b })
	old.count(-1, old.addrs[head:len(old.addrs)-tail])
	now.count(1, now.addrs[head:len(now.addrs)-tail])
}

// common is how many elements at the beginning, and of the others at the end,
// are the same in both.
func common[T any](a, b []T, same func(a, b *T) bool) (head, tail int) {
	n := min(len(a), len(b))
	for head < n && same(&a[head], &b[head]) {
		head++
	}
	for tail < n-head && same(&a[len(a)-1-tail], &b[len(b)-1-tail]) {
		tail++
	}
	return head, tail
}

// Package ipam gives every node its subnet of every network of containers. It is
// pure: what was allotted before is told to it, and it keeps of that what it can.
// Whoever compiles the nodes' snapshots calls it, and keeps the result.
package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
)

// Lengths of a node's subnet where the network names none.
const (
	usualBits  = 24
	usualBits6 = 80
)

// ErrFull is told of a network whose range has no subnet left for a node.
var ErrFull = errors.New("the range has no subnet left")

// Allot gives the nodes' subnets of the networks, sorted by network and node.
// A node keeps what it has in old, as long as that is in the network's range and
// of its length; what nodes and networks had that are gone is free again. The
// order of networks and nodes does not matter. A node for which nothing is left
// goes without, and is told in the error (ErrFull) next to the result.
func Allot(networks []api.ContainerNetwork, nodes []api.Node, old []api.Subnet) ([]api.Subnet, error) {
	names := make([]string, 0, len(nodes))
	for i := range nodes {
		names = append(names, nodes[i].Name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	had := make(map[[2]string]api.Subnet, len(old))
	for _, s := range old {
		had[[2]string{s.Network, s.Node}] = s
	}
	var all []api.Subnet
	var faults []error
	for _, n := range networks {
		before := func(pick func(api.Subnet) netip.Prefix) func(string) netip.Prefix {
			return func(node string) netip.Prefix { return pick(had[[2]string{n.Name, node}]) }
		}
		v4, full := divide(n.Range, cmp.Or(n.NodeBits, usualBits), names, before(func(s api.Subnet) netip.Prefix { return s.V4 }))
		v6, full6 := divide(n.Range6, cmp.Or(n.NodeBits6, usualBits6), names, before(func(s api.Subnet) netip.Prefix { return s.V6 }))
		for _, node := range names {
			if s := (api.Subnet{Network: n.Name, Node: node, V4: v4[node], V6: v6[node]}); s.V4.IsValid() || s.V6.IsValid() {
				all = append(all, s)
			}
		}
		for _, one := range []struct {
			whole netip.Prefix
			nodes []string
		}{{n.Range, full}, {n.Range6, full6}} {
			if len(one.nodes) > 0 {
				faults = append(faults, fmt.Errorf("network %s: %s: %w for %d of %d nodes, such as %s", n.Name, one.whole, ErrFull, len(one.nodes), len(names), one.nodes[0]))
			}
		}
	}
	slices.SortFunc(all, func(a, b api.Subnet) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Node, b.Node))
	})
	return all, errors.Join(faults...)
}

// divide gives each node a part of a range, and lists those that go without.
func divide(whole netip.Prefix, bits int, nodes []string, before func(string) netip.Prefix) (parts map[string]netip.Prefix, full []string) {
	parts = map[string]netip.Prefix{}
	if !whole.IsValid() {
		return parts, nil
	}
	taken := map[netip.Prefix]bool{}
	for _, node := range nodes {
		p := before(node)
		if p.IsValid() && p == p.Masked() && p.Bits() == bits && whole.Bits() <= bits && whole.Contains(p.Addr()) && !taken[p] {
			parts[node], taken[p] = p, true
		}
	}
	// More than a node's lifetime of numbers need not be told apart.
	room := uint64(1) << min(bits-whole.Bits(), 62)
	for _, node := range nodes {
		if parts[node].IsValid() {
			continue
		}
		if uint64(len(taken)) >= room {
			full = append(full, node)
			continue
		}
		// Where the search begins follows from the name alone, so that a subnet is
		// rarely given to another node right after it was returned.
		number := hash(node) % room
		p := part(whole, bits, number)
		for taken[p] {
			number = (number + 1) % room
			p = part(whole, bits, number)
		}
		parts[node], taken[p] = p, true
	}
	return parts, full
}

// part is a range's subnet of a length, by its number.
func part(whole netip.Prefix, bits int, number uint64) netip.Prefix {
	b := whole.Masked().Addr().AsSlice()
	for at := bits - 1; number > 0; at-- {
		if number&1 == 1 {
			b[at/8] |= 0x80 >> (at % 8)
		}
		number >>= 1
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, bits)
}

func hash(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64()
}

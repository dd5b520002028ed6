package vip

import (
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
)

// fleet is what the nodes' documents say.
type fleet struct {
	self  string
	zone  string // of this node
	zones map[string]string
	first map[string]netip.Addr // of a node's addresses: where tunnels end
	owner map[netip.Addr]string // node names
	// public has the addresses of the nodes of this role, sorted, and own those
	// of this node.
	public, own []netip.Addr
}

func newFleet(s *api.Snapshot) *fleet {
	f := &fleet{self: s.Node.Name, zone: s.Node.Zone, zones: map[string]string{}, first: map[string]netip.Addr{}, owner: map[netip.Addr]string{}}
	for _, n := range append(slices.Clone(s.Nodes), s.Node) {
		f.zones[n.Name] = n.Zone
		if n.EffectiveRole() == api.RolePublic {
			f.public = append(f.public, n.Addresses...)
		}
		for i, a := range n.Addresses {
			if i == 0 {
				f.first[n.Name] = a.Unmap()
			}
			f.owner[a.Unmap()] = n.Name
		}
	}
	f.own = s.Node.Addresses
	return f
}

// edgeAddresses are those that tunnels may come from.
func (f *fleet) edgeAddresses(o *Options) []netip.Addr {
	all := o.Delivery.Edges
	if all == nil {
		all = f.public
		if o.Edge != nil {
			all = append(slices.Clone(all), f.own...)
		}
	}
	all = slices.Clone(all)
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// node is the name of the node that the backend runs on: what its document
// says, or else whose address it has; empty when unknown.
func (f *fleet) node(b *api.Backend) string {
	if b.Node != "" {
		return b.Node
	}
	return f.owner[b.Address.Addr().Unmap()]
}

// sameFleet tells whether the nodes are the same as far as a fleet knows them.
func sameFleet(a, b *api.Snapshot) bool {
	return sameNode(a.Node, b.Node) && (sameSlice(a.Nodes, b.Nodes) || slices.EqualFunc(a.Nodes, b.Nodes, sameNode))
}

func sameNode(a, b api.Node) bool {
	return a.Name == b.Name && a.Zone == b.Zone && a.Role == b.Role && slices.Equal(a.Addresses, b.Addresses)
}

// sameSlice tells whether two slices are one and the same.
func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

package vip

import (
	"net/netip"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// DeliveryOptions ask for the table of the node's own backends.
type DeliveryOptions struct {
	Interfaces []string // see dataplane.DeliveryTable
	// Edges are the addresses that tunnels may come from; nil means those of the
	// nodes of the role public, and of this node when it is an edge node itself.
	Edges []netip.Addr
}

// CompileDelivery makes the table of the backends on this node: every service
// that edge nodes deliver by dsr and that has backends here. It is what a new
// Compiler makes of the snapshot.
func CompileDelivery(s *api.Snapshot, o Options) dataplane.DeliveryTable {
	if o.Delivery == nil {
		o.Delivery = &DeliveryOptions{}
	}
	return new(Compiler).Compile(s, o, Changed{}).Delivery
}

// local is the edge service with the backends of this node alone, and without
// slots; nil when it has none here.
func (b *builder) local(e dataplane.EdgeService, all []server) *dataplane.EdgeService {
	if e.Deliver != api.DSR {
		return nil
	}
	backends := e.Backends
	e.Backends = nil
	for i, s := range all {
		if s.node == b.fleet.self {
			e.Backends = append(e.Backends, backends[i])
		}
	}
	if len(e.Backends) == 0 {
		return nil
	}
	return &e
}

package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// DefaultSettle is how long an edge table remembers who had a slot before. A
// flow that sends a packet in this time is found by it, also by an edge node
// that has not seen the flow yet, and its own nodes' connection caches know it
// from then on. Five minutes is as long as the routers on its way usually bear
// with a silent flow. Longer would not be safer, but dearer: of protocols
// without a handshake a new flow cannot be told from an old one, so that a new
// backend would wait for its share.
const DefaultSettle = 5 * time.Minute

// EdgeOptions ask for edge tables.
type EdgeOptions struct {
	Interfaces       map[string]dataplane.AttachMode // see dataplane.EdgeTable
	Source4, Source6 netip.Addr
	// Settle is how long slots remember; DefaultSettle when zero.
	Settle time.Duration
}

func (o *EdgeOptions) settle() time.Duration {
	if o.Settle == 0 {
		return DefaultSettle
	}
	return o.Settle
}

// CompileEdge makes the table of an edge node: every service that has edge in
// its document, with the flow table of its base, filled by health alone. Nearness
// and slow starts have no part in it, since all edge nodes must agree. It is what
// a new Compiler makes of the snapshot, so without a past.
func CompileEdge(s *api.Snapshot, o Options) (dataplane.EdgeTable, []Skipped) {
	if o.Edge == nil {
		o.Edge = &EdgeOptions{}
	}
	r := new(Compiler).Compile(s, o, Changed{})
	return r.Edge, r.EdgeSkipped
}

// edges makes the tables of one address family for edge nodes, with its memory
// for the next time, and for the backends on this node.
func (b *builder) edges(family int, frontends []netip.AddrPort, all []server, old *edgeMemory, skipped []Skipped) (*edgeMemory, *dataplane.EdgeService, []Skipped) {
	deliver, note := b.deliver(all)
	if note != "" {
		skipped = append(skipped, Skipped{b.ref.Service, b.ref.Protocol, "edge.deliver", note})
	}
	e := dataplane.EdgeService{
		Name: b.ref.table(family), Protocol: b.ref.Protocol, Frontends: frontends, Deliver: deliver,
		Allow: b.doc.Edge.Allow, SYNRate: b.doc.Edge.SYNRate, QUIC: b.doc.Edge.QUIC,
	}
	for _, s := range all {
		e.Backends = append(e.Backends, dataplane.EdgeBackend{Address: s.address, Node: b.tunnelEnd(deliver, s), State: s.state})
	}
	var local *dataplane.EdgeService
	if b.options.Delivery != nil {
		local = b.local(e, all)
	}
	if b.options.Edge == nil {
		return nil, local, skipped
	}
	serving := make([]int, len(all))
	for i, s := range all {
		if s.state == api.Up {
			serving[i] = full
		}
	}
	e.Slots = b.base(e.Name, all, b.least()).fill(serving)
	memory := newEdgeMemory(&e, old, b.options.Now, b.options.Edge.settle())
	b.next = earliest(b.next, memory.next)
	return memory, local, skipped
}

// deliver is the way of packets to the backends, and why it is not what the
// document asks for. A tunnel needs to know where it ends; since a service has one
// way, a backend without a known node takes the others along.
func (b *builder) deliver(all []server) (api.Deliver, string) {
	asked := b.doc.Edge.Deliver
	if asked == "" {
		asked = api.DSR
	}
	if asked != api.DSR {
		return asked, ""
	}
	lost := slices.IndexFunc(all, func(s server) bool { return !b.fleet.first[s.node].IsValid() })
	if lost < 0 {
		return api.DSR, ""
	}
	return api.NAT, fmt.Sprintf("all backends are reached by nat, since dsr needs to know the node of each and %s has none: give node, or a node document with its address", all[lost].address)
}

// tunnelEnd is the address of the backend's node. With ipip a host that is no
// node of ours ends the tunnel itself.
func (b *builder) tunnelEnd(deliver api.Deliver, s server) netip.Addr {
	node := b.fleet.first[s.node]
	if !node.IsValid() && deliver == api.IPIP {
		return s.address.Addr()
	}
	return node
}

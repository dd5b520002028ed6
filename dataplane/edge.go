package dataplane

import (
	"context"
	"net/netip"

	"github.com/weirproject/weir/api"
)

// Edge is a sink for forwarded traffic: packets that arrive on a node's edge
// interfaces for a virtual address and leave it for a backend.
type Edge interface {
	// Backend names the kernel facility, such as "xdp".
	Backend() string
	// Set makes the kernel hold the table and nothing else of ours: it reads
	// back, writes what differs and is idempotent. A service that cannot be
	// programmed is left out and listed in the error; the others are served.
	Set(ctx context.Context, t EdgeTable) (Changes, error)
	// Close lets go of the kernel objects without removing them.
	Close() error
}

// AttachMode says how a packet program is attached to an interface.
type AttachMode string

// The modes of attachment.
const (
	AttachAuto    AttachMode = "auto"    // native, else tcx, else generic; on a veth native last
	AttachNative  AttachMode = "native"  // XDP in the driver
	AttachGeneric AttachMode = "generic" // XDP in the network stack
	AttachTCX     AttachMode = "tcx"     // at traffic control (Linux 6.6)
)

// EdgeTable is everything that an edge node's packet programs hold.
type EdgeTable struct {
	// Interfaces whose arriving packets are balanced, by name, and how.
	Interfaces map[string]AttachMode
	// Source4 and Source6 are this node's addresses in its tunnels and for NAT;
	// invalid where it has none of the family.
	Source4, Source6 netip.Addr
	// Services sorted by Name. A service is never changed once it is in a table.
	Services []*EdgeService
}

// EdgeService is one service for clients outside, of one address family.
type EdgeService struct {
	Name      string // as Service.Name
	Protocol  api.Protocol
	Frontends []netip.AddrPort // sorted
	Backends  []EdgeBackend    // sorted by address, in every state
	// Slots are indexes into Backends: a flow's hash picks one. Every edge node
	// has the same. None at all means that packets are refused.
	Slots []uint32
	// Previous is nil, or for every slot the backend that had it before: flows
	// older than the change stay there as long as it is up or draining.
	Previous []uint32
	Deliver  api.Deliver
	Allow    []netip.Prefix // clients' networks; empty: any
	SYNRate  uint32         // new connections a second on this node; 0: no limit
	QUIC     bool           // flows are known by their connection id
}

// EdgeBackend is one server of an EdgeService.
type EdgeBackend struct {
	Address netip.AddrPort
	// Node is the address of the node it runs on, where tunnels end.
	Node  netip.Addr
	State api.BackendState
}

// Deliverer is a sink on nodes with backends of edge services: it takes packets
// out of the edge nodes' tunnels, hands them to the backend and sends the
// answers to the client under the virtual address.
type Deliverer interface {
	// Backend names the kernel facility, such as "tcx".
	Backend() string
	// Set is as Edge.Set.
	Set(ctx context.Context, t DeliveryTable) (Changes, error)
	// Close lets go of the kernel objects without removing them.
	Close() error
}

// DeliveryTable is everything that a Deliverer holds.
type DeliveryTable struct {
	// Interfaces by name, on which tunnels arrive and answers leave.
	Interfaces []string
	// Edges are the addresses that tunnels may come from.
	Edges []netip.Addr
	// Services with the backends of this node alone.
	Services []*EdgeService
}

// The tunnel of api.DSR is GUE (variant 0) over UDP to GUEPort: a header of 4
// bytes with hlen 2 or 5 (in words of 4 bytes), protocol 4 (IPIP) or 41 (IPv6)
// and no flags; then, as private data, the backend's port (2 bytes, network
// order), 2 bytes of zero, and its address of 4 or 16 bytes; then the client's
// packet as it came.
const GUEPort = 6080

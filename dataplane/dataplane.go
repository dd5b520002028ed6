// Package dataplane is the only door to the kernel. It holds the terms in
// which features speak to their sinks (Table for virtual IPs, Ruleset for
// zones), the sinks' interfaces, and the marks by which a restarted agent and
// "weir-agent cleanup" know the kernel objects that are ours. The sinks
// themselves live below it: program and nft.
package dataplane

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
)

// Balancer is a sink for virtual IPs.
type Balancer interface {
	// Backend names the kernel facility, such as "ebpf".
	Backend() string
	// Set makes the kernel hold the table and nothing else of ours: it reads
	// back, writes what differs and is idempotent. A service that cannot be
	// programmed is left out and listed in the error; the others are served.
	Set(ctx context.Context, t Table) (Changes, error)
	// Counters since the kernel objects were made, by service and backend.
	Counters() (Counters, error)
	// Close lets go of the kernel objects without removing them.
	Close() error
}

// ConnectionLister is a Balancer that can tell of each open connection.
type ConnectionLister interface {
	// Connections that are open now, through any virtual address, in no order.
	Connections() ([]Connection, error)
}

// Connection is a socket that talks to a backend through a virtual address.
type Connection struct {
	Service  string // Service.Name; empty when it was removed meanwhile
	Protocol api.Protocol
	Frontend netip.AddrPort // what the client asked for
	Backend  netip.AddrPort
	// Client is the socket's own address; not valid when no process of the node
	// could be found that has it.
	Client  netip.AddrPort
	State   string // of TCP, such as established; empty for UDP
	Process int    // one that has the socket; 0: none was found
	Command string // its name
}

// Changes counts what a Set did to the kernel.
type Changes struct {
	Written int // objects added or changed because they were newly wanted
	Removed int // objects removed because they were no longer wanted
	// Repaired counts objects that an earlier Set had made and that somebody
	// else had removed or changed since.
	Repaired int
}

// Table is everything that a balancer holds.
type Table struct {
	// Ranges are Weir's own: a connection to an address in them that serves
	// nothing is refused.
	Ranges []netip.Prefix
	// Services sorted by Name. Names are unique. A service is never changed once
	// it is in a table: a sink may take the same pointer for the same service.
	Services []*Service
}

// Service is a set of frontends that share backends, all of one address
// family: vip.Compile makes two of a service that has both.
type Service struct {
	// Name is unique within the table: service.namespace/protocol/4 or /6.
	Name      string
	Protocol  api.Protocol
	Frontends []netip.AddrPort // sorted; no two services share one
	Balance   api.Balance      // Random, Maglev or P2C
	Affinity  time.Duration    // 0: none
	// AffinityBy says who counts as one client; empty means by address.
	AffinityBy api.AffinityBy
	// MaxConnections that may be open at once on this node; 0: no limit.
	MaxConnections uint32
	// Watch asks for the counter Failures of its backends.
	Watch bool
	// Backends sorted by address, in every state.
	Backends []Backend
	// Slots are indexes into Backends. A new connection takes one slot: any
	// with the same chance (Random), or the client's by hash (Maglev). Only
	// backends that are up have slots; none at all means refuse.
	Slots []uint32
}

// Backend is one server of a Service.
type Backend struct {
	Address netip.AddrPort
	// Weight is for sinks with weights of their own, since Slots have it already:
	// that of the service's document, or 0 to 1000 by what the backend gets while
	// it starts slowly or others are nearer.
	Weight int
	State  api.BackendState
}

// Counters of a Balancer.
type Counters struct {
	Services map[string]ServiceCounters // by Service.Name
	// UnservedPorts counts refused connections to ports that a VIP does not serve.
	UnservedPorts uint64
}

// ServiceCounters of one service since the kernel objects were made.
type ServiceCounters struct {
	Connections uint64 // balanced: TCP connects, UDP connects and first messages
	Refused     uint64 // refused because no backend was up
	Limited     uint64 // refused because MaxConnections were open
	Backends    map[netip.AddrPort]BackendCounters
}

// BackendCounters of one backend since it was added.
type BackendCounters struct {
	Connections uint64 // balanced to it
	Open        uint64 // of these, open now; of UDP, sockets that sent to it last
	Reset       uint64 // sockets that were ended because it went away
	Failures    uint64 // that did not open; counted for services with Watch
}

// LeftOut is the error of a Set that served every service but some.
type LeftOut struct {
	Services map[string]error // why, by Service.Name
}

func (l *LeftOut) Error() string {
	names := slices.Sorted(maps.Keys(l.Services))
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = fmt.Sprintf("program service %s: %v", name, l.Services[name])
	}
	return strings.Join(parts, "; ")
}

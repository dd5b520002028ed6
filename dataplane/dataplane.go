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

// Filter is a sink for zone rules.
type Filter interface {
	// Backend names the kernel facility, such as "nftables".
	Backend() string
	// Set makes the kernel hold the ruleset, in one atomic step, or none of our
	// rules when it is nil. It reads back first and is idempotent.
	Set(ctx context.Context, r *Ruleset) (Changes, error)
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
	// Services sorted by Name. Names are unique.
	Services []Service
}

// Service is a set of frontends that share backends, all of one address
// family: vip.Compile makes two of a service that has both.
type Service struct {
	// Name is unique within the table: service.namespace/protocol/4 or /6.
	Name      string
	Protocol  api.Protocol
	Frontends []netip.AddrPort // sorted; no two services share one
	Balance   api.Balance      // Random or Maglev
	Affinity  time.Duration    // 0: none
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
	Weight  int // 0 to api.MaxWeight, already in Slots; for sinks with weights of their own
	State   api.BackendState
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
	Backends    map[netip.AddrPort]uint64
}

// Ruleset is everything that a filter holds, for one node: closed by default.
type Ruleset struct {
	// Sets of addresses, by name, sorted; rules refer to them.
	Sets []AddressSet
	// Input judges what is addressed to this node, Forward what passes through:
	// a flow with an end in any of Sets. Others pass through unjudged.
	Input, Forward []FilterRule
}

// AddressSet is a named set of address prefixes of both families.
type AddressSet struct {
	Name     string
	Prefixes []netip.Prefix // sorted, disjoint
}

// FilterRule accepts new flows that match all it gives.
type FilterRule struct {
	// Name of the policy's rule, for counters and people.
	Name string
	// From and To name address sets; empty means any address.
	From, To string
	// Ports that are allowed.
	Ports []api.PortRange
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

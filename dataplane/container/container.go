// Package container makes networks of containers in the kernel: a bridge per
// network with the node's gateway addresses, a veth pair per container, the ways
// to the other nodes' containers (plain routes where they are on the link, VXLAN
// tunnels elsewhere), and the nftables table that publishes containers' ports at
// the node's addresses and gives flows that leave the cluster the node's address.
//
// It knows nothing of apps and decides no address: package agent does, and calls
// Set. It works in the network namespace of the thread that calls.
package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// Table is what a node's networks of containers shall be.
type Table struct {
	// Node is this node's name, Addresses are its own.
	Node      string
	Addresses []netip.Addr
	// Inside are the addresses of all nodes: flows of containers to them keep
	// their source.
	Inside    []netip.Addr
	Networks  []Network
	Endpoints []Endpoint
}

// Network is one network of containers on this node.
type Network struct {
	Name string
	// Gateways are the bridge's addresses, with the length of the node's subnet.
	Gateways []netip.Prefix
	// Ranges are the whole network's, over all nodes.
	Ranges []netip.Prefix
	// Mode is never empty. A local network has no Peers.
	Mode api.NetworkMode
	VNI  uint32
	// Masquerade gives flows that leave the cluster the node's address.
	Masquerade bool
	Peers      []Peer
}

// Peer is another node with its part of a network.
type Peer struct {
	Node      string
	Addresses []netip.Addr
	Subnets   []netip.Prefix
}

// Endpoint is a container with its places in networks.
type Endpoint struct {
	ID string
	// Namespace is the path of its network namespace.
	Namespace  string
	Interfaces []Interface
	Ports      []Port
}

// Interface is a container's place in one network.
type Interface struct {
	Network   string
	Name      string // in the container, such as eth0
	Addresses []netip.Addr
	// Default has the container's default route lead through this interface, for
	// the families of Addresses.
	Default bool
}

// Port publishes a container's port at the node's addresses.
type Port struct {
	Protocol api.Protocol // tcp or udp
	Host     uint16
	To       netip.AddrPort
}

// Options of a Sink.
type Options struct {
	Log *slog.Logger
}

// Sink is the kernel of one node.
type Sink struct {
	log *slog.Logger

	mu   sync.Mutex // guards what follows; held over a whole Set
	last *Table     // nil before the first Set
	ways map[netip.Addr]way
	// count is what the Set under way has done.
	count  dataplane.Changes
	repair bool // what differs had been made by an earlier Set
	tunnel int  // peers reached by a tunnel, of the last Set
	routed int  // and by plain routes
	lost   []string
}

// New prepares a sink; the kernel is touched by Set alone.
func New(o Options) *Sink { return &Sink{log: o.Log, ways: map[netip.Addr]way{}} }

// Set makes the kernel hold the table and nothing else of ours: it reads back,
// writes what differs and is idempotent. What cannot be made is left out and
// told in the error; all else is made.
func (s *Sink) Set(ctx context.Context, t Table) (dataplane.Changes, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count, s.repair = dataplane.Changes{}, s.last != nil && reflect.DeepEqual(*s.last, t)
	s.tunnel, s.routed, s.lost = 0, 0, nil
	if err := ctx.Err(); err != nil {
		return s.count, err
	}
	var faults []error
	note := func(what string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", what, err))
		}
	}
	k := s.plan(t, note)
	note("make forwarding possible", s.forwarding(t))
	links, err := readLinks()
	if err != nil {
		return s.count, err
	}
	// What publishes and masquerades comes first: no container of a new network
	// speaks before its flows are treated right.
	note("set nftables table "+dataplane.ContainerTableName, s.setRules(t))
	note("make bridges", s.setBridges(links, k))
	note("make tunnels", s.setTunnels(links, k))
	note("set routes", s.setRoutes(k))
	note("attach containers", s.setEndpoints(t, k))
	note("remove what is not wanted", s.sweep(k))
	note("let packets of containers be forwarded", s.setForward(len(t.Networks) > 0))
	if err := errors.Join(faults...); err != nil {
		s.last = nil // to be written again, without being a repair
		return s.count, err
	}
	s.last = &t
	return s.count, nil
}

// Ways tells to how many peers plain routes and tunnels lead, and the nodes to
// which nothing of ours does: they are on no link of this node, and the network
// has no tunnels.
func (s *Sink) Ways() (routed, tunnelled int, others []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.routed, s.tunnel, slices.Clone(s.lost)
}

// wrote counts objects that were made or changed.
func (s *Sink) wrote() {
	if s.repair {
		s.count.Repaired++
	} else {
		s.count.Written++
	}
}

// removed counts objects that were taken away.
func (s *Sink) removed() {
	if s.repair {
		s.count.Repaired++
	} else {
		s.count.Removed++
	}
}

package dataplane

import (
	"context"
	"iter"
	"net/netip"
	"time"

	"github.com/weirproject/weir/api"
)

// Filter is a sink for zone rules.
type Filter interface {
	// Backend names the kernel facility, such as "nftables".
	Backend() string
	// Set makes the kernel hold the ruleset, in one atomic step, or none of our
	// rules when it is nil. It reads back first and is idempotent. What dynamic
	// sets have learnt stays, as long as the set is in the new ruleset too.
	Set(ctx context.Context, r *Ruleset) (Changes, error)
}

// Learner is a Filter with dynamic sets.
type Learner interface {
	// Learn puts addresses into a dynamic set of the ruleset that is set, for as
	// long as ttl, or prolongs their stay; a shorter ttl than what is left
	// changes nothing. It returns when the kernel has them, so that a DNS answer
	// sent afterwards can be used at once. It is an error if there is no such set.
	Learn(ctx context.Context, set string, addresses []netip.Addr, ttl time.Duration) error
}

// Ruleset is everything that a filter holds, for one node: closed by default.
//
// Three hooks judge packets that open a flow. Input judges what is addressed to
// this node, Forward what passes through, Output what this node opens itself.
// Each takes the first of its rules that matches; a flow that none matches is
// dropped and counted as DefaultDeny. Before its rules, in this order, a filter
//
//   - accepts established and related flows, and packets with DeliveredMark;
//   - accepts what comes from or leaves by the loopback interface;
//   - accepts, to and from this node, IPv6 neighbour discovery, multicast
//     listener reports and the NeededICMP types;
//   - drops and counts as Invalid what conntrack finds invalid;
//   - drops and counts as Spoofed what a Guard catches (Input and Forward);
//   - accepts answers to this node's DHCP client, and VRRP to its groups;
//   - Forward: accepts what has neither end in the set Zoned;
//   - Output: accepts everything if Inside is empty, and else what goes to an
//     address in Inside, to multicast, or to the link alone.
//
// Nothing of it changes by itself but for dynamic sets and FilterRule.Expires.
type Ruleset struct {
	// Sets of addresses, by name, sorted; rules refer to them.
	Sets []AddressSet
	// Endpoints are sets of addresses with ports, by name, sorted.
	Endpoints []EndpointSet
	// Dynamic sets are empty at first and learn; by name, sorted. The names of
	// Sets, Endpoints and Dynamic are all different.
	Dynamic []DynamicSet
	// Zoned names the set of every address that is in a zone.
	Zoned string
	// Inside names the set of the fleet's own addresses. When it is not empty,
	// Output judges flows to all others.
	Inside string
	// Guards say where addresses may come in; sorted by Name.
	Guards []Guard
	// Input, Forward and Output are in the order in which they are tried.
	Input, Forward, Output []FilterRule
}

// AddressSet is a named set of address prefixes of both families. It is never
// changed once it is in a ruleset.
type AddressSet struct {
	// Name is 1 to 29 characters: a letter first, then letters, digits, "-", "_".
	Name     string
	Prefixes []netip.Prefix // sorted by address, IPv4 first; disjoint
	// Pieces go on where Prefixes end, in the same order. One version of a large
	// set so shares with the next what has not changed. No piece is empty.
	Pieces [][]netip.Prefix
	// Version is the same for the same content: two sets of one name and one
	// version, neither 0, have the same prefixes. 0: not known.
	Version uint64 `json:"-"`
	// Delta leads to it from an earlier version; nil when that is not known.
	Delta *SetDelta `json:"-"`
}

// All gives the prefixes, in their order.
func (s AddressSet) All() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for _, p := range s.Prefixes {
			if !yield(p) {
				return
			}
		}
		for _, piece := range s.Pieces {
			for _, p := range piece {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// Len is the number of prefixes.
func (s AddressSet) Len() int {
	n := len(s.Prefixes)
	for _, piece := range s.Pieces {
		n += len(piece)
	}
	return n
}

// SetDelta is the difference between two versions of a set.
type SetDelta struct {
	From           uint64         // the Version that it starts from
	Added, Removed []netip.Prefix // elements, each sorted; removed ones were exactly these
}

// EndpointSet is a named set of addresses with protocol and port. It is never
// changed once it is in a ruleset.
type EndpointSet struct {
	Name      string     // as AddressSet.Name
	Endpoints []Endpoint // sorted by address, protocol, port
	// Version is as AddressSet.Version.
	Version uint64 `json:"-"`
}

// Endpoint is where a service answers.
type Endpoint struct {
	Address  netip.AddrPort
	Protocol api.Protocol
}

// DynamicSet is a named set of addresses of both families that is filled while
// it is in use: see Learner.
type DynamicSet struct {
	Name string // as AddressSet.Name
	// Names are DNS names in lower case without the last dot, sorted. An answer
	// to one of them teaches the set its addresses. "*.example.com" stands for
	// every name below example.com, but not for example.com itself.
	Names []string
}

// Guard drops packets that claim a source which cannot come from where they
// arrive.
type Guard struct {
	Name string // for people: a zone or an interface
	// Sources names an address set: a packet from one of them is dropped unless
	// it arrives on one of the Interfaces.
	Sources string
	// Interfaces are names; a last "*" stands for any rest. Sorted, not empty.
	Interfaces []string
}

// FilterRule decides new flows that match all it gives.
type FilterRule struct {
	// Name of the policy's rule, for counters and people. Several filter rules
	// may come from one rule of the policy; they share counters and Rate.
	Name string
	// From and To name address sets, or dynamic sets in To; empty means any
	// address.
	From, To string
	// NotFrom and NotTo name address sets whose addresses do not match.
	NotFrom, NotTo []string
	// Ports that match. Empty, if Endpoints is given: those of Endpoints.
	Ports []api.PortRange
	// NotPorts do not match, though they are in Ports or Endpoints.
	NotPorts []api.PortRange
	// Endpoints names an endpoint set: the destination's address, protocol and
	// port must be in it.
	Endpoints string
	// Deny drops what matches, instead of accepting it.
	Deny bool
	// Log reports what it decides, for people: at most some packets a second.
	Log bool
	// Rate is how many flows a second it matches from one source address, with a
	// burst of as many; what comes above does not match. 0: no limit.
	Rate uint32
	// Expires is when it stops matching; zero: never. A new ruleset without it
	// comes at that time; a filter that can tell the time drops it by itself, so
	// that it ends while the agent is down too.
	Expires time.Time `json:",omitzero"`
}

// The names under which filters count what no rule of the policy decides. No
// rule of a policy has them.
const (
	DefaultDeny = "default-deny" // no rule matches
	Invalid     = "invalid"      // conntrack finds the packet invalid
	Spoofed     = "spoofed"      // a Guard dropped it
)

// NeededICMP lists the types of ICMP, or of ICMPv6, without which connections
// stall or hang instead of failing: destination unreachable with "fragmentation
// needed", packet too big, time exceeded, parameter problem (RFC 4890, 4.3.1
// and RFC 1812, 4.3.2). Those that belong to a flow are related to it for
// conntrack; a tunnel's or a DSR answer's are not.
func NeededICMP(v6 bool) []uint8 {
	if v6 {
		return []uint8{1, 2, 3, 4}
	}
	return []uint8{3, 11, 12}
}

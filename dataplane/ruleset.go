package dataplane

import (
	"context"
	"net/netip"

	"github.com/weirproject/weir/api"
)

// Filter is a sink for zone rules.
type Filter interface {
	// Backend names the kernel facility, such as "nftables".
	Backend() string
	// Set makes the kernel hold the ruleset, in one atomic step, or none of our
	// rules when it is nil. It reads back first and is idempotent.
	Set(ctx context.Context, r *Ruleset) (Changes, error)
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

package api

import (
	"net/netip"
	"time"
)

// ZonesStatus is what a node's packet filter enforces.
type ZonesStatus struct {
	// Mode is enforce, observe or off; Backend the kernel facility that does it,
	// and Reason why it is this one.
	Mode    string `json:"mode"`
	Backend string `json:"backend"`
	Reason  string `json:"reason,omitempty"`
	// Policy tells whether there is one; without, everything passes.
	Policy bool `json:"policy"`
	// File and Line of the policy's document; empty while it is the one that was
	// kept on disk.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Pending is a change that nobody has confirmed yet.
	Pending *ZoneChange `json:"pending,omitempty"`
	// Zones by name, and Rules in the policy's order with those that are built in
	// after them.
	Zones []ZoneMembers `json:"zones"`
	Rules []ZoneRule    `json:"rules"`
}

// ZoneMembers is a zone with what is in it now.
type ZoneMembers struct {
	Name string `json:"name"`
	// Here tells that the node that was asked is in it.
	Here bool `json:"here,omitempty"`
	// Nodes with an address in it, by name.
	Nodes []string `json:"nodes,omitempty"`
	// Networks of all its addresses, the first 100 of them, and their number.
	Networks []netip.Prefix `json:"networks,omitempty"`
	Size     int            `json:"size"`
}

// ZoneRule is a rule with what it has decided on this node.
type ZoneRule struct {
	Name string `json:"name"`
	// Section is rules, forward or egress; empty for one that is built in.
	Section string `json:"section,omitempty"`
	// Verdict is allow, or deny for what the rule turns away. Where the mode is
	// observe, that passes all the same.
	Verdict Verdict `json:"verdict"`
	Packets uint64  `json:"packets"` // that open a flow
	Bytes   uint64  `json:"bytes"`
}

// ZoneExplained is a ZoneExplanation with the place of the rule that decides.
type ZoneExplained struct {
	ZoneExplanation
	// Field of the policy, such as rules[3]; empty when no rule decides, or
	// several do.
	Field string `json:"field,omitempty"`
	// Hook on Nodes that judges: input, forward or output.
	Hook string `json:"hook,omitempty"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// ZoneDrop is a packet that would open a flow, and that the zones have dropped,
// or would drop, or have let pass and report.
type ZoneDrop struct {
	Time time.Time `json:"time"`
	// Rule of the policy, or default-deny, invalid, spoofed, whitelist.ZONE,
	// unrouted.ZONE. A long name may be cut short.
	Rule string `json:"rule"`
	// Verdict is drop, observe (it passed, but would be dropped) or accept (a rule
	// with log).
	Verdict string `json:"verdict"`
	Hook    string `json:"hook"` // input, forward or output
	// In and Out are interfaces; empty where there is none.
	In       string         `json:"in,omitempty"`
	Out      string         `json:"out,omitempty"`
	Protocol string         `json:"protocol"`
	From     netip.AddrPort `json:"from"` // port 0: it has none
	To       netip.AddrPort `json:"to"`
	FromIs   ZoneIdentity   `json:"from_is"`
	ToIs     ZoneIdentity   `json:"to_is"`
	Length   int            `json:"length"` // bytes
}

// ZoneIdentity is whose an address is.
type ZoneIdentity struct {
	Nodes []string `json:"nodes,omitempty"`
	Apps  []string `json:"apps,omitempty"`
	Zones []string `json:"zones,omitempty"`
}

package api

import (
	"net/netip"
	"time"
)

// Status is what a node observes of itself.
type Status struct {
	Node    Node      `json:"node"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Revision is the last snapshot that every component has applied.
	Revision uint64 `json:"revision"`
	// Wanted is the newest snapshot's revision.
	Wanted uint64 `json:"wanted"`
	// Source says where the wanted state comes from: files or disk.
	Source string `json:"source"`
	// Refused lists the documents that were not taken over.
	Refused []Refusal `json:"refused,omitempty"`
	// Components in the order in which they are applied.
	Components []ComponentStatus `json:"components"`
}

// Refusal is a file's fault that kept its state from being taken over.
type Refusal struct {
	File   string    `json:"file"`
	Line   int       `json:"line,omitempty"`
	Column int       `json:"column,omitempty"`
	Field  string    `json:"field,omitempty"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// ComponentStatus is the state of one reconciler.
type ComponentStatus struct {
	Name string `json:"name"`
	// Backend that does the work, such as ebpf or nftables.
	Backend string `json:"backend,omitempty"`
	// Revision that the component has applied last.
	Revision uint64 `json:"revision"`
	// Error of the last attempt; empty when it went well.
	Error string `json:"error,omitempty"`
	// Repaired counts the kernel objects that were found missing or changed by
	// somebody else and put right, since the agent's start.
	Repaired uint64    `json:"repaired"`
	Applied  time.Time `json:"applied,omitzero"`
	// Detail is one phrase about what is applied.
	Detail string `json:"detail,omitempty"`
}

// VIPStatus is one service with its VIPs as this node serves it.
type VIPStatus struct {
	Name      string           `json:"name"`
	Namespace string           `json:"namespace"`
	Protocol  Protocol         `json:"protocol"`
	Balance   Balance          `json:"balance"`
	Affinity  Duration         `json:"affinity,omitzero"`
	DNSNames  []string         `json:"dns_names,omitempty"`
	VIPs      []VIP            `json:"vips"`
	Addresses []netip.AddrPort `json:"addresses"`
	// Programmed tells whether the kernel holds it.
	Programmed bool `json:"programmed"`
	// Connections made through it on this node since the programs were loaded.
	Connections uint64 `json:"connections"`
	// Open connections of this node; of UDP, sockets that sent to it last.
	Open uint64 `json:"open,omitempty"`
	// Refused connections: no backend was up.
	Refused uint64 `json:"refused"`
	// Limited connections: refused because MaxConnections were open.
	Limited        uint64 `json:"limited,omitempty"`
	MaxConnections uint32 `json:"max_connections,omitempty"`
	Prefer         Prefer `json:"prefer,omitempty"`
	// Edge is set for a service that edge nodes serve to clients outside.
	Edge     *Edge           `json:"edge,omitempty"`
	Backends []BackendStatus `json:"backends"`
}

// BackendStatus is one backend as this node sees it.
type BackendStatus struct {
	Address netip.AddrPort `json:"address"`
	Node    string         `json:"node,omitempty"`
	Weight  int            `json:"weight"`
	State   BackendState   `json:"state"`
	Reason  string         `json:"reason,omitempty"` // why it is not up
	// Share of the service's new connections that it gets from this node, in
	// percent, of those of its address family.
	Share float64 `json:"share,omitempty"`
	// Note says why the share is not what the weight asks for.
	Note        string `json:"note,omitempty"`
	Connections uint64 `json:"connections"`
	Open        uint64 `json:"open,omitempty"`     // of these, open now
	Failures    uint64 `json:"failures,omitempty"` // connections that did not open; counted with outlier detection
	Reset       uint64 `json:"reset,omitempty"`    // connections that were ended because it went away
}

// VIPStep is one step of the way from a name to a backend, in an explanation.
type VIPStep struct {
	Step string `json:"step"`
	// OK tells that the step is good; the first that is not ends the list.
	OK bool `json:"ok"`
	// Evidence is what was found.
	Evidence string `json:"evidence"`
	// Next is what to do about it; empty when the step is good.
	Next string `json:"next,omitempty"`
}

// VIPTrace is which backend a client would get, and why.
type VIPTrace struct {
	Client   string         `json:"client"`
	VIP      netip.AddrPort `json:"vip"`
	Protocol Protocol       `json:"protocol"`
	Service  string         `json:"service,omitempty"` // as in dataplane.Service
	Balance  Balance        `json:"balance,omitempty"`
	// Backends that the client may get, the likeliest first; one where there is
	// no chance in it, none where it is refused.
	Backends []TraceShare `json:"backends"`
	// Slot that the client's hash leads to, with Maglev, of Slots.
	Slot  int `json:"slot,omitempty"`
	Slots int `json:"slots,omitempty"`
	// Reason in words.
	Reason string `json:"reason"`
}

// TraceShare is a backend that a client may get.
type TraceShare struct {
	Address netip.AddrPort `json:"address"`
	Share   float64        `json:"share"` // percent of the client's new connections
}

// DNSAnswer is what the node's proxy answers, and why.
type DNSAnswer struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	Rcode  string   `json:"rcode"`
	Answer []string `json:"answer,omitempty"`
	// Authority and Additional sections, in presentation format.
	Authority  []string `json:"authority,omitempty"`
	Additional []string `json:"additional,omitempty"`
	// Source of the answer: cluster, cache, or the upstream's address.
	Source string   `json:"source"`
	Took   Duration `json:"took"`
}

// ZoneExplanation is the policy's verdict on one flow.
type ZoneExplanation struct {
	From      string    `json:"from"`
	To        string    `json:"to"`
	Port      PortRange `json:"port"`
	FromZones []string  `json:"from_zones"`
	ToZones   []string  `json:"to_zones"`
	Verdict   Verdict   `json:"verdict"`
	// Rule that allows the flow; empty when none does.
	Rule string `json:"rule,omitempty"`
	// Reason in words.
	Reason string `json:"reason"`
	// Nodes that decide it.
	Nodes []string `json:"nodes,omitempty"`
}

package api

import "net/netip"

// Connection is an open socket of this node that talks to a backend through a
// virtual IP.
type Connection struct {
	// Service by its name, as in its DNS name; empty when it was removed
	// meanwhile.
	Service  string         `json:"service,omitempty"`
	Protocol Protocol       `json:"protocol"`
	VIP      netip.AddrPort `json:"vip"`
	Backend  netip.AddrPort `json:"backend"`
	// Client is the socket's own address.
	Client netip.AddrPort `json:"client,omitzero"`
	// State of TCP, such as established.
	State string `json:"state,omitempty"`
	// Process is one that has the socket, and Command its name.
	Process int    `json:"process,omitempty"`
	Command string `json:"command,omitempty"`
}

// Drain asks a node to give a backend no new connections, or to end that.
type Drain struct {
	Service  string         `json:"service"` // name.namespace
	Protocol Protocol       `json:"protocol"`
	Backend  netip.AddrPort `json:"backend"`
	// Undo gives it connections again.
	Undo bool `json:"undo,omitempty"`
}

package api

import (
	"net/netip"
	"time"
)

// Outlier is passive health checking: what real connections tell.
type Outlier struct {
	// Failures in a row of one backend's connections that eject it; 5 when zero.
	// A connection fails when it is refused, times out or is reset before it
	// has opened.
	Failures int `json:"failures,omitempty"`
	// Ejection is how long it is out the first time; 30 s when zero. Each
	// further ejection in a row takes as much longer.
	Ejection Duration `json:"ejection,omitzero"`
	// MaxEjected is the largest percentage of a service's backends that are
	// ejected at once, though always at least one; 50 when zero.
	MaxEjected int `json:"max_ejected,omitempty"`
}

// Defaults of outlier detection.
const (
	DefaultOutlierFailures   = 5
	DefaultOutlierEjection   = 30 * time.Second
	DefaultOutlierMaxEjected = 50
)

// WithDefaults returns it with its defaults filled in.
func (o Outlier) WithDefaults() Outlier {
	if o.Failures == 0 {
		o.Failures = DefaultOutlierFailures
	}
	if o.Ejection == 0 {
		o.Ejection = Duration(DefaultOutlierEjection)
	}
	if o.MaxEjected == 0 {
		o.MaxEjected = DefaultOutlierMaxEjected
	}
	return o
}

// Edge is how a service is served to clients outside of the fleet, by the
// nodes that have edge interfaces.
type Edge struct {
	// Deliver is how packets get to the backends; empty means dsr.
	Deliver Deliver `json:"deliver,omitempty"`
	// Allow lists the networks that clients may come from; empty means any.
	Allow []netip.Prefix `json:"allow,omitempty"`
	// SYNRate is how many new connections a second an edge node takes before it
	// sheds; zero means no limit.
	SYNRate uint32 `json:"syn_rate,omitempty"`
	// QUIC keeps a connection at its backend by the connection id (RFC 9000),
	// also when the client's address changes.
	QUIC bool `json:"quic,omitempty"`
}

// Deliver is the way of a packet from an edge node to a backend.
type Deliver string

// The ways of delivery.
const (
	DSR  Deliver = "dsr"  // in a GUE tunnel to the backend's node, which answers the client directly
	IPIP Deliver = "ipip" // in an IPIP tunnel to a host that has the virtual address itself
	NAT  Deliver = "nat"  // rewritten, from the edge node's address, and back through it
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Deliver) UnmarshalText(t []byte) error { return oneOf(d, t, DSR, IPIP, NAT) }

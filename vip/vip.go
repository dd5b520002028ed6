// Package vip turns the services of a Snapshot into the tables that load
// balancers in the kernel hold: which address leads to which backends, and in
// which shares. It also allots the addresses of named VIPs, joins what is
// wanted, observed and counted into a status, and explains both. It is pure: it
// never touches the kernel, and knows no clock but the one that it is given. The
// agent calls it.
package vip

import (
	"net/netip"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// StateFunc tells a backend's observed state, and why when it is not up.
type StateFunc func(service string, protocol api.Protocol, backend netip.AddrPort) (api.BackendState, string)

// Options of Compile.
type Options struct {
	// Ranges are the prefixes that named VIPs come from.
	Ranges []netip.Prefix
	// State observes the backends; nil means that all are up.
	State StateFunc
	// Drained tells which backends people have drained on this node; nil means
	// none.
	Drained func(service string, protocol api.Protocol, backend netip.AddrPort) bool
	// Now is the time; the zero time stops everything that depends on it.
	Now time.Time
	// UpSince tells when a backend came up, for slow starts. The zero time means
	// that it was up when the agent first looked, or that it is not up. Nil means
	// that nobody starts slowly.
	UpSince func(service string, protocol api.Protocol, backend netip.AddrPort) time.Time
	// Bases to start from, by the names that Compiler.Bases gives. One whose
	// members are exactly those wanted wins over the Compiler's own, so after the
	// first call give those alone that a controller has shipped.
	Bases map[string]*Base
	// Edge asks for the tables of edge services; nil means none.
	Edge *EdgeOptions
	// Delivery asks for the table of the node's own backends of edge services;
	// nil means none.
	Delivery *DeliveryOptions
}

// Skipped is a VIP that cannot be served, or not as its document says, and why.
type Skipped struct {
	Service  string // api.Service.Key
	Protocol api.Protocol
	Field    string // of the service's document, such as vips[0]
	Reason   string
}

// ServiceRef names a service of a Snapshot.
type ServiceRef struct {
	Service  string // api.Service.Key
	Protocol api.Protocol
}

func refOf(s *api.Service) ServiceRef { return ServiceRef{s.Key(), s.EffectiveProtocol()} }

// table is the name of the service's table for an address family, 0 or 1.
func (r ServiceRef) table(family int) string {
	return r.Service + "/" + string(r.Protocol) + families[family]
}

// families end the names of tables.
var families = [2]string{"/4", "/6"}

func familyOf(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 0
	}
	return 1
}

// Compile makes the load balancer's table. A VIP that an earlier service of the
// snapshot has already, that is a node's own address, or that has no address
// because its range is not set, is skipped; everything else is in the table. It
// is what a new Compiler makes of the snapshot.
func Compile(s *api.Snapshot, o Options) (dataplane.Table, []Skipped) {
	o.Edge, o.Delivery = nil, nil
	r := new(Compiler).Compile(s, o, Changed{})
	return r.Table, r.Skipped
}

// Check lists the VIPs that Compile would skip. It reads no backend's state and
// makes no table.
func Check(s *api.Snapshot) []Skipped {
	c := newLedger(s)
	var skipped []Skipped
	for i := range s.Services {
		_, refused := c.grant(s, &s.Services[i])
		skipped = append(skipped, refused...)
	}
	return skipped
}

// Package vip turns the services of a Snapshot into the table that a load
// balancer in the kernel holds: which address leads to which backends, and in
// which shares. It also allots the addresses of named VIPs, and joins what is
// wanted, observed and counted into a status. It is pure: it never touches the
// kernel. The agent calls it.
package vip

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

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
}

// Skipped is a VIP that cannot be served, and why.
type Skipped struct {
	Service  string // api.Service.Key
	Protocol api.Protocol
	Field    string // of the service's document, such as vips[0]
	Reason   string
}

// Compile makes the load balancer's table. A VIP that an earlier service of the
// snapshot has already, that is a node's own address, or that has no address
// because its range is not set, is skipped; everything else is in the table.
func Compile(s *api.Snapshot, o Options) (dataplane.Table, []Skipped) {
	c := compiler{snapshot: s, options: o, taken: map[frontend]string{}, own: map[netip.Addr]string{}}
	for _, n := range append(slices.Clone(s.Nodes), s.Node) {
		for _, a := range n.Addresses {
			c.own[a.Unmap()] = n.Name
		}
	}
	table := dataplane.Table{Ranges: o.Ranges}
	for _, service := range s.Services {
		table.Services = append(table.Services, c.service(service)...)
	}
	slices.SortFunc(table.Services, func(a, b dataplane.Service) int { return cmp.Compare(a.Name, b.Name) })
	return table, c.skipped
}

type frontend struct {
	address  netip.AddrPort
	protocol api.Protocol
}

type compiler struct {
	snapshot *api.Snapshot
	options  Options
	taken    map[frontend]string // by which service
	own      map[netip.Addr]string
	skipped  []Skipped
}

// service makes one dataplane service for each address family with a frontend.
func (c *compiler) service(s api.Service) []dataplane.Service {
	var four, six []netip.AddrPort
	for i, v := range s.VIPs {
		skip := func(reason string) {
			c.skipped = append(c.skipped, Skipped{Service: s.Key(), Protocol: s.EffectiveProtocol(), Field: fmt.Sprintf("vips[%d]", i), Reason: reason})
		}
		addresses := c.snapshot.Addresses(s, v)
		if len(addresses) == 0 {
			skip(fmt.Sprintf("%s has no address: no range of its backends' address family is set (vip.range, vip.range6)", v))
		}
		for _, a := range addresses {
			address := netip.AddrPortFrom(a, v.Port)
			if reason := c.refusal(s, v, address); reason != "" {
				skip(reason)
				continue
			}
			c.taken[frontend{address, s.EffectiveProtocol()}] = s.Key()
			if a.Is4() {
				four = append(four, address)
			} else {
				six = append(six, address)
			}
		}
	}
	var all []dataplane.Service
	if len(four) > 0 {
		all = append(all, c.family(s, "4", four))
	}
	if len(six) > 0 {
		all = append(all, c.family(s, "6", six))
	}
	return all
}

func (c *compiler) refusal(s api.Service, v api.VIP, address netip.AddrPort) string {
	if holder, taken := c.taken[frontend{address, s.EffectiveProtocol()}]; taken {
		return fmt.Sprintf("%s %s is served by %s already", address, s.EffectiveProtocol(), holder)
	}
	if node, own := c.own[address.Addr()]; own {
		return fmt.Sprintf("%s is the address of the node %s", v, node)
	}
	return ""
}

func (c *compiler) family(s api.Service, family string, frontends []netip.AddrPort) dataplane.Service {
	balance := s.Balance
	if balance == "" {
		balance = api.Random
	}
	slices.SortFunc(frontends, netip.AddrPort.Compare)
	d := dataplane.Service{
		Name:     s.Key() + "/" + string(s.EffectiveProtocol()) + "/" + family,
		Protocol: s.EffectiveProtocol(), Frontends: frontends, Balance: balance, Affinity: s.Affinity.Std(),
	}
	for _, b := range s.Backends {
		address := plain(b.Address)
		if address.Addr().Is4() != (family == "4") {
			continue
		}
		state, _ := stateOf(s, b, c.options.State)
		d.Backends = append(d.Backends, dataplane.Backend{Address: address, Weight: b.EffectiveWeight(), State: state})
	}
	slices.SortFunc(d.Backends, func(a, b dataplane.Backend) int { return a.Address.Compare(b.Address) })
	// The same address may be written in its IPv4 form and mapped into IPv6.
	d.Backends = slices.CompactFunc(d.Backends, func(a, b dataplane.Backend) bool { return a.Address == b.Address })
	if balance == api.Maglev {
		d.Slots = maglev(d.Backends)
	} else {
		d.Slots = shares(d.Backends)
	}
	return d
}

// plain writes an IPv4 address that is mapped into IPv6 as IPv4.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// stateOf is the worse of what the operator wants and what is observed, and why
// it is not up.
func stateOf(s api.Service, b api.Backend, observe StateFunc) (api.BackendState, string) {
	switch b.State {
	case api.Down:
		return api.Down, "set down in its document"
	case api.Draining:
		if state, reason := observed(s, b, observe); state == api.Down {
			return state, reason
		}
		return api.Draining, "set draining in its document"
	default:
		return observed(s, b, observe)
	}
}

func observed(s api.Service, b api.Backend, observe StateFunc) (api.BackendState, string) {
	if observe == nil {
		return api.Up, ""
	}
	return observe(s.Key(), s.EffectiveProtocol(), b.Address)
}

package zones

import (
	"net/netip"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// machine is what a filter makes of a ruleset: an interpreter of the contract
// in package dataplane, for the tests. It looks at every element of every set.
type machine struct {
	*dataplane.Ruleset
	learnt map[string][]netip.Addr // elements of dynamic sets
	now    time.Time
}

func (m machine) in(set string, a netip.Addr) bool {
	for _, s := range m.Sets {
		if s.Name == set {
			return slices.ContainsFunc(slices.Collect(s.All()), func(p netip.Prefix) bool { return p.Contains(a) })
		}
	}
	for _, s := range m.Dynamic {
		if s.Name == set {
			return slices.Contains(m.learnt[set], a)
		}
	}
	panic("there is no set " + set)
}

// judge gives the verdict and the rule; none when nothing is said about such
// packets.
func (m machine) judge(hook Hook, from, to netip.Addr, protocol string, port uint16) (api.Verdict, string) {
	rules := m.Input
	switch hook {
	case Forward:
		if !m.in(m.Zoned, from) && !m.in(m.Zoned, to) {
			return api.Allow, ""
		}
		rules = m.Forward
	case Output:
		if m.Inside == "" || m.in(m.Inside, to) {
			return api.Allow, ""
		}
		rules = m.Output
	}
	for _, f := range rules {
		if m.matches(f, from, to, protocol, port) {
			if f.Deny {
				return api.Deny, f.Name
			}
			return api.Allow, f.Name
		}
	}
	return api.Deny, ""
}

func (m machine) matches(f dataplane.FilterRule, from, to netip.Addr, protocol string, port uint16) bool {
	if !f.Expires.IsZero() && !m.now.Before(f.Expires) {
		return false
	}
	if f.From != "" && !m.in(f.From, from) || f.To != "" && !m.in(f.To, to) {
		return false
	}
	for _, n := range f.NotFrom {
		if m.in(n, from) {
			return false
		}
	}
	for _, n := range f.NotTo {
		if m.in(n, to) {
			return false
		}
	}
	if onPort(f.NotPorts, protocol, port) || len(f.Ports) > 0 && !onPort(f.Ports, protocol, port) {
		return false
	}
	if f.Endpoints == "" {
		return len(f.Ports) > 0
	}
	i := slices.IndexFunc(m.Endpoints, func(e dataplane.EndpointSet) bool { return e.Name == f.Endpoints })
	return slices.Contains(m.Endpoints[i].Endpoints, dataplane.Endpoint{Address: netip.AddrPortFrom(to, port), Protocol: api.Protocol(protocol)})
}

func onPort(ranges []api.PortRange, protocol string, port uint16) bool {
	return slices.ContainsFunc(ranges, func(r api.PortRange) bool {
		return r.Protocol == "any" || r.Protocol == protocol && (r.First == 0 && r.Last == 0 || r.First <= port && port <= r.Last)
	})
}

// spoofed tells whether a guard catches the packet.
func (m machine) spoofed(from netip.Addr, arrives string) bool {
	return slices.ContainsFunc(m.Guards, func(g dataplane.Guard) bool { return m.in(g.Sources, from) && !matchesInterface(g.Interfaces, arrives) })
}

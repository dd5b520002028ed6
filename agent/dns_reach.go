package agent

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/link"
)

// The names of what lets containers ask the node's proxy. A policy's own rules
// may have the rule's name too: then they share its counter.
const (
	askRule    = "dns-proxy"
	askServers = "weir-dns-proxy"
	askClients = "weir-dns-clients"
)

// askable is a ruleset with the rule that lets this node's containers ask its
// DNS proxy, whatever the policy says: zones are closed by default, and without
// names nothing in a container works. dns.access can still refuse them. It is
// made anew only when what it follows from changes.
type askable struct {
	from    *dataplane.Ruleset
	clients []netip.Prefix
	made    *dataplane.Ruleset
}

// of gives the ruleset with the rule; nil for nil.
func (k *askable) of(r *dataplane.Ruleset, c DNSConfig, clients []netip.Prefix) *dataplane.Ruleset {
	if r == nil || len(c.addresses()) == 0 || len(clients) == 0 {
		return r
	}
	if r == k.from && slices.Equal(clients, k.clients) {
		return k.made
	}
	var servers []netip.Prefix
	for _, a := range c.addresses() {
		servers = append(servers, netip.PrefixFrom(a, a.BitLen()))
	}
	next := *r
	next.Sets = append(slices.Clone(r.Sets),
		dataplane.AddressSet{Name: askClients, Prefixes: disjoint(clients)}, dataplane.AddressSet{Name: askServers, Prefixes: disjoint(servers)})
	slices.SortFunc(next.Sets, func(a, b dataplane.AddressSet) int { return strings.Compare(a.Name, b.Name) })
	port := func(p api.Protocol, number uint16) api.PortRange {
		return api.PortRange{Protocol: string(p), First: number, Last: number}
	}
	rule := dataplane.FilterRule{Name: askRule, From: askClients, To: askServers}
	if len(c.Listen) > 0 {
		rule.Ports = append(rule.Ports, port(api.UDP, c.Port), port(api.TCP, c.Port))
	}
	if len(c.TLS.Listen) > 0 {
		rule.Ports = append(rule.Ports, port(api.TCP, c.TLS.Port))
	}
	next.Input = append([]dataplane.FilterRule{rule}, r.Input...)
	*k = askable{from: r, clients: slices.Clone(clients), made: &next}
	return &next
}

// disjoint sorts prefixes and leaves out those that lie in others.
func disjoint(prefixes []netip.Prefix) []netip.Prefix {
	all := slices.Clone(prefixes)
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if order := a.Addr().Compare(b.Addr()); order != 0 {
			return order
		}
		return a.Bits() - b.Bits()
	})
	var apart []netip.Prefix
	for _, p := range all {
		if n := len(apart); n == 0 || !apart[n-1].Overlaps(p) {
			apart = append(apart, p)
		}
	}
	return apart
}

// containerNetworks are where this node's containers have their addresses: its
// subnets of the container networks, and the bridges of others, such as Docker's.
func (a *Agent) containerNetworks(s *api.Snapshot) []netip.Prefix {
	networks, err := link.BridgedNetworks()
	if err != nil {
		a.log.Warn("bridges not listed: their containers may not reach the DNS proxy", "error", err)
	}
	for _, n := range s.Subnets {
		if n.Node == s.Node.Name {
			for _, p := range []netip.Prefix{n.V4, n.V6} {
				if p.IsValid() {
					networks = append(networks, p.Masked())
				}
			}
		}
	}
	return disjoint(networks)
}

// letAsk adds the rule to what the packet filter is to hold.
func (d *dnsComponent) letAsk(r *dataplane.Ruleset, s *api.Snapshot) *dataplane.Ruleset {
	if d == nil || d.proxy == nil || r == nil {
		return r
	}
	return d.reach.of(r, d.agent.config.DNS, d.agent.containerNetworks(s))
}

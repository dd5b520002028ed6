// Package zones turns a policy into the rules of one node, and says what a
// policy means. It is pure: it reads no file and touches no kernel. The agent
// hands what a Compiler makes to a dataplane.Filter.
//
// There are two ways through it that share nothing but the policy, so that the
// tests can hold them, and the kernel, against each other. A Compiler makes
// rulesets, and keeps what it needs to follow a change at the cost of the
// change. A View binds a policy to a State: Decide is the reference for what
// the policy means; Explain, Matrix, Diff, Check and Cuts build upon it.
//
// Both speak of new flows only: what every node lets pass whatever its policy
// (replies, loopback, neighbour discovery, DHCP) is the filter's affair.
package zones

import (
	"net/netip"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// State is what the names in a policy stand for at one moment. The nodes are
// sorted by name, the services by key and protocol, the apps by id.
type State struct {
	Nodes    []api.Node
	Services []api.Service
	// VIPs are the addresses of named VIPs, as in api.Snapshot.
	VIPs map[string]api.VIPAddresses
	// Apps are those that are known by themselves. Every service counts as an
	// app besides: web.shop has the id /shop/web, web.default has /web, and its
	// instances are its backends.
	Apps []App
	// Own are addresses outside of the fleet that the node's agent itself speaks
	// to, such as its DNS upstreams: closed egress does not cut it off from them.
	Own []netip.AddrPort
	// Learnt are the addresses of DNS names in egress rules. Only a View needs
	// them: the kernel learns by itself.
	Learnt map[string][]netip.Addr
}

// App is a group of instances that zones select by id or label.
type App struct {
	ID        string
	Labels    map[string]string
	Instances []Instance // sorted by address
}

// Instance is one running copy of an app.
type Instance struct {
	Address netip.Addr
	Node    string // the name of the node it runs on; empty when unknown
}

// StateOf is the state that a snapshot holds.
func StateOf(s *api.Snapshot) State {
	return State{Nodes: s.Nodes, Services: s.Services, VIPs: s.VIPs, Apps: appsOf(s.Tasks, s.Nodes)}
}

// addressesOf are where clients reach a VIP of the service.
func (s State) addressesOf(service api.Service, v api.VIP) []netip.Addr {
	return (&api.Snapshot{VIPs: s.VIPs}).Addresses(service, v)
}

// appID is the id that a service has as an app.
func appID(s api.Service) string {
	id := ""
	if ns := s.EffectiveNamespace(); ns != api.DefaultNamespace {
		id = "/" + ns
	}
	labels := strings.Split(s.Name, ".")
	for i := len(labels) - 1; i >= 0; i-- {
		id += "/" + labels[i]
	}
	return id
}

// selectsService tells whether a zone has the service's backends.
func selectsService(z api.Zone, s api.Service) bool {
	key := s.Key()
	for _, pattern := range z.Services {
		if rest, isTree := strings.CutPrefix(pattern, "*"); pattern == key || isTree && strings.HasSuffix(key, rest) {
			return true
		}
	}
	return z.Apps != nil && z.Apps.Matches(appID(s), nil)
}

// OwnPorts are those by which nodes of the fleet speak to each other for Weir
// itself: the controllers' API and store, the agents' watch of each other, the
// tunnels of container networks and of edge nodes. Elections between edge nodes (VRRP) go to multicast
// groups and are the filter's affair.
func OwnPorts() []api.PortRange {
	return []api.PortRange{
		{Protocol: "tcp", First: api.StorePort, Last: api.StorePort},
		{Protocol: "tcp", First: api.ControllerPort, Last: api.ControllerPort},
		{Protocol: "tcp", First: api.PeerPort, Last: api.PeerPort},
		{Protocol: "udp", First: dataplane.VXLANPort, Last: dataplane.VXLANPort},
		{Protocol: "udp", First: dataplane.GUEPort, Last: dataplane.GUEPort},
		{Protocol: "udp", First: api.PeerPort, Last: api.PeerPort},
	}
}

// The names of verdicts that no rule of the policy gives.
const (
	ownRule         = "weir"       // Weir's own traffic between nodes
	whitelistPrefix = "whitelist." // and the zone's name
	unroutedPrefix  = "unrouted."  // and the zone's name
)

// plain is the address as packets carry it: never IPv4 in IPv6, and without an
// interface.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// plainPrefix masks the prefix and writes IPv4 as IPv4.
func plainPrefix(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

// host is the prefix of one address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// word says what a rule's end is.
type word int

const (
	wordAny word = iota
	wordZone
	wordList
	wordNetwork
	wordService
	wordUnknown
)

// wordOf tells what an end of a rule names, as api.Policy.Validate reads it.
func wordOf(p *api.Policy, end string) (word, netip.Prefix) {
	if end == api.AnyZone {
		return wordAny, netip.Prefix{}
	}
	if _, ok := p.Zones[end]; ok {
		return wordZone, netip.Prefix{}
	}
	if _, ok := p.Lists[end]; ok {
		return wordList, netip.Prefix{}
	}
	if n, err := api.ParseNetwork(end); err == nil {
		return wordNetwork, plainPrefix(n.Prefix)
	}
	if api.IsServiceName(end) {
		return wordService, netip.Prefix{}
	}
	return wordUnknown, netip.Prefix{}
}

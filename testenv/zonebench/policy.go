package zonebench

import (
	"fmt"
	"net/netip"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/zones"
)

// What is measured is between these: the client is in the last zone, the node
// that is measured and the server in the first.
var (
	clientAddress = netip.MustParseAddr("10.1.0.1")
	nodeAddress   = netip.MustParseAddr("10.1.0.254")
	rightAddress  = netip.MustParseAddr("10.2.0.254")
	serverAddress = netip.MustParseAddr("10.2.0.1")
)

const port = 80

func zoneName(i int) string { return fmt.Sprintf("zone%03d", i) }

// fleet is a policy with that many zones and rules, and the nodes that are their
// members, the first of which is the node that is measured.
func fleet(zoneCount, rules, members int) (*api.Policy, []api.Node) {
	p := &api.Policy{Zones: map[string]api.Zone{}}
	for i := range zoneCount {
		p.Zones[zoneName(i)] = api.Zone{Nodes: &api.NodeSelector{Attributes: map[string]string{"group": zoneName(i)}}}
	}
	for i := range rules - 1 {
		p.Rules = append(p.Rules, rule(fmt.Sprint("rule", i), zoneName(i*7%zoneCount), zoneName((i+i/zoneCount)%zoneCount),
			api.PortRange{Protocol: "tcp", First: uint16(1000 + i%100), Last: uint16(1000 + i%100)}, api.PortRange{Protocol: "udp", First: 53, Last: 53}))
	}
	p.Rules = append(p.Rules, rule("measured", zoneName(zoneCount-1), zoneName(0), api.PortRange{Protocol: "tcp", First: port, Last: port}))
	nodes := []api.Node{
		node("a-node", 0, nodeAddress, rightAddress), node("b-server", 0, serverAddress), node("c-client", zoneCount-1, clientAddress),
	}
	for i := range members {
		nodes = append(nodes, node(fmt.Sprintf("n%07d", i), i%zoneCount, memberAddress(i)))
	}
	return p, nodes
}

func rule(name, from, to string, ports ...api.PortRange) api.Rule {
	r := api.Rule{Name: name, From: []string{from}, To: []string{to}}
	for _, p := range ports {
		r.Allow = append(r.Allow, api.Traffic{PortRange: p})
	}
	return r
}

func node(name string, zone int, addresses ...netip.Addr) api.Node {
	return api.Node{Name: name, Addresses: addresses, Attributes: map[string]string{"group": zoneName(zone)}}
}

// memberAddress is one of many, no two of them neighbours; one in five is of
// IPv6.
func memberAddress(i int) netip.Addr {
	if i%5 == 4 {
		return netip.AddrFrom16([16]byte{0xfd, 9, 12: byte(i >> 22), 13: byte(i >> 14), 14: byte(i >> 6), 15: byte(i << 2)})
	}
	return netip.AddrFrom4([4]byte{11, byte(i >> 14), byte(i >> 6), byte(i << 2)})
}

func compile(o Options, members int) (*dataplane.Ruleset, error) {
	p, nodes := fleet(o.Zones, o.Rules, members)
	r, err := new(zones.Compiler).Compile(p, zones.State{Nodes: nodes}, zones.Options{Self: nodes[0]})
	return r.Ruleset, err
}

// oneRule accepts all.
func oneRule() *dataplane.Ruleset {
	all := []dataplane.FilterRule{{Name: "all", Ports: []api.PortRange{{Protocol: "any"}}}}
	return &dataplane.Ruleset{
		Sets:  []dataplane.AddressSet{{Name: "zoned", Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}},
		Zoned: "zoned", Input: all, Forward: all,
	}
}

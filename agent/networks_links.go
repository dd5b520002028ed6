package agent

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/zones"
)

// withTunnels has the node's networks lie behind the tunnels too: the other
// nodes' own packets to containers come out of these, under the nodes' addresses.
func withTunnels(all []zones.Link) []zones.Link {
	var networks []netip.Prefix
	for _, l := range all {
		if !isContainers(l.Name) {
			networks = append(networks, l.Prefixes...)
		}
	}
	for i := range all {
		if strings.HasPrefix(all[i].Name, dataplane.TunnelPrefix) {
			all[i].Prefixes = slices.Concat(all[i].Prefixes, networks)
		}
	}
	return all
}

// isContainers tells whether an interface is one that networks of containers
// are made of.
func isContainers(name string) bool {
	return slices.ContainsFunc([]string{dataplane.BridgePrefix, dataplane.TunnelPrefix, dataplane.VethPrefix}, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// hostAddresses are those of the node's interfaces, less those that are
// containers' gateways: these are no addresses by which others know the node,
// and every node has the one of its own bridge.
func hostAddresses() ([]net.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var all []net.Addr
	for _, i := range interfaces {
		if isContainers(i.Name) {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		all = append(all, addresses...)
	}
	return all, nil
}

package agent

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane/container"
)

// defaultVNI is that of networks that name none.
const defaultVNI = 1024

// table is what the kernel shall hold: the cluster's networks that this node
// has a part of, and its own while a container is in it.
func (n *Networks) table() container.Table {
	s := n.snapshot
	attachments := n.book.All()
	local := slices.ContainsFunc(attachments, func(a api.Attachment) bool {
		return slices.ContainsFunc(a.Interfaces, func(i api.AttachedInterface) bool { return i.Network == bridgeNetwork })
	})
	t := container.Table{Node: n.agent.config.Node.Name, Networks: n.networks(s, local)}
	if s != nil {
		t.Addresses = s.Node.Addresses
		for _, node := range s.Nodes {
			t.Inside = append(t.Inside, node.Addresses...)
		}
	}
	for _, a := range attachments {
		t.Endpoints = append(t.Endpoints, endpointOf(a))
	}
	return t
}

// networks are those that this node has a part of; with local, its own too.
func (n *Networks) networks(s *api.Snapshot, local bool) []container.Network {
	var all []container.Network
	if c := n.agent.config.Networks; local && (c.Bridge.IsValid() || c.Bridge6.IsValid()) {
		own := container.Network{Name: bridgeNetwork, Mode: api.NetworkLocal, Masquerade: true}
		for _, p := range []netip.Prefix{c.Bridge, c.Bridge6} {
			addSubnet(&own, p, p)
		}
		all = append(all, own)
	}
	if s == nil {
		return all
	}
	nodes := map[string]*api.Node{}
	for i := range s.Nodes {
		nodes[s.Nodes[i].Name] = &s.Nodes[i]
	}
	for _, network := range s.Networks {
		next := container.Network{Name: network.Name, Mode: cmp.Or(network.Mode, api.NetworkAuto), VNI: cmp.Or(network.VNI, defaultVNI), Masquerade: network.Masquerade == nil || *network.Masquerade}
		for _, subnet := range s.Subnets {
			switch {
			case subnet.Network != network.Name:
			case subnet.Node == s.Node.Name:
				addSubnet(&next, subnet.V4, network.Range)
				addSubnet(&next, subnet.V6, network.Range6)
			case nodes[subnet.Node] != nil && next.Mode != api.NetworkLocal:
				p := container.Peer{Node: subnet.Node, Addresses: nodes[subnet.Node].Addresses}
				for _, one := range []netip.Prefix{subnet.V4, subnet.V6} {
					if one.IsValid() {
						p.Subnets = append(p.Subnets, one)
					}
				}
				next.Peers = append(next.Peers, p)
			}
		}
		if len(next.Gateways) > 0 {
			all = append(all, next)
		}
	}
	return all
}

// addSubnet gives a network this node's subnet of one family; the first address
// is the gateway.
func addSubnet(n *container.Network, subnet, whole netip.Prefix) {
	if subnet.IsValid() {
		n.Gateways = append(n.Gateways, netip.PrefixFrom(subnet.Masked().Addr().Next(), subnet.Bits()))
		n.Ranges = append(n.Ranges, whole)
	}
}

// endpointOf is an attachment in the kernel's terms.
func endpointOf(a api.Attachment) container.Endpoint {
	e := container.Endpoint{ID: a.ID, Namespace: a.Namespace}
	for _, i := range a.Interfaces {
		e.Interfaces = append(e.Interfaces, container.Interface{Network: i.Network, Name: i.Name, Addresses: i.Addresses, Default: i.Default})
	}
	for _, p := range a.Ports {
		if p.HostPort == 0 {
			continue
		}
		for _, to := range firstOfEach(a.Addresses()) {
			e.Ports = append(e.Ports, container.Port{Protocol: cmp.Or(p.Protocol, api.TCP), Host: p.HostPort, To: netip.AddrPortFrom(to, cmp.Or(p.Port, p.HostPort))})
		}
	}
	slices.SortFunc(e.Ports, func(x, y container.Port) int {
		return cmp.Or(strings.Compare(string(x.Protocol), string(y.Protocol)), cmp.Compare(x.Host, y.Host), x.To.Compare(y.To))
	})
	return e
}

// firstOfEach picks the first address of each family.
func firstOfEach(all []netip.Addr) []netip.Addr {
	var some []netip.Addr
	for _, v4 := range []bool{true, false} {
		if i := slices.IndexFunc(all, func(a netip.Addr) bool { return a.Is4() == v4 }); i >= 0 {
			some = append(some, all[i])
		}
	}
	return some
}

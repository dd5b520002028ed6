package container

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/weirproject/weir/api"
)

// What a tunnel's headers take from the MTU of the link below it: an Ethernet
// header, VXLAN, UDP, and IPv4 or IPv6.
const (
	overhead4 = 50
	overhead6 = 70
)

// way is how packets get to one address of another node.
type way struct {
	onLink bool
	link   int // of the next hop
}

// plan is a table with what the kernel says about the ways.
type plan struct {
	table   Table
	uplink  int // MTU of the link with the node's first address
	bridges map[string]*bridge
	byName  map[string]*bridge // by the network's name
	tunnels map[string]*tunnel
	routes  map[routeKey]netlink.Route
	rules   map[ruleKey]bool
}

// bridge is what a network's bridge shall be.
type bridge struct {
	network Network
	mtu     int
}

// tunnel is what a VXLAN device shall be.
type tunnel struct {
	name  string
	vni   uint32
	local netip.Addr
	mtu   int
	ends  map[string]*end // by node
}

// end is another node's end of a tunnel.
type end struct {
	node    string
	at      netip.Addr          // of the node
	hops    map[netip.Addr]bool // next hops that stand for it
	targets []target            // what it leads to
}

type target struct {
	to    netip.Prefix
	hop   netip.Addr
	table int
}

// plan decides for each peer whether packets go straight to it or by a tunnel.
func (s *Sink) plan(t Table, note func(string, error)) *plan {
	k := &plan{
		table: t, bridges: map[string]*bridge{}, byName: map[string]*bridge{}, tunnels: map[string]*tunnel{},
		routes: map[routeKey]netlink.Route{}, rules: map[ruleKey]bool{},
	}
	k.uplink = uplinkMTU(t.Addresses)
	routed, tunnelled := map[string]bool{}, map[string]bool{}
	for _, n := range t.Networks {
		b := &bridge{network: n, mtu: k.uplink}
		k.bridges[BridgeName(n.Name)], k.byName[n.Name] = b, b
		if n.Mode == api.NetworkLocal {
			continue
		}
		if n.Mode == api.NetworkAuto || n.Mode == api.NetworkVXLAN {
			// Room for the headers is kept also while all peers are on the link:
			// the next one may not be, and containers keep their MTU.
			b.mtu -= overheadOf(t.Addresses, n.Peers)
		}
		for _, p := range n.Peers {
			note("find the way to node "+p.Node, s.planPeer(k, n, p, routed, tunnelled))
		}
		for _, g := range n.Gateways {
			if len(k.tunnels) > 0 {
				k.rules[ruleKey(g.Masked())] = true
			}
		}
	}
	s.routed, s.tunnel = len(routed), len(tunnelled)
	slices.Sort(s.lost)
	s.lost = slices.Compact(s.lost)
	return k
}

func (s *Sink) planPeer(k *plan, n Network, p Peer, routed, tunnelled map[string]bool) error {
	for _, subnet := range p.Subnets {
		if n.Mode != api.NetworkVXLAN {
			hop, link, err := s.onLink(p.Addresses, subnet.Addr().Is4())
			if err != nil {
				return err
			}
			if hop.IsValid() {
				k.route(netlink.Route{Dst: ipNet(subnet), Gw: hop.AsSlice(), LinkIndex: link})
				routed[p.Node] = true
				continue
			}
		}
		if n.Mode == api.NetworkRoutes {
			s.lost = append(s.lost, p.Node) // by the routers that we know nothing of
			continue
		}
		if err := k.planTunnel(n, p, subnet); err != nil {
			return err
		}
		tunnelled[p.Node] = true
	}
	return nil
}

// planTunnel has a peer's subnet reached by a tunnel.
func (k *plan) planTunnel(n Network, p Peer, subnet netip.Prefix) error {
	local, at, ok := common(k.table.Addresses, p.Addresses)
	if !ok {
		return fmt.Errorf("this node has addresses %v and it has %v: none of the same family", k.table.Addresses, p.Addresses)
	}
	v6 := local.Is6()
	name := tunnelName(n.VNI, v6)
	t := k.tunnels[name]
	if t == nil {
		t = &tunnel{name: name, vni: n.VNI, local: local, mtu: k.uplink - overheadFor(v6), ends: map[string]*end{}}
		k.tunnels[name] = t
	}
	e := t.ends[p.Node]
	if e == nil {
		e = &end{node: p.Node, at: at, hops: map[netip.Addr]bool{}}
		t.ends[p.Node] = e
	}
	// The next hop is the peer's end: a link-local address of it for IPv6, the
	// first address of its subnet, which no container has, for IPv4.
	hop := subnet.Masked().Addr()
	if hop.Is6() {
		hop = linkLocal(tunnelMAC(p.Node, n.VNI, v6))
	}
	e.hops[hop] = true
	e.targets = append(e.targets, target{to: subnet, hop: hop})
	for _, a := range p.Addresses {
		// Containers reach the node itself in the tunnel too: what is between
		// the nodes need not know the containers' addresses.
		if a.Is4() == subnet.Addr().Is4() {
			e.targets = append(e.targets, target{to: single(a), hop: hop, table: containerRoutes})
		}
	}
	return nil
}

// onLink finds an address of a peer that is on one of this node's links.
func (s *Sink) onLink(addresses []netip.Addr, v4 bool) (hop netip.Addr, link int, err error) {
	for _, a := range addresses {
		if a.Is4() != v4 {
			continue
		}
		routes, err := netlink.RouteGet(a.AsSlice())
		if err != nil {
			// The link may be down for a moment: what was known of it stays.
			w, known := s.ways[a]
			if known && w.onLink {
				return a, w.link, nil
			}
			continue
		}
		w := way{onLink: len(routes) == 1 && routes[0].Gw == nil && routes[0].Via == nil, link: routes[0].LinkIndex}
		s.ways[a] = w
		if w.onLink {
			return a, w.link, nil
		}
	}
	return netip.Addr{}, 0, nil
}

// common picks the first addresses of two nodes that share a family, IPv4
// before IPv6: its headers are smaller.
func common(ours, theirs []netip.Addr) (local, at netip.Addr, ok bool) {
	for _, v4 := range []bool{true, false} {
		is := func(a netip.Addr) bool { return a.Is4() == v4 }
		i, j := slices.IndexFunc(ours, is), slices.IndexFunc(theirs, is)
		if i >= 0 && j >= 0 {
			return ours[i], theirs[j], true
		}
	}
	return local, at, false
}

func overheadFor(v6 bool) int {
	if v6 {
		return overhead6
	}
	return overhead4
}

// overheadOf is what the widest headers on the way to a peer take.
func overheadOf(ours []netip.Addr, peers []Peer) int {
	most := overhead4
	if len(peers) == 0 && !slices.ContainsFunc(ours, netip.Addr.Is4) {
		most = overhead6
	}
	for _, p := range peers {
		if local, _, ok := common(ours, p.Addresses); ok && local.Is6() {
			most = overhead6
		}
	}
	return most
}

// uplinkMTU is that of the link with the node's first address that any has.
func uplinkMTU(addresses []netip.Addr) int {
	const usual = 1500
	for _, a := range addresses {
		all, err := netlink.AddrList(nil, familyOf(a))
		if err != nil {
			return usual
		}
		for _, held := range all {
			if addrOf(held.IP) != a {
				continue
			}
			if l, err := netlink.LinkByIndex(held.LinkIndex); err == nil && l.Attrs().MTU <= 65535 && l.Attrs().Name != "lo" {
				return l.Attrs().MTU
			}
		}
	}
	return usual
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

package filtertest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/zones"
)

// fleet makes up nodes, of which the first is the one that judges, services and
// apps at the addresses of the network.
func (r *random) fleet() zones.State {
	s := zones.State{Learnt: map[string][]netip.Addr{}}
	s.Nodes = append(s.Nodes, api.Node{Name: "a0", Zone: pick(r, "x", "y"), Addresses: slices.Concat(r.net.LeftAddrs, r.net.RightAddrs)})
	for i := range 1 + r.IntN(5) {
		n := api.Node{Name: fmt.Sprint("b", i), Zone: pick(r, "x", "y", "z"), Attributes: map[string]string{"rack": pick(r, "r1", "r2")}}
		for range 1 + r.IntN(3) {
			n.Addresses = append(n.Addresses, pick(r, slices.Concat(r.net.ClientAddrs, r.net.Servers)...))
		}
		s.Nodes = append(s.Nodes, n)
	}
	for _, protocol := range []api.Protocol{api.TCP, api.UDP} {
		web := api.Service{Name: "web", Namespace: "shop", Protocol: protocol}
		for range r.IntN(4) {
			web.Backends = append(web.Backends, api.Backend{Address: netip.AddrPortFrom(pick(r, r.everybody()...), pick(r, ports...)), Node: pick(r, "a0", "b0", "")})
		}
		s.Services = append(s.Services, web)
	}
	s.Apps = []zones.App{{ID: "/shop/db", Labels: map[string]string{"tier": "back"}, Instances: []zones.Instance{{Address: pick(r, r.net.Servers...), Node: pick(r, "a0", "b0")}}}}
	if r.chance(2) {
		s.Own = []netip.AddrPort{netip.AddrPortFrom(pick(r, r.net.Servers...), 53)}
	}
	s.Learnt["a.example.com"] = []netip.Addr{pick(r, r.net.Servers...), pick(r, r.net.ClientAddrs...)}
	return s
}

// moved is the fleet with members that have come, gone and changed.
func (r *random) moved(s zones.State) zones.State {
	s.Nodes, s.Services = slices.Clone(s.Nodes), slices.Clone(s.Services)
	i := 1 + r.IntN(len(s.Nodes)-1)
	s.Nodes[i].Zone, s.Nodes[i].Addresses = pick(r, "x", "y", "z"), append(slices.Clone(s.Nodes[i].Addresses), pick(r, r.net.Servers...))
	if r.chance(2) {
		s.Nodes = append(s.Nodes, api.Node{Name: "c0", Zone: "z", Addresses: []netip.Addr{pick(r, r.net.ClientAddrs...)}})
	}
	s.Services[0].Backends = append(slices.Clone(s.Services[0].Backends), api.Backend{Address: netip.AddrPortFrom(pick(r, r.net.Servers...), pick(r, ports...))})
	return s
}

// policy makes one up that says something about the network's addresses.
func (r *random) policy(now time.Time) *api.Policy {
	network := func() api.Network {
		a := pick(r, r.everybody()...)
		p, _ := a.Prefix(a.BitLen() - pick(r, 0, 0, 1, 2, 3))
		return api.Network{Prefix: p}
	}
	p := &api.Policy{Zones: map[string]api.Zone{}, Lists: map[string][]api.Network{"friends": {network(), network()}}}
	ends := []string{api.AnyZone, "friends", "web.shop", network().String()}
	var names []string
	for i := range 1 + r.IntN(5) {
		names = append(names, fmt.Sprint("zone", i))
	}
	ends = append(ends, append(names, names...)...)
	some := func(from []string) (all []string) {
		for range 1 + r.IntN(2) {
			all = append(all, pick(r, from...))
		}
		return all
	}
	for _, name := range names {
		p.Zones[name] = r.zone(network, func() []string { return some(ends[1:]) })
	}
	for i := range pick(r, 1, 3, 6, 25) {
		p.Rules = append(p.Rules, r.policyRule(fmt.Sprint("r", i), some, ends, now))
	}
	for i := range r.IntN(3) {
		p.Forward = append(p.Forward, api.ForwardRule{Rule: r.policyRule(fmt.Sprint("f", i), some, ends, now), Via: some(append(names, api.AnyZone))})
	}
	for i := range r.IntN(3) {
		e := api.EgressRule{Rule: r.policyRule(fmt.Sprint("e", i), some, ends, now)}
		e.Allow = slices.DeleteFunc(e.Allow, func(t api.Traffic) bool { return t.Service != "" })
		if r.chance(2) {
			e.Names = []string{pick(r, "a.example.com", "b.example.com")}
		}
		if len(e.Allow) > 0 {
			p.Egress = append(p.Egress, e)
		}
	}
	return p
}

func (r *random) zone(network func() api.Network, some func() []string) api.Zone {
	z := api.Zone{Unrouted: r.chance(5)}
	switch r.IntN(6) {
	case 0, 1:
		z.Nodes = &api.NodeSelector{Zone: pick(r, "x", "y", "z")}
	case 2:
		z.Nodes = &api.NodeSelector{Attributes: map[string]string{"rack": "r1"}}
	case 3:
		z.Services = []string{pick(r, "web.shop", "*.shop")}
	case 4:
		z.Apps = &api.AppSelector{Labels: map[string]string{"tier": "back"}}
	}
	for range r.IntN(3) {
		z.CIDRs = append(z.CIDRs, network().Prefix)
	}
	if r.chance(5) {
		z.Lists = []string{"friends"}
	}
	if r.chance(6) {
		z.Whitelist = some()
	}
	return z
}

func (r *random) policyRule(name string, some func([]string) []string, ends []string, now time.Time) api.Rule {
	f := api.Rule{Name: name, From: some(ends), To: some(ends), Log: r.chance(6)}
	for range 1 + r.IntN(2) {
		t := api.Traffic{PortRange: pick(r, parse("tcp"), parse("udp"), parse("icmp"), parse("any"), parse("tcp/80"), parse("tcp/80-443"), parse("udp/53"), parse("tcp/8000-65535"))}
		if r.chance(6) {
			t = api.Traffic{Service: "web.shop"}
		}
		f.Allow = append(f.Allow, t)
	}
	if r.chance(4) {
		f.Except.From = some(ends[1:])
	}
	if r.chance(4) {
		f.Except.To = some(ends[1:])
	}
	if r.chance(4) {
		f.Except.Ports = []api.PortRange{pick(r, parse("tcp/80"), parse("icmp"), parse("udp/1-1000"))}
	}
	if r.chance(8) {
		f.Rate = 10_000
	}
	if r.chance(6) {
		f.Expires = api.Time{Time: now.Add(pick(r, -time.Hour, time.Hour)).Truncate(time.Second)}
	}
	if strings.HasPrefix(name, "r") && f.Allow[0].Service != "" && r.chance(2) {
		f.Allow, f.To = f.Allow[:1], nil
	}
	return f
}

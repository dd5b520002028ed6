package zones

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
)

// chance makes up small policies and states in a small world, so that things
// overlap.
type chance struct{ *rand.Rand }

func newChance(seed uint64) chance { return chance{rand.New(rand.NewPCG(seed, 7))} }

var someTime = time.Date(2027, 1, 31, 18, 0, 0, 0, time.UTC)

func (c chance) addr() netip.Addr {
	if c.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10, 0, 0, byte(c.IntN(16))})
	}
	return netip.AddrFrom16([16]byte{0xfd, 15: byte(c.IntN(16))})
}

func (c chance) prefix() netip.Prefix {
	a := c.addr()
	return netip.PrefixFrom(a, a.BitLen()-c.IntN(5)).Masked()
}

func (c chance) one(of ...string) string { return of[c.IntN(len(of))] }

func (c chance) some(of []string) (all []string) {
	for range 1 + c.IntN(2) {
		all = append(all, of[c.IntN(len(of))])
	}
	return all
}

func (c chance) state() State {
	s := State{VIPs: map[string]api.VIPAddresses{}, Learnt: map[string][]netip.Addr{}}
	for i := range 1 + c.IntN(5) {
		n := api.Node{Name: fmt.Sprint("n", i), Zone: c.one("x", "y", "z"), Attributes: map[string]string{"k": c.one("", "a", "b")}}
		for range 1 + c.IntN(3) {
			n.Addresses = append(n.Addresses, c.addr())
		}
		s.Nodes = append(s.Nodes, n)
	}
	for _, name := range []string{"web", "db"} {
		for _, protocol := range []api.Protocol{api.TCP, api.UDP} {
			if c.IntN(3) == 0 {
				continue
			}
			service := api.Service{Name: name, Namespace: "shop", Protocol: protocol, VIPs: []api.VIP{{Addr: c.addr(), Port: 80}}}
			for range c.IntN(3) {
				service.Backends = append(service.Backends, api.Backend{Address: netip.AddrPortFrom(c.addr(), uint16(80+c.IntN(3))), Node: fmt.Sprint("n", c.IntN(5))})
			}
			s.Services = append(s.Services, service)
		}
	}
	for i := range c.IntN(2) {
		s.Apps = append(s.Apps, App{ID: fmt.Sprint("/shop/t", i), Labels: map[string]string{"tier": c.one("front", "back")}, Instances: []Instance{{c.addr(), "n0"}, {c.addr(), "n1"}}})
	}
	if c.IntN(2) == 0 {
		s.Own = append(s.Own, netip.AddrPortFrom(c.addr(), 53))
	}
	s.Learnt["a.example.com"] = []netip.Addr{c.addr(), c.addr()}
	return s
}

func (c chance) zone() api.Zone {
	z := api.Zone{Unrouted: c.IntN(4) == 0}
	switch c.IntN(6) {
	case 0, 1:
		z.Nodes = &api.NodeSelector{Zone: c.one("x", "y", "z")}
	case 2:
		z.Nodes = &api.NodeSelector{Attributes: map[string]string{"k": c.one("", "a")}}
	case 3:
		z.Services = []string{c.one("web.shop", "*.shop")}
	case 4:
		z.Apps = &api.AppSelector{Labels: map[string]string{"tier": "front"}}
		if c.IntN(2) == 0 {
			z.Apps = &api.AppSelector{IDs: []string{c.one("/shop/db", "/shop/*")}}
		}
	}
	for range c.IntN(3) {
		z.CIDRs = append(z.CIDRs, c.prefix())
	}
	if c.IntN(4) == 0 {
		z.Lists = []string{"friends"}
	}
	return z
}

func (c chance) policy() *api.Policy {
	p := &api.Policy{Zones: map[string]api.Zone{}, Lists: map[string][]api.Network{"friends": {{Prefix: c.prefix()}}}}
	zones := []string{"any"}
	for i := range 1 + c.IntN(4) {
		name := fmt.Sprint("z", i)
		p.Zones[name] = c.zone()
		zones = append(zones, name)
	}
	ends := append(slices.Clone(zones), zones[1], "friends", "web.shop", api.Network{Prefix: c.prefix()}.String())
	for name, z := range p.Zones {
		if c.IntN(5) == 0 {
			z.Whitelist = c.some(ends[1:])
			p.Zones[name] = z
		}
	}
	for i := range c.IntN(4) {
		p.Rules = append(p.Rules, c.rule(fmt.Sprint("r", i), ends))
	}
	for i := range c.IntN(2) {
		p.Forward = append(p.Forward, api.ForwardRule{Rule: c.rule(fmt.Sprint("f", i), ends), Via: c.some(zones)})
	}
	for i := range c.IntN(3) {
		e := api.EgressRule{Rule: c.rule(fmt.Sprint("e", i), ends)}
		e.Allow = slices.DeleteFunc(e.Allow, func(t api.Traffic) bool { return t.Service != "" })
		if c.IntN(2) == 0 {
			e.Names = []string{c.one("*.example.com", "a.example.com", "b.example.com")}
		}
		if len(e.Allow) > 0 && (len(e.To) > 0 || len(e.Names) > 0) {
			p.Egress = append(p.Egress, e)
		}
	}
	return p
}

func (c chance) rule(name string, ends []string) api.Rule {
	r := rule(name, c.some(ends), c.some(ends), c.one("tcp/80", "tcp/80-90", "tcp", "udp/53", "icmp", "any", "web.shop"), c.one("tcp/82", "udp/80-81", "icmp", "db.shop"))
	if !slices.ContainsFunc(r.Allow, func(t api.Traffic) bool { return t.Service == "" }) && c.IntN(2) == 0 {
		r.To = nil
	}
	if c.IntN(4) == 0 {
		r.Except.From = c.some(ends)
	}
	if c.IntN(4) == 0 {
		r.Except.To = c.some(ends)
	}
	if c.IntN(4) == 0 {
		r.Except.Ports = []api.PortRange{port(c.one("tcp/80", "tcp/81-85", "icmp"))}
	}
	if c.IntN(6) == 0 {
		r.Expires = api.Time{Time: someTime.Add(time.Duration(c.IntN(3)-1) * time.Hour)}
	}
	return r
}

// packet is a random one.
func (c chance) packet() Packet {
	p := Packet{From: c.addr(), To: c.addr(), Port: port(c.one("tcp/80", "tcp/81", "tcp/82", "tcp/85", "tcp/22", "udp/53", "udp/80", "udp/81", "udp/6080", "icmp")), Hook: Input}
	for p.From.Is4() != p.To.Is4() {
		p.To = c.addr()
	}
	return p
}

// show prints a policy for a failing test.
func show(v any) string { return strings.ReplaceAll(fmt.Sprintf("%+v", v), "} {", "}\n {") }

package zones

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/weirproject/weir/api"
)

// large is a policy of 200 zones and 2,000 rules, for 100,000 addresses: half
// of them of nodes, half of one service.
func large() (*api.Policy, State) {
	p := &api.Policy{Zones: map[string]api.Zone{"fleet": {Nodes: &api.NodeSelector{Attributes: map[string]string{"all": "yes"}}}, "tasks": {Services: []string{"web.shop"}}}}
	zones := []string{"fleet", "tasks"}
	for i := range 198 {
		name := fmt.Sprint("z", i)
		zones = append(zones, name)
		z := api.Zone{Nodes: &api.NodeSelector{Attributes: map[string]string{"group": name}}}
		if i%4 == 0 {
			z = api.Zone{CIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i), 0, 0}), 16)}}
		}
		p.Zones[name] = z
	}
	for i := range 2000 {
		p.Rules = append(p.Rules, rule(fmt.Sprint("r", i), []string{zones[i%200]}, []string{zones[(i*7+i/200)%200]}, fmt.Sprint("tcp/", 1000+i), "udp/53"))
	}
	s := State{}
	address := func(net, i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(net), byte(i >> 8), byte(i)}) }
	for i := range 50_000 {
		s.Nodes = append(s.Nodes, api.Node{Name: fmt.Sprintf("n%06d", i), Addresses: []netip.Addr{address(i>>16, i)}, Attributes: map[string]string{"all": "yes", "group": fmt.Sprint("z", i%198)}})
	}
	web := api.Service{Name: "web", Namespace: "shop"}
	for i := range 50_000 {
		web.Backends = append(web.Backends, api.Backend{Address: netip.AddrPortFrom(address(100+i>>16, i), 80)})
	}
	s.Services = []api.Service{web}
	return p, s
}

func BenchmarkCompileLarge(b *testing.B) {
	p, s := large()
	for b.Loop() {
		if r, err := new(Compiler).Compile(p, s, Options{Self: s.Nodes[0]}); err != nil || len(r.Ruleset.Sets) < 3 {
			b.Fatal(err)
		}
	}
}

func BenchmarkOneMember(b *testing.B) {
	p, s := large()
	for i := range 50_000 { // all 100,000 are nodes now
		s.Nodes = append(s.Nodes, api.Node{Name: fmt.Sprintf("x%06d", i), Addresses: []netip.Addr{s.Services[0].Backends[i].Address.Addr()}, Attributes: s.Nodes[i].Attributes})
	}
	s.Services = nil
	o := Options{Self: s.Nodes[0]}
	c := new(Compiler)
	if _, err := c.Compile(p, s, o); err != nil {
		b.Fatal(err)
	}
	full := s.Nodes
	part := slices.Delete(slices.Clone(full), 40_000, 40_001)
	o.Changed = []string{full[40_000].Name}
	i := 0
	for b.Loop() {
		s.Nodes = part
		if i++; i%2 == 0 {
			s.Nodes = full
		}
		if _, err := c.Compile(p, s, o); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOneBackend(b *testing.B) {
	p, s := large()
	o := Options{Self: s.Nodes[0]}
	c := new(Compiler)
	full := s.Services[0].Backends
	part := slices.Delete(slices.Clone(full), 40_000, 40_001)
	i := 0
	for b.Loop() {
		web := s.Services[0]
		web.Backends = part
		if i++; i%2 == 0 {
			web.Backends = full
		}
		s.Services = []api.Service{web}
		if _, err := c.Compile(p, s, o); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBindLarge(b *testing.B) {
	p, s := large()
	for b.Loop() {
		Bind(p, s, someTime)
	}
}

func BenchmarkDiffLarge(b *testing.B) {
	p, s := large()
	changed := *p
	changed.Rules = append(slices.Clone(p.Rules), rule("more", []string{"z1", "z3"}, []string{"fleet"}, "tcp/22"))
	old, now := Bind(p, s, someTime), Bind(&changed, s, someTime)
	for b.Loop() {
		if c := Diff(old, now); len(c.Allowed) == 0 || len(c.Denied) > 0 {
			b.Fatal(c)
		}
	}
}

func BenchmarkMatrixLarge(b *testing.B) {
	p, s := large()
	v := Bind(p, s, someTime)
	for b.Loop() {
		v.Matrix()
	}
}

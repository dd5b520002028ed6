package balancertest

import (
	"net/netip"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

const (
	vip  = "198.18.0.10:80"
	vip6 = "[fd77:6569:7200::a]:80"
)

// threeBackends are on the far host.
func threeBackends(port string) []string {
	return []string{"10.80.0.11:" + port, "10.80.0.12:" + port, "10.80.0.13:" + port}
}

func (s *suite) web() *dataplane.Service {
	s.Helper()
	return s.service(api.TCP, vip, threeBackends("8080")...)
}

func (s *suite) spread() {
	s.set(s.web())
	got := s.servers("tcp", vip, 90)
	for _, b := range threeBackends("8080") {
		if n := got[b]; n < 10 { // 30 is expected; chance has a standard deviation of 4.5
			s.Errorf("%s got %d of 90 connections: %v", b, n, got)
		}
	}
}

func (s *suite) weights() {
	s.set(with(s.web(), func(d *dataplane.Service) { d.Backends[1].Weight, d.Backends[2].Weight = 3, 0 }))
	got := s.servers("tcp", vip, 120)
	if n := got["10.80.0.12:8080"]; n < 65 || n > 112 { // 90; 4.7
		s.Errorf("the backend with weight 3 of 4 got %d of 120: %v", n, got)
	}
	if n := got["10.80.0.13:8080"]; n != 0 {
		s.Errorf("the backend with weight 0 got %d", n)
	}
}

func (s *suite) v6() {
	d := s.service(api.TCP, vip6, "[fd00::11]:8080", "[fd00::12]:8080", "[fd00::13]:8080")
	empty := with(d, func(d *dataplane.Service) {
		d.Name, d.Backends, d.Frontends = "empty.default/tcp/6", nil, []netip.AddrPort{netip.MustParseAddrPort("[fd77:6569:7200::b]:80")}
	})
	s.set(empty, d)
	if got := s.servers("tcp", vip6, 60); len(got) != 3 {
		s.Errorf("got %v, want all three backends", got)
	}
	s.mustBeRefused("tcp", "[fd77:6569:7200::b]:80")
	s.mustBeRefused("tcp", "[fd77:6569:7200::a]:81")
	s.mustBeRefused("udp", "[fd77:6569:7200::a]:80")
	c, err := s.dial("tcp", vip6)
	if err != nil {
		s.Fatal(err)
	}
	if _, client, err := c.ask(); err != nil || addressOf(client) != nodeAddress6 {
		s.Errorf("the backend sees %s (%v), want the node's own %s", client, err, nodeAddress6)
	}
}

func (s *suite) udp() {
	s.set(s.service(api.UDP, dnsVIP, threeBackends("5353")...))
	if got := s.servers("udp", dnsVIP, 60); len(got) != 3 {
		s.Errorf("got %v, want all three backends", got)
	}
	// One socket keeps its backend.
	c, first := s.mustDial("udp", dnsVIP)
	for range 10 {
		if server, _, err := c.ask(); err != nil || server != first {
			s.Fatalf("the socket of %s got %s, %v", first, server, err)
		}
	}
}

func (s *suite) balances() {
	for _, balance := range []api.Balance{api.Random, api.P2C, api.Maglev} {
		s.set(with(s.web(), func(d *dataplane.Service) { d.Balance = balance }))
		got := s.servers("tcp", vip, 30)
		if balance != api.Maglev && len(got) < 2 {
			s.Errorf("%s: got %v, want several backends", balance, got)
		}
	}
}

func (s *suite) affinity() {
	sticky := with(s.web(), func(d *dataplane.Service) { d.Affinity = time.Minute })
	s.set(sticky)
	got := s.servers("tcp", vip, 20)
	if len(got) != 1 {
		s.Fatalf("one client got %v", got)
	}
	for server := range got {
		s.set(in(sticky, server, api.Down))
		moved := s.servers("tcp", vip, 20)
		if len(moved) != 1 || moved[server] != 0 {
			s.Errorf("after %s went one client got %v", server, moved)
		}
	}
}

func (s *suite) maglev() {
	d := with(s.web(), func(d *dataplane.Service) { d.Balance = api.Maglev })
	s.set(d)
	got := s.servers("tcp", vip, 20)
	if len(got) != 1 {
		s.Fatalf("one client got %v", got)
	}
	for server := range got {
		for _, state := range []api.BackendState{api.Draining, api.Down} {
			s.set(in(d, server, state))
			if moved := s.servers("tcp", vip, 20); len(moved) != 1 || moved[server] != 0 {
				s.Errorf("with %s %s one client got %v", server, state, moved)
			}
		}
	}
}

func (s *suite) frontends() {
	s.set(with(s.web(), func(d *dataplane.Service) {
		d.Frontends = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.80:8000"), d.Frontends[0]}
	}))
	for _, target := range []string{vip, "192.0.2.80:8000"} { // a literal one, outside the ranges
		if got := s.servers("tcp", target, 60); len(got) != 3 {
			s.Errorf("%s: got %v, want all three backends", target, got)
		}
	}
	s.mustBeRefused("tcp", "192.0.2.80:80")
}

func (s *suite) hairpin() {
	s.set(s.service(api.TCP, vip, nodeAddress+":8080"), s.service(api.UDP, dnsVIP, nodeAddress+":5353"))
	s.servers("tcp", vip, 10)
	s.servers("udp", dnsVIP, 10)
}

func (s *suite) source() {
	s.set(s.web())
	c, err := s.dial("tcp", vip)
	if err != nil {
		s.Fatal(err)
	}
	if _, client, err := c.ask(); err != nil || addressOf(client) != nodeAddress {
		s.Errorf("the backend sees %s (%v), want the node's own %s", client, err, nodeAddress)
	}
}

func (s *suite) forwarded() {
	s.set(s.web(), s.service(api.UDP, dnsVIP, nodeAddress+":5353", "10.80.0.11:5353"))
	seen := map[string]bool{}
	for range 20 {
		for _, at := range [][2]string{{"tcp", vip}, {"udp", dnsVIP}} {
			c, err := s.dialFrom(s.network.other, at[0], at[1])
			if err != nil {
				s.Fatalf("%s to %s: %v", at[0], at[1], err)
			}
			server, _, err := c.ask()
			if err != nil {
				s.Fatalf("%s to %s: %v", at[0], at[1], err)
			}
			seen[server] = true
		}
	}
	if len(seen) != 5 {
		s.Errorf("got %v, want all five backends", seen)
	}
}

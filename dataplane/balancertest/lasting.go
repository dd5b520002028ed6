package balancertest

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

func (s *suite) counters() {
	// Backends that no test before had: a kernel may count on where it had left off.
	web, d := s.service(api.TCP, vip, threeBackends("8090")...), s.service(api.UDP, dnsVIP, "10.80.0.11:5390")
	s.set(web, d)
	s.servers("tcp", vip, 30)
	s.servers("udp", dnsVIP, 3)
	s.mustBeRefused("tcp", "198.18.0.10:2200")
	var c dataplane.Counters
	s.eventually("the connections are counted", func() bool {
		var err error
		if c, err = s.sink.Counters(); err != nil {
			s.Fatalf("Counters: %v", err)
		}
		return c.Services[web.Name].Connections >= 30 && c.Services[d.Name].Connections >= 3
	})
	if n := c.Services[web.Name].Connections; n != 30 {
		s.Errorf("%s: counted %d of 30 connections", web.Name, n)
	}
	sum := uint64(0)
	for _, b := range c.Services[web.Name].Backends {
		sum += b.Connections
	}
	if n := len(c.Services[web.Name].Backends); n != 3 || sum != 30 {
		s.Errorf("%s: counted %d connections to %d backends, want 30 to 3", web.Name, sum, n)
	}
	if n := c.Services[d.Name].Connections; n != 3 {
		s.Errorf("%s: counted %d of 3 clients", d.Name, n)
	}
	if c.UnservedPorts == 0 {
		s.Error("the refused port is not counted")
	}
}

func (s *suite) mixed() []*dataplane.Service {
	s.Helper()
	six := s.service(api.TCP, vip6, nodeAddressPort6, "[fd00::11]:8080")
	local := s.service(api.UDP, dnsVIP, nodeAddress+":5353", "10.80.0.11:5353")
	literal := with(s.web(), func(d *dataplane.Service) {
		d.Name, d.Balance, d.Frontends = "literal.default/tcp/4", api.Maglev, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.80:8000")}
	})
	empty := s.service(api.TCP, "198.18.0.11:80")
	empty.Name = "empty.default/tcp/4"
	return []*dataplane.Service{empty, literal, s.web(), six, local}
}

const nodeAddressPort6 = "[" + nodeAddress6 + "]:8080"

func (s *suite) idempotent() {
	if c := s.set(s.mixed()...); c.Written == 0 {
		s.Errorf("the first Set: got %+v, want something written", c)
	}
	if c := s.set(s.mixed()...); c != (dataplane.Changes{}) {
		s.Errorf("the second Set: got %+v, want nothing", c)
	}
}

func (s *suite) restart() {
	all := s.mixed()
	s.set(all...)
	c, server := s.mustDial("tcp", vip)
	if err := s.sink.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	s.sink = nil
	if got := s.servers("tcp", vip, 10); len(got) == 0 {
		s.Error("nothing is served without the agent")
	}
	s.open()
	if again, _, err := c.ask(); err != nil || again != server {
		s.Errorf("the open connection to %s, after New: got %s, %v", server, again, err)
	}
	if c := s.set(all...); c != (dataplane.Changes{}) {
		s.Errorf("Set of the same table after a restart: got %+v, want nothing", c)
	}
	if again, _, err := c.ask(); err != nil || again != server {
		s.Errorf("the open connection to %s, after Set: got %s, %v", server, again, err)
	}
	// What went away while nobody looked is removed by the next one: here the
	// service outside the ranges, which is known by its mark alone.
	s.open()
	s.daemon("8000")
	changes := s.set(slices.DeleteFunc(slices.Clone(all), func(d *dataplane.Service) bool { return d.Name == "literal.default/tcp/4" })...)
	if changes.Removed == 0 {
		s.Errorf("got %+v, want something removed", changes)
	}
	if c, err := s.dial("tcp", "192.0.2.80:8000"); err == nil {
		server, _, err := c.ask()
		s.Errorf("the removed literal address is reached: %s, %v", server, err)
	}
}

func (s *suite) damage() {
	all := s.mixed()
	s.set(all...)
	for _, name := range slices.Sorted(maps.Keys(s.o.Damages)) {
		s.o.Damages[name](s.T)
		if c := s.set(all...); c.Repaired == 0 || c.Removed != 0 && c.Written != 0 {
			s.Errorf("%s: got %+v, want it repaired and nothing else", name, c)
		}
		if c := s.set(all...); c != (dataplane.Changes{}) {
			s.Errorf("%s: a second Set did %+v", name, c)
		}
		s.servers("tcp", vip, 3)
		s.servers("tcp", vip6, 3)
		s.mustBeRefused("tcp", "198.18.0.11:80")
		s.mustBeRefused("tcp", "198.18.0.10:2200")
	}
}

func (s *suite) cleanup() {
	if err := s.o.Cleanup(); err != nil {
		s.Fatalf("Cleanup before anything: %v", err)
	}
	if left := s.o.Left(s.T); len(left) > 0 {
		s.Fatalf("there is something before anything: %v", left)
	}
	s.set(s.mixed()...)
	if left := s.o.Left(s.T); len(left) == 0 {
		s.Fatal("Left finds nothing after Set, so it proves nothing")
	}
	s.sink.Close()
	for range 2 {
		if err := s.o.Cleanup(); err != nil {
			s.Fatalf("Cleanup: %v", err)
		}
		if left := s.o.Left(s.T); len(left) > 0 {
			s.Errorf("left after Cleanup: %v", left)
		}
	}
}

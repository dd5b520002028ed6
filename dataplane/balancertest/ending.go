package balancertest

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

func (s *suite) empty() {
	none := with(s.web(), func(d *dataplane.Service) { d.Backends = nil })
	down := with(s.web(), func(d *dataplane.Service) {
		d.Name, d.Frontends = "down.default/tcp/4", []netip.AddrPort{netip.MustParseAddrPort("198.18.0.11:80")}
		for i := range d.Backends {
			d.Backends[i].State = api.Down
		}
	})
	udp := with(s.service(api.UDP, dnsVIP), func(*dataplane.Service) {})
	s.daemon("80")
	s.set(none, down, udp)
	s.mustBeRefused("tcp", vip)
	s.mustBeRefused("tcp", "198.18.0.11:80")
	s.mustBeRefused("udp", dnsVIP)
	s.set(s.web())
	s.servers("tcp", vip, 3)
}

// daemon is the node's own, on all its addresses. It ends with the test.
func (s *suite) daemon(port string) {
	s.Helper()
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "daemon of the node")
			c.Close()
		}
	}()
	u, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { u.Close() })
	go func() {
		buffer := make([]byte, 16)
		for {
			_, from, err := u.ReadFrom(buffer)
			if err != nil {
				return
			}
			u.WriteTo([]byte("daemon of the node"), from)
		}
	}()
}

// unservedTargets serve nothing: a port of a virtual address, its other
// protocol, and an address that no service has.
var unservedTargets = [][2]string{{"tcp", "198.18.0.10:2200"}, {"udp", "198.18.0.10:2200"}, {"udp", vip}, {"tcp", "198.18.0.99:2200"}}

func (s *suite) unserved() {
	s.daemon("2200")
	s.set(s.web())
	for _, t := range unservedTargets {
		s.mustBeRefused(t[0], t[1])
	}
	if _, err := s.dial("tcp", nodeAddress+":2200"); err != nil {
		s.Errorf("the daemon at the node's own address: %v", err)
	}
}

func (s *suite) unservedForwarded() {
	s.daemon("2200")
	s.set(s.web(), with(s.service(api.TCP, "198.18.0.11:80"), func(d *dataplane.Service) { d.Name = "empty.default/tcp/4" }))
	for _, t := range append([][2]string{{"tcp", "198.18.0.11:80"}}, unservedTargets...) {
		if err := s.refused(s.network.other, t[0], t[1]); err != nil {
			s.Error(err)
		}
	}
	if _, err := s.dialFrom(s.network.other, "tcp", "203.0.113.1:2200"); err != nil {
		s.Errorf("the daemon at the node's own address: %v", err)
	}
}

func (s *suite) draining() {
	web := s.web()
	s.set(web)
	old, server := s.mustDial("tcp", vip)
	s.set(in(web, server, api.Draining))
	if again, _, err := old.ask(); err != nil || again != server {
		s.Errorf("the open connection to %s: got %s, %v", server, again, err)
	}
	if got := s.servers("tcp", vip, 30); got[server] != 0 || len(got) != 2 {
		s.Errorf("%s drains, and new connections went to %v", server, got)
	}
	s.set(web)
	s.eventually("the backend gets connections again", func() bool { return s.servers("tcp", vip, 10)[server] > 0 })
	if again, _, err := old.ask(); err != nil || again != server {
		s.Errorf("the open connection to %s, up again: got %s, %v", server, again, err)
	}
}

func (s *suite) allDraining() {
	web := s.web()
	s.set(web)
	old, server := s.mustDial("tcp", vip)
	s.set(with(web, func(d *dataplane.Service) {
		for i := range d.Backends {
			d.Backends[i].State = api.Draining
		}
	}))
	s.mustBeRefused("tcp", vip)
	if again, _, err := old.ask(); err != nil || again != server {
		s.Errorf("the open connection to %s: got %s, %v", server, again, err)
	}
}

func (s *suite) down() {
	web := s.web()
	s.set(web)
	var conns []*conn
	var servers []string
	for range 12 {
		c, server := s.mustDial("tcp", vip)
		conns, servers = append(conns, c), append(servers, server)
	}
	gone := servers[0]
	s.set(in(web, gone, api.Down))
	started := time.Now()
	for i, c := range conns {
		if servers[i] != gone {
			if server, _, err := c.ask(); err != nil || server != servers[i] {
				s.Errorf("a connection to %s, which stays: got %s, %v", servers[i], server, err)
			}
			continue
		}
		// It waits for its server and sends nothing.
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 16)); !isReset(err) {
			s.Errorf("a connection to %s, which is gone: got %v, want a reset", gone, err)
		}
	}
	s.Logf("the connections were reset within %s of Set", time.Since(started))
	if got := s.servers("tcp", vip, 20); got[gone] != 0 {
		s.Errorf("%s is down, and new connections went to %v", gone, got)
	}
}

const dnsVIP = "198.18.0.10:53"

func (s *suite) udpMoves() {
	d := s.service(api.UDP, dnsVIP, threeBackends("5353")...)
	s.set(d)
	u, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		s.Fatal(err)
	}
	defer u.Close()
	first := s.answer(u)
	s.set(in(d, first, api.Draining))
	if server := s.answer(u); server != first {
		s.Errorf("%s drains, and its socket got %s", first, server)
	}
	s.set(in(d, first, api.Down))
	moved := s.answer(u)
	if moved == first {
		s.Errorf("the socket stays with %s, which is down", first)
	}
	s.set(d)
	for range 3 {
		if server := s.answer(u); server != moved {
			s.Errorf("the socket moved to %s and then to %s", moved, server)
		}
	}
}

// answer sends messages from an unconnected socket until one is answered, and
// gives the server.
func (s *suite) answer(u net.PacketConn) (server string) {
	s.Helper()
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(dnsVIP))
	s.eventually("a message is answered", func() bool {
		u.SetDeadline(time.Now().Add(time.Second))
		if _, err := u.WriteTo([]byte("?"), to); err != nil {
			return false
		}
		buffer := make([]byte, 200)
		n, from, err := u.ReadFrom(buffer)
		if err != nil {
			return false
		}
		if from.String() != to.String() {
			s.Errorf("the answer came from %s", from)
		}
		server, _, _ = strings.Cut(string(buffer[:n]), " ")
		return true
	})
	return server
}

func (s *suite) udpConnected() {
	d := s.service(api.UDP, dnsVIP, threeBackends("5353")...)
	s.set(d)
	c, first := s.mustDial("udp", dnsVIP)
	s.set(in(d, first, api.Down))
	if server, _, err := c.ask(); err == nil && server == first || timedOut(err) {
		s.Errorf("the socket of %s, which is down: got %q, %v, want another server or an error", first, server, err)
	}
	if _, server := s.mustDial("udp", dnsVIP); server == first {
		s.Errorf("a new socket got %s, which is down", first)
	}
}

func (s *suite) removed() {
	web, other := s.web(), s.service(api.TCP, "198.18.0.12:80", "10.80.0.11:8081")
	other.Name = "other.default/tcp/4"
	s.set(web, other)
	c, _ := s.mustDial("tcp", vip)
	s.daemon("80")
	s.set(other)
	s.mustBeRefused("tcp", vip)
	if _, _, err := c.ask(); !isReset(err) {
		s.Errorf("a connection through the removed service: got %v, want a reset", err)
	}
	s.servers("tcp", "198.18.0.12:80", 3)
}

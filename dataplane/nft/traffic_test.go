package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/weirproject/weir/api"
)

// How long to wait for what must pass on a busy machine, and for what must
// not, where every wait is a wait in vain.
const (
	passTime = 5 * time.Second
	dropTime = 120 * time.Millisecond
)

// net3 is a node between a client and a server, all with IPv4 and IPv6.
type net3 struct{ client, node, server *space }

const (
	client4, node4, server4 = "10.1.0.9", "10.1.0.1", "10.2.0.9"
	client6, node6, server6 = "fd01::9", "fd01::1", "fd02::9"
)

func newNet3(t testing.TB) net3 {
	n := net3{newSpace(t), newSpace(t), newSpace(t)}
	wire(n.node, "left", n.client, "eth0")
	wire(n.node, "right", n.server, "eth0")
	n.node.address("left", node4+"/16")
	n.node.address("left", node6+"/64")
	n.node.address("right", "10.2.0.1/16")
	n.node.address("right", "fd02::1/64")
	n.client.address("eth0", client4+"/16")
	n.client.address("eth0", client6+"/64")
	n.server.address("eth0", server4+"/16")
	n.server.address("eth0", server6+"/64")
	for _, s := range []struct {
		space    *space
		gateways []string
	}{{n.client, []string{node4, node6}}, {n.server, []string{"10.2.0.1", "fd02::1"}}} {
		for _, g := range s.gateways {
			s.space.route(g)
		}
	}
	n.node.must(n.node.do(func() error {
		for _, file := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+file, []byte("1"), 0o644); err != nil {
				return err
			}
		}
		return nil
	}))
	return n
}

// serve answers on the ports, TCP and UDP, of every address that the namespace
// has by now, until the test ends: it sends back what it gets. A UDP socket for
// each address makes the answer come from the one that was asked.
func (s *space) serve(ports ...int) {
	s.t.Helper()
	all, err := s.nl.AddrList(nil, netlink.FAMILY_ALL)
	s.must(err)
	for _, a := range all {
		if a.IP.IsLinkLocalUnicast() {
			continue
		}
		for _, port := range ports {
			var l net.Listener
			var u net.PacketConn
			s.must(s.do(func() (err error) {
				at := net.JoinHostPort(a.IP.String(), fmt.Sprint(port))
				if l, err = net.Listen("tcp", at); err != nil {
					return err
				}
				u, err = net.ListenPacket("udp", at)
				return err
			}))
			s.t.Cleanup(func() { l.Close(); u.Close() })
			go echoTCP(l)
			go echoUDP(u)
		}
	}
}

func echoTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			for b := make([]byte, 64); ; {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				c.Write(b[:n])
			}
		}()
	}
}

func echoUDP(u net.PacketConn) {
	for b := make([]byte, 64); ; {
		n, from, err := u.ReadFrom(b)
		if err != nil {
			return
		}
		u.WriteTo(b[:n], from)
	}
}

// send opens a new flow and waits for its answer. from may be empty.
func (s *space) send(from, to string, port api.PortRange, wait time.Duration) error {
	return s.do(func() error {
		if port.Protocol == "icmp" {
			return ping(from, to, wait)
		}
		d := net.Dialer{Timeout: wait}
		if from != "" {
			d.LocalAddr = local4(port.Protocol, from)
		}
		c, err := d.Dial(port.Protocol, net.JoinHostPort(to, fmt.Sprint(port.First)))
		if err != nil {
			return err
		}
		defer c.Close()
		return talk(c, wait)
	})
}

// talk sends a word and reads it back.
func talk(c net.Conn, wait time.Duration) error {
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("word")); err != nil {
		return err
	}
	b := make([]byte, 64)
	_, err := c.Read(b)
	return err
}

func local4(protocol, from string) net.Addr {
	ap := netip.AddrPortFrom(netip.MustParseAddr(from), 0)
	if protocol == "tcp" {
		return net.TCPAddrFromAddrPort(ap)
	}
	return net.UDPAddrFromAddrPort(ap)
}

// ping sends an echo request and waits for the reply to it.
func ping(from, to string, wait time.Duration) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if netip.MustParseAddr(to).Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	if from == "" {
		from = map[bool]string{true: "::", false: "0.0.0.0"}[request == 128]
	}
	c, err := net.ListenPacket(network, from)
	if err != nil {
		return err
	}
	defer c.Close()
	id := uint16(time.Now().UnixNano() >> 10)
	b := []byte{request, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}
	sum := uint32(request)<<8 + uint32(id) + 1
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum&0xffff+sum>>16)) // the kernel does it for ICMPv6
	if _, err := c.WriteTo(b, &net.IPAddr{IP: net.ParseIP(to)}); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(wait))
	for in := make([]byte, 128); ; {
		n, peer, err := c.ReadFrom(in)
		if err != nil {
			return err
		}
		if n >= 8 && in[0] == reply && binary.BigEndian.Uint16(in[4:]) == id && peer.(*net.IPAddr).IP.Equal(net.ParseIP(to)) {
			return nil
		}
	}
}

// passes and closed check one new flow.
func (s *space) passes(to, port string) {
	s.t.Helper()
	if err := s.send("", to, mustPort(port), passTime); err != nil {
		s.t.Errorf("%s to %s: got %v, want it to pass", port, to, err)
	}
}

func (s *space) closed(to, port string) {
	s.t.Helper()
	if err := s.send("", to, mustPort(port), dropTime); err == nil {
		s.t.Errorf("%s to %s: it passed, want it closed", port, to)
	}
}

func mustPort(text string) api.PortRange {
	p, err := api.ParsePortRange(text)
	if err != nil {
		panic(err)
	}
	return p
}

// keep opens a TCP connection inside the namespace, which stays open.
func (s *space) keep(to string, port int) net.Conn {
	s.t.Helper()
	var c net.Conn
	s.must(s.do(func() (err error) {
		c, err = net.DialTimeout("tcp", net.JoinHostPort(to, fmt.Sprint(port)), passTime)
		return err
	}))
	s.t.Cleanup(func() { c.Close() })
	return c
}

package deliver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// rig is a client, a router that is the edge node, and a node with backends.
// The router's other way round is the plain one: it forwards the answers.
//
//	client 203.0.113.9 --- .1 edge 10.80.0.31 --- 10.80.0.11 node
type rig struct {
	t                  *testing.T
	client, edge, node *space
	d                  *Deliverer
	table              dataplane.DeliveryTable
	refused            atomic.Int64 // packets too large for the wire
}

var (
	fragmentVIP4, fragmentVIP6 = ap("198.18.0.11:53"), ap("[fd77:6569:7200::11]:53")
	closedVIP4, closedVIP6     = ap("198.18.0.11:54"), ap("[fd77:6569:7200::11]:54")
)

func newRig(t *testing.T) *rig {
	t.Helper()
	r := newRigWithoutEdge(t)
	r.tunnel()
	return r
}

func newRigWithoutEdge(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, client: newSpace(t, "client"), edge: newSpace(t, "edge"), node: newSpace(t, "node")}
	wire(r.client, "c0", r.edge, "e0")
	wire(r.node, "n0", r.edge, "e1")
	r.client.up("c0", "203.0.113.9/24", "2001:db8::9/64")
	r.edge.up("e0", "203.0.113.1/24", "2001:db8::1/64")
	r.edge.up("e1", "10.80.0.31/24", "fd00:80::31/64")
	r.node.up("n0", "10.80.0.11/24", "fd00:80::11/64")
	r.edge.sysctl("ipv4/ip_forward", "1")
	r.edge.sysctl("ipv6/conf/all/forwarding", "1")
	r.client.route("0.0.0.0/0", "203.0.113.1", 0)
	r.client.route("::/0", "2001:db8::1", 0)
	// Fragments of this size fit the tunnel.
	r.client.route("198.18.0.11/32", "203.0.113.1", 1400)
	r.client.route("fd77:6569:7200::11/128", "2001:db8::1", 1400)
	r.node.route("0.0.0.0/0", "10.80.0.31", 0)
	r.node.route("::/0", "fd00:80::31", 0)
	r.edge.route("198.18.0.0/15", "", 0)
	r.edge.route("fd77:6569:7200::/112", "", 0)
	r.client.plain("c0")
	// What the node leaves to its device, this end finishes for the client to check.
	r.edge.plain("e0")
	r.table = table("n0")
	r.table.Services = append(r.table.Services,
		service("fragments/udp/4", api.UDP, fragmentVIP4, ap("10.80.0.11:5353"), node4),
		service("fragments/udp/6", api.UDP, fragmentVIP6, ap("[fd00:80::11]:5353"), node6),
		service("closed/udp/4", api.UDP, closedVIP4, ap("10.80.0.11:5454"), node4),
		service("closed/udp/6", api.UDP, closedVIP6, ap("[fd00:80::11]:5454"), node6),
	)
	r.d = open(t, newOptions(t))
	r.set()
	r.serveTCP("10.80.0.11:8080", "[fd00:80::11]:8080")
	r.serveUDP("10.80.0.11:8080", "[fd00:80::11]:8080", "10.80.0.11:5353", "[fd00:80::11]:5353")
	return r
}

func (r *rig) set() (c dataplane.Changes) {
	r.t.Helper()
	r.node.must(func() (err error) {
		c, err = r.d.Set(context.Background(), r.table)
		return err
	})
	return c
}

// serveTCP answers a request of a length and as many bytes with their hash and
// as many bytes as it asks for.
func (r *rig) serveTCP(addresses ...string) { r.serveTCPIn(r.node, addresses...) }

func (r *rig) serveTCPIn(s *space, addresses ...string) {
	for _, a := range addresses {
		var l net.Listener
		s.must(func() (err error) { l, err = net.Listen("tcp", a); return err })
		r.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					var head [8]byte
					if _, err := io.ReadFull(c, head[:]); err != nil {
						return
					}
					h := sha256.New()
					io.CopyN(h, c, int64(binary.BigEndian.Uint32(head[:])))
					c.Write(h.Sum(nil))
					c.Write(bytes.Repeat([]byte{7}, int(binary.BigEndian.Uint32(head[4:]))))
				}()
			}
		}()
	}
}

// serveUDP sends back what comes.
func (r *rig) serveUDP(addresses ...string) {
	for _, a := range addresses {
		var c net.PacketConn
		r.node.must(func() (err error) { c, err = net.ListenPacket("udp", a); return err })
		r.t.Cleanup(func() { c.Close() })
		go func() {
			buffer := make([]byte, 65536)
			for {
				n, from, err := c.ReadFrom(buffer)
				if err != nil {
					return
				}
				c.WriteTo(buffer[:n], from)
			}
		}()
	}
}

// tunnel stands in for the edge program: it takes what arrives for a virtual
// address and sends it on in GUE.
func (r *rig) tunnel() {
	var in, out4, out6 int
	r.edge.must(func() (err error) {
		if in, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(htons(unix.ETH_P_ALL))); err != nil {
			return err
		}
		i, err := net.InterfaceByName("e0")
		if err != nil {
			return err
		}
		if err := unix.Bind(in, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: i.Index}); err != nil {
			return err
		}
		unix.SetsockoptInt(in, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
		unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000})
		if out4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW); err != nil {
			return err
		}
		out6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW)
		return err
	})
	stop, stopped := make(chan struct{}), make(chan struct{})
	r.t.Cleanup(func() {
		close(stop)
		<-stopped
		unix.Close(in)
		unix.Close(out4)
		unix.Close(out6)
	})
	backends := map[string]netip.AddrPort{}
	for _, s := range r.table.Services {
		backends[s.Frontends[0].String()+string(s.Protocol)] = s.Backends[0].Address
	}
	go func() {
		defer close(stopped)
		buffer := make([]byte, 65536)
		fragments := map[string]netip.AddrPort{}
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, from, err := unix.Recvfrom(in, buffer, 0)
			if err != nil {
				continue
			}
			if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_HOST {
				continue
			}
			inside := buffer[ethernet:n]
			backend, known := route(inside, backends, fragments)
			if !known {
				continue
			}
			if backend.Addr().Is4() {
				err = unix.Sendto(out4, gue(edge4, node4, backend, inside), 0, &unix.SockaddrInet4{Addr: node4.As4()})
			} else {
				err = unix.Sendto(out6, gue(edge6, node6, backend, inside), 0, &unix.SockaddrInet6{Addr: node6.As16()})
			}
			if errors.Is(err, unix.EMSGSIZE) {
				r.refused.Add(1)
			}
		}
	}()
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// route finds the backend of a packet, and of later fragments by the first.
func route(ip []byte, backends map[string]netip.AddrPort, fragments map[string]netip.AddrPort) (b netip.AddrPort, known bool) {
	var to netip.Addr
	var id string
	var more, later bool
	protocol, body := uint8(0), []byte(nil)
	switch ip[0] >> 4 {
	case 4:
		to, protocol, body = netip.AddrFrom4([4]byte(ip[16:20])), ip[9], ip[20:]
		id, more, later = string(ip[4:6]), ip[6]&0x20 != 0, binary.BigEndian.Uint16(ip[6:])&0x1fff != 0
	case 6:
		to, protocol, body = netip.AddrFrom16([16]byte(ip[24:40])), ip[6], ip[40:]
		if protocol == 44 {
			protocol, id, more, later, body = body[0], string(body[4:8]), body[3]&1 != 0, binary.BigEndian.Uint16(body[2:])&^7 != 0, body[8:]
		}
	default:
		return b, false
	}
	if later {
		b, known = fragments[id]
		return b, known
	}
	name := map[uint8]string{tcp: "tcp", udp: "udp"}[protocol]
	if name == "" {
		return b, false
	}
	b, known = backends[netip.AddrPortFrom(to, binary.BigEndian.Uint16(body[2:])).String()+name]
	if more {
		fragments[id] = b
	}
	return b, known
}

// request sends and asks for bytes, on a new connection.
func request(vip netip.AddrPort, send, receive int) error {
	c, err := net.DialTimeout("tcp", vip.String(), 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if got := c.RemoteAddr().String(); got != vip.String() {
		return fmt.Errorf("connected to %s", got)
	}
	body := bytesOf(send)
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(send)), uint32(receive))
	if _, err := c.Write(append(head, body...)); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	want := sha256.Sum256(body)
	if len(answer) != 32+receive || !bytes.Equal(answer[:32], want[:]) {
		return fmt.Errorf("got %d bytes, want %d; or the wrong hash", len(answer), 32+receive)
	}
	return nil
}

func (r *rig) requests(vip netip.AddrPort, count, send, receive int) {
	r.t.Helper()
	r.client.must(func() error {
		for i := range count {
			if err := request(vip, send, receive); err != nil {
				return fmt.Errorf("request %d to %s: %w", i, vip, err)
			}
		}
		return nil
	})
}

// checkSums fails when anybody has seen a wrong checksum or a packet did not fit.
func (r *rig) checkSums() {
	r.t.Helper()
	for _, s := range []*space{r.client, r.node} {
		for _, c := range [][2]string{{"Tcp", "InCsumErrors"}, {"Udp", "InCsumErrors"}, {"Icmp", "InCsumErrors"}, {"Ip", "InHdrErrors"}} {
			if n := s.counter(c[0], c[1]); n != 0 {
				r.t.Errorf("%s counts %d for %s %s, want 0", s.name, n, c[0], c[1])
			}
		}
	}
	if n := r.refused.Load(); n != 0 {
		r.t.Errorf("%d packets did not fit the tunnel", n)
	}
	c := counters(r.t, r.d)
	for reason, n := range c.Dropped {
		if n != 0 {
			r.t.Errorf("%d packets dropped for %s", n, reason)
		}
	}
}

func TestClientsTalkToTheVIPAndHearTheVIP(t *testing.T) {
	r := newRig(t)
	r.requests(vip4, 1000, 100, 100)
	r.requests(vip6, 200, 100, 100)
	r.checkSums()
	if c := counters(t, r.d); c.Clamped < 1200 {
		t.Errorf("%d of 1200 SYN-ACKs were clamped", c.Clamped)
	}
}

func TestLargeTransfersFitTheWiresBothWays(t *testing.T) {
	r := newRig(t)
	for _, vip := range []netip.AddrPort{vip4, vip6} {
		r.requests(vip, 1, 4<<20, 100)
		r.requests(vip, 1, 100, 16<<20)
	}
	r.checkSums()
}

// A container has an address of its own, and the node forwards to it.
func TestAContainerBehindTheNodeIsABackend(t *testing.T) {
	r := newRigWithoutEdge(t)
	container := newSpace(t, "container")
	wire(container, "k0", r.node, "n1")
	container.up("k0", "10.99.0.2/24", "fd00:99::2/64")
	r.node.up("n1", "10.99.0.1/24", "fd00:99::1/64")
	container.route("0.0.0.0/0", "10.99.0.1", 0)
	container.route("::/0", "fd00:99::1", 0)
	r.node.sysctl("ipv4/ip_forward", "1")
	r.node.sysctl("ipv6/conf/all/forwarding", "1")
	own4, own6 := ap("198.18.0.30:80"), ap("[fd77:6569:7200::30]:80")
	r.table.Services = append(r.table.Services,
		service("container/tcp/4", api.TCP, own4, ap("10.99.0.2:80"), node4),
		service("container/tcp/6", api.TCP, own6, ap("[fd00:99::2]:80"), node6))
	r.set()
	r.serveTCPIn(container, "10.99.0.2:80", "[fd00:99::2]:80")
	r.tunnel()
	r.requests(own4, 20, 10000, 1<<20)
	r.requests(own6, 20, 10000, 1<<20)
	r.checkSums()
}

// exchange sends datagrams of the size from a connected socket and wants them
// back; a connected socket takes nothing that is not the VIP's.
func exchange(vip netip.AddrPort, count, size int) error {
	c, err := net.Dial("udp", vip.String())
	if err != nil {
		return err
	}
	defer c.Close()
	buffer := make([]byte, 65536)
	for i := range count {
		body := append(binary.BigEndian.AppendUint32(nil, uint32(i)), bytesOf(size-4)...)
		c.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := c.Write(body); err != nil {
			return fmt.Errorf("send datagram %d: %w", i, err)
		}
		n, err := c.Read(buffer)
		if err != nil {
			return fmt.Errorf("datagram %d: %w", i, err)
		}
		if !bytes.Equal(buffer[:n], body) {
			return fmt.Errorf("datagram %d came back as %d other bytes", i, n)
		}
	}
	return nil
}

func TestDatagramsGoBothWaysWholeAndInFragments(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		vip         netip.AddrPort
		count, size int
	}{{vip4, 200, 400}, {vip6, 200, 400}, {fragmentVIP4, 20, 6000}, {fragmentVIP6, 20, 6000}} {
		r.client.must(func() error {
			if err := exchange(c.vip, c.count, c.size); err != nil {
				return fmt.Errorf("%s with %d bytes: %w", c.vip, c.size, err)
			}
			return nil
		})
	}
	r.checkSums()
}

func TestAClosedPortIsHeardOf(t *testing.T) {
	r := newRig(t)
	for _, vip := range []netip.AddrPort{closedVIP4, closedVIP6} {
		err := r.client.do(func() error { return exchange(vip, 1, 100) })
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: got %v, want connection refused", vip, err)
		}
	}
	if c := counters(t, r.d); c.ErrorsOut != 2 {
		t.Errorf("%d errors were sent on, want 2", c.ErrorsOut)
	}
	r.checkSums()
}

package deliver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"

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

package deliver

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
)

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

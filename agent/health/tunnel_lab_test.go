package health

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/testenv"
)

var (
	edge4, node4 = netip.MustParseAddr("10.80.0.31"), netip.MustParseAddr("10.80.0.11")
	edge6, node6 = netip.MustParseAddr("fd00:80::31"), netip.MustParseAddr("fd00:80::11")
	vip4, vip6   = addrPort("198.18.0.10:80"), addrPort("[fd77:6569:7200::10]:80")
	back4, back6 = addrPort("10.80.0.11:8080"), addrPort("[fd00:80::11]:8080")
)

// ways are all that there are: both families in tunnels of both.
var ways = map[string]struct {
	way     Tunnel
	backend netip.AddrPort
}{
	"4 in 4": {Tunnel{VIP: vip4, Node: node4, Source: edge4}, back4},
	"6 in 6": {Tunnel{VIP: vip6, Node: node6, Source: edge6}, back6},
	"4 in 6": {Tunnel{VIP: vip4, Node: node6, Source: edge4, Outer: edge6}, back4},
	"6 in 4": {Tunnel{VIP: vip6, Node: node4, Source: edge6, Outer: edge4}, back6},
}

// place is a network namespace of a test.
type place struct {
	t    testing.TB
	file *os.File
}

func newPlace(t testing.TB) *place {
	t.Helper()
	testenv.NeedNetns(t)
	p := &place{t: t}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			p.file, err = os.Open("/proc/thread-self/ns/net")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.file.Close() })
	return p
}

// do runs f in the namespace. What it opens stays there.
func (p *place) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(p.file.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (p *place) must(f func() error) {
	p.t.Helper()
	if err := p.do(f); err != nil {
		p.t.Fatal(err)
	}
}

// address adds one to an interface and sets it up.
func (p *place) address(name string, addresses ...netip.Prefix) {
	p.t.Helper()
	p.must(func() error {
		link, err := netlink.LinkByName(name)
		for i := 0; i < len(addresses) && err == nil; i++ {
			a := &netlink.Addr{IPNet: &net.IPNet{IP: addresses[i].Addr().AsSlice(), Mask: net.CIDRMask(addresses[i].Bits(), addresses[i].Addr().BitLen())}}
			if addresses[i].Addr().Is6() {
				a.Flags = unix.IFA_F_NODAD
			}
			err = netlink.AddrAdd(link, a)
		}
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		return err
	})
}

// newWire joins an edge node and the node of a backend.
func newWire(t testing.TB) (edge, node *place) {
	t.Helper()
	edge, node = newPlace(t), newPlace(t)
	edge.must(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(node.file.Fd())})
	})
	for _, p := range []*place{edge, node} {
		p.must(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0) })
		p.address("lo")
	}
	edge.address("eth0", netip.PrefixFrom(edge4, 24), netip.PrefixFrom(edge6, 64))
	node.address("eth0", netip.PrefixFrom(node4, 24), netip.PrefixFrom(node6, 64))
	meet(t, edge, node, edge4, node4)
	meet(t, edge, node, edge6, node6)
	return edge, node
}

// meet waits until packets pass both ways: the kernel takes a link for up some
// time after it is, and IPv6 sends nothing before.
func meet(t testing.TB, a, b *place, from, to netip.Addr) {
	t.Helper()
	var caller, called *net.UDPConn
	listen := func(conn **net.UDPConn, at netip.Addr) func() error {
		return func() (err error) {
			*conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
			return err
		}
	}
	a.must(listen(&caller, from))
	b.must(listen(&called, to))
	defer caller.Close()
	defer called.Close()
	there, back := called.LocalAddr().(*net.UDPAddr).AddrPort(), caller.LocalAddr().(*net.UDPAddr).AddrPort()
	buffer := make([]byte, 1)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		soon := time.Now().Add(20 * time.Millisecond)
		caller.SetDeadline(soon)
		called.SetDeadline(soon)
		caller.WriteToUDPAddrPort(buffer, there)
		called.WriteToUDPAddrPort(buffer, back)
		_, _, err := called.ReadFromUDPAddrPort(buffer)
		if _, _, other := caller.ReadFromUDPAddrPort(buffer); err == nil && other == nil {
			return
		}
	}
	t.Fatalf("%s and %s do not hear each other", from, to)
}

// edgeProbes makes probes whose sockets are in the namespace of the edge node.
func edgeProbes(t testing.TB, edge *place) (*tunnels, func(Target) probeFunc) {
	shared := newTunnels()
	t.Cleanup(shared.close)
	return shared, inside(edge, (&prober{tunnels: shared}).probe)
}

// fakeNode takes packets out of tunnels and answers them by a function.
type fakeNode struct {
	t      testing.TB
	answer func(got tunnelled) []segment

	mu   sync.Mutex // guards what follows
	seen []tunnelled
}

// tunnelled is what came in a tunnel.
type tunnelled struct {
	segment
	backend netip.AddrPort
	edge    netip.Addr
}

func newFakeNode(t testing.TB, node *place, answer func(tunnelled) []segment) *fakeNode {
	t.Helper()
	f := &fakeNode{t: t, answer: answer}
	var running sync.WaitGroup
	t.Cleanup(running.Wait) // after all are closed
	for _, own := range []netip.Addr{node4, node6} {
		var conn *net.UDPConn
		raw := map[bool]int{}
		node.must(func() (err error) {
			if conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(own, guePort))); err != nil {
				return err
			}
			if raw[false], err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err == nil {
				raw[true], err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
			}
			return err
		})
		running.Go(func() { f.serve(conn, raw) })
		t.Cleanup(func() { conn.Close() })
	}
	return f
}

func (f *fakeNode) serve(conn *net.UDPConn, raw map[bool]int) {
	defer unix.Close(raw[false])
	defer unix.Close(raw[true])
	b := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		got, ok := openTunnel(b[:n])
		if !ok {
			f.t.Errorf("%x is no tunnel's packet", b[:n])
			continue
		}
		got.edge = from.Addr()
		f.mu.Lock()
		f.seen = append(f.seen, got)
		f.mu.Unlock()
		for _, s := range f.answer(got) {
			sendRaw(raw, s)
		}
	}
}

// openTunnel reads the header as dataplane.GUEPort tells it.
func openTunnel(b []byte) (got tunnelled, ok bool) {
	if len(b) < 12 || b[2] != 0 || b[3] != 0 || b[6] != 0 || b[7] != 0 {
		return got, false
	}
	size := map[[2]byte]int{{2, 4}: 4, {5, 41}: 16}[[2]byte(b[:2])]
	address, ok := netip.AddrFromSlice(b[8 : 8+min(size, len(b)-8)])
	if !ok {
		return got, false
	}
	got.backend = netip.AddrPortFrom(address, binary.BigEndian.Uint16(b[4:]))
	got.segment, ok = readSegment(b[8+size:], size == 16, true)
	return got, ok && !got.damaged
}

// sendRaw sends a segment from an address that need not be the node's.
func sendRaw(raw map[bool]int, s segment) {
	packet := appendSegment(nil, s)
	to := unix.Sockaddr(&unix.SockaddrInet6{Addr: s.to.Addr().As16()})
	if s.to.Addr().Is4() {
		to = &unix.SockaddrInet4{Addr: s.to.Addr().As4()}
	}
	if s.damaged {
		packet[len(packet)-1] ^= 1
	}
	_ = unix.Sendto(raw[s.to.Addr().Is6()], packet, 0, to)
}

// flags lists the flags of what came, in order.
func (f *fakeNode) flags() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, got := range f.seen {
		all = append(all, map[byte]string{flagSYN: "SYN", flagRST: "RST"}[got.flags])
	}
	return strings.Join(all, " ")
}

// inside has probes run in a namespace, so that their sockets are there.
func inside(p *place, probe func(Target) probeFunc) func(Target) probeFunc {
	return func(t Target) probeFunc {
		made := probe(t)
		return func(ctx context.Context) error { return p.do(func() error { return made(ctx) }) }
	}
}

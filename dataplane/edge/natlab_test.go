package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// natWires have hosts at the ends that know nothing of Weir, with stacks of their
// own: the client's default route is the edge, and the backend, which has no
// route to the client, has the address 10.80.9.11 or fd00:9::11.
type natWires struct {
	*wires
	second *natEdge
	first  *natEdge
}

// natEdge is one edge node between the client and the backend.
type natEdge struct {
	w    *natWires
	at   netns.NsHandle
	hop  Hop
	own4 string // without the prefix
	own6 string
	gw4  string
	gw6  string
	e    *Edge
	o    Options
}

const (
	natBackend4 = "10.80.9.11"
	natBackend6 = "fd00:9::11"
)

// newNATWires lays the wires. plain has the ends make whole packets with whole
// checksums, as those do that come over a real wire; without it they leave both to
// the device, as hosts on the same machine do.
func newNATWires(t *testing.T, plain bool) *natWires {
	t.Helper()
	w := &natWires{wires: newWires(t)}
	w.first = w.layEdge(0, w.edge, plain)
	w.first.hop = w.wires.hop
	w.in(w.node, func() {
		up(t, "lo")
		address(t, "lo", natBackend4+"/32", natBackend6+"/128")
	})
	w.through(w.first)
	return w
}

// addEdge lays the wires of another edge node.
func (w *natWires) addEdge(plain bool) *natEdge {
	t := w.t
	t.Helper()
	var at netns.NsHandle
	w.in(0, func() {
		fresh, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		at = fresh
	})
	t.Cleanup(func() { at.Close() })
	w.in(at, func() {
		for name, peer := range map[string]struct {
			name string
			at   netns.NsHandle
		}{"e0": {"c1", w.client}, "e1": {"b1", w.node}} {
			v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer.name, PeerNamespace: netlink.NsFd(peer.at)}
			if err := netlink.LinkAdd(v); err != nil {
				t.Fatalf("add veth: %v", err)
			}
			up(t, name)
			w.in(peer.at, func() { up(t, peer.name) })
		}
	})
	return w.layEdge(1, at, plain)
}

func (w *natWires) layEdge(n int, at netns.NsHandle, plain bool) *natEdge {
	t := w.t
	t.Helper()
	e := &natEdge{
		w: w, at: at, own4: fmt.Sprintf("10.80.%d.31", n), own6: fmt.Sprintf("fd00:%d::31", n),
		gw4: fmt.Sprintf("203.0.%d.1", 113+n), gw6: fmt.Sprintf("2001:db8:%d::1", n),
	}
	c, b := fmt.Sprintf("c%d", n), fmt.Sprintf("b%d", n)
	w.in(at, func() {
		address(t, "e0", e.gw4+"/24", e.gw6+"/64")
		address(t, "e1", e.own4+"/24", e.own6+"/64")
		e1, _ := netlink.LinkByName("e1")
		e.hop = Hop{Interface: e1.Attrs().Index, Source: [6]byte(e1.Attrs().HardwareAddr), MTU: 1500}
	})
	w.in(w.client, func() { address(t, c, fmt.Sprintf("203.0.%d.9/24", 113+n), fmt.Sprintf("2001:db8:%d::9/64", n)) })
	w.in(w.node, func() {
		address(t, b, fmt.Sprintf("10.80.%d.11/24", n), fmt.Sprintf("fd00:%d::11/64", n))
		l, _ := netlink.LinkByName(b)
		e.hop.Destination = [6]byte(l.Attrs().HardwareAddr)
	})
	w.wakeXDP(w.client, c)
	w.wakeXDP(w.node, b)
	if plain {
		w.in(w.client, func() { makeWhole(t, c) })
		w.in(w.node, func() { makeWhole(t, b) })
	}
	return e
}

// address gives the device addresses that work at once.
func address(t *testing.T, device string, addresses ...string) {
	t.Helper()
	l, err := netlink.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		parsed, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		parsed.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, parsed); err != nil {
			t.Fatalf("add %s to %s: %v", a, device, err)
		}
	}
}

// makeWhole has the device leave neither checksums nor segmentation to the next.
func makeWhole(t *testing.T, device string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, command := range []uint32{unix.ETHTOOL_STXCSUM, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO} {
		value := struct{ command, data uint32 }{command, 0}
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			pad  [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(request.name[:], device)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 && errno != unix.EOPNOTSUPP {
			t.Fatalf("ethtool %#x on %s: %v", command, device, errno)
		}
	}
}

// through has the client send everything to this edge.
func (w *natWires) through(e *natEdge) {
	w.t.Helper()
	w.in(w.client, func() {
		for dst, gw := range map[string]string{"0.0.0.0/0": e.gw4, "::/0": e.gw6} {
			_, network, _ := net.ParseCIDR(dst)
			if err := netlink.RouteReplace(&netlink.Route{Dst: network, Gw: net.ParseIP(gw)}); err != nil {
				w.t.Fatalf("route through %s: %v", gw, err)
			}
		}
	})
}

// start runs the edge.
func (e *natEdge) start(services ...*dataplane.EdgeService) {
	e.startWith(dataplane.AttachNative, services...)
}

func (e *natEdge) startWith(mode dataplane.AttachMode, services ...*dataplane.EdgeService) {
	t := e.w.t
	t.Helper()
	if e.o.PinDir == "" {
		e.o = testOptions(t, newBPFFS(t))
		e.o.Sizes = Sizes{Flows: 1024, NATFlows: 8192}
	}
	e.o.Hops = hops{hop: e.hop}
	e.e = open(t, e.o)
	e.set(mode, services...)
	t.Cleanup(func() { Cleanup(e.o.PinDir) })
}

func (e *natEdge) set(mode dataplane.AttachMode, services ...*dataplane.EdgeService) dataplane.Changes {
	t := e.w.t
	t.Helper()
	wanted := table(services...)
	wanted.Source4, wanted.Source6 = netip.MustParseAddr(e.own4), netip.MustParseAddr(e.own6)
	wanted.Interfaces = map[string]dataplane.AttachMode{"e0": mode}
	var c dataplane.Changes
	e.w.in(e.at, func() {
		var err error
		if c, err = e.e.Set(context.Background(), wanted); err != nil {
			t.Fatalf("Set: %v", err)
		}
	})
	return c
}

func natService(name string, protocol api.Protocol, frontend, backend string) *dataplane.EdgeService {
	s := service(name, protocol, frontend, backend)
	s.Deliver = api.NAT
	return s
}

// natServices are of both families and protocols, at one backend.
func natServices() []*dataplane.EdgeService {
	return []*dataplane.EdgeService{
		natService("tcp4", api.TCP, "198.18.0.1:80", natBackend4+":8080"), natService("tcp6", api.TCP, "[fd77::1]:80", "["+natBackend6+"]:8080"),
		natService("udp4", api.UDP, "198.18.0.1:80", natBackend4+":8080"), natService("udp6", api.UDP, "[fd77::1]:80", "["+natBackend6+"]:8080"),
	}
}

// counters reads those of NAT.
func (e *natEdge) counters() map[string]uint64 {
	e.w.t.Helper()
	c, err := e.e.Counters()
	if err != nil {
		e.w.t.Fatal(err)
	}
	return c.NAT
}

// serve runs, at the backend, a TCP server that sends back what it gets and a UDP
// one that says who asked.
func (w *natWires) serve() {
	t := w.t
	t.Helper()
	for _, host := range []string{natBackend4, natBackend6} {
		at := net.JoinHostPort(host, "8080")
		w.in(w.node, func() {
			l, err := net.Listen("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						io.Copy(c, c)
					}()
				}
			}()
			u, err := net.ListenPacket("udp", at)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { u.Close() })
			go func() {
				raw := make([]byte, 2000)
				for {
					n, from, err := u.ReadFrom(raw)
					if err != nil {
						return
					}
					u.WriteTo(append([]byte(from.String()+" "), raw[:n]...), from)
				}
			}()
		})
	}
}

// dial connects from the client.
func (w *natWires) dial(network, to string, timeout time.Duration) (c net.Conn, err error) {
	w.in(w.client, func() { c, err = net.DialTimeout(network, to, timeout) })
	if err == nil {
		c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c, err
}

// echo sends a line over the connection and wants it back.
func echo(c net.Conn, line string) error {
	if _, err := c.Write([]byte(line)); err != nil {
		return err
	}
	raw := make([]byte, len(line))
	if _, err := io.ReadFull(c, raw); err != nil {
		return err
	}
	if string(raw) != line {
		return fmt.Errorf("got %q, want %q", raw, line)
	}
	return nil
}

// exchange sends size bytes and wants them back, both ways at a time.
func exchange(c net.Conn, size int) error {
	sent := make(chan error, 1)
	block := bytes.Repeat([]byte("0123456789abcdef"), 1024)
	go func() {
		for n := 0; n < size; n += len(block) {
			if _, err := c.Write(block); err != nil {
				sent <- err
				return
			}
		}
		sent <- c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.Copy(io.Discard, c)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if got < int64(size) {
		return fmt.Errorf("%d of %d bytes came back", got, size)
	}
	return nil
}

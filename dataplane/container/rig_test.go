package container

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/testenv"
)

// space is a network namespace with a thread in it, both gone at the test's end.
type space struct {
	t    *testing.T
	path string
	jobs chan func()
}

func newSpace(t *testing.T) *space {
	t.Helper()
	testenv.NeedNetns(t)
	s := &space{t: t, jobs: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		handle, err := netns.New()
		if err == nil {
			defer handle.Close()
			s.path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(handle))
		}
		ready <- err
		for f := range s.jobs {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(s.jobs) })
	s.run("ip", "link", "set", "lo", "up")
	return s
}

// do runs f in the namespace.
func (s *space) do(f func()) {
	done := make(chan struct{})
	s.jobs <- func() { defer close(done); f() }
	<-done
}

// try runs a command in the namespace.
func (s *space) try(argv ...string) (out string, err error) {
	s.do(func() {
		var b []byte
		b, err = exec.Command(argv[0], argv[1:]...).CombinedOutput()
		out = string(b)
	})
	return out, err
}

func (s *space) run(argv ...string) string {
	s.t.Helper()
	out, err := s.try(argv...)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

// script runs lines of ip, such as "addr add … dev …".
func (s *space) script(lines ...string) {
	s.t.Helper()
	for _, line := range lines {
		s.run(append([]string{"ip"}, strings.Fields(line)...)...)
	}
}

// wire connects two namespaces by a veth pair; both ends are up.
func wire(a *space, nameA string, b *space, nameB string) {
	a.t.Helper()
	a.script("link add "+nameA+" type veth peer name "+nameB+" netns "+b.path, "link set "+nameA+" up")
	b.script("link set " + nameB + " up")
}

// node is a space with a sink.
type node struct {
	*space
	name  string
	sink  *Sink
	table Table
	n     int // containers so far
}

func newNode(t *testing.T, name string) *node {
	return &node{space: newSpace(t), name: name, sink: New(Options{Log: slog.New(slog.DiscardHandler)})}
}

// set applies the node's table.
func (n *node) set() dataplane.Changes {
	n.t.Helper()
	var c dataplane.Changes
	var err error
	n.do(func() { c, err = n.sink.Set(context.Background(), n.table) })
	if err != nil {
		n.t.Fatalf("set the table of %s: %v", n.name, err)
	}
	return c
}

// container adds one to the node, in its networks, with these addresses.
func (n *node) container(addresses map[string][]string, ports ...Port) *space {
	n.t.Helper()
	c := newSpace(n.t)
	n.n++
	e := Endpoint{ID: fmt.Sprintf("%s-c%d", n.name, n.n), Namespace: c.path, Ports: ports}
	for i, network := range n.table.Networks {
		all, in := addresses[network.Name]
		if !in {
			continue
		}
		place := Interface{Network: network.Name, Name: fmt.Sprintf("eth%d", len(e.Interfaces)), Default: len(e.Interfaces) == 0}
		for _, a := range all {
			place.Addresses = append(place.Addresses, netip.MustParseAddr(a))
		}
		_ = i
		e.Interfaces = append(e.Interfaces, place)
	}
	n.table.Endpoints = append(n.table.Endpoints, e)
	n.set()
	return c
}

// serve echoes, on TCP and UDP, who the client is; it ends with the test.
func (s *space) serve(port int, at ...netip.Addr) {
	s.t.Helper()
	s.do(func() {
		l, err := net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		if err != nil {
			s.t.Error(err)
			return
		}
		s.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
				c.Close()
			}
		}()
		// On a host with several addresses an answer by UDP leaves under the one
		// that it was asked at only from a socket that is bound to it.
		if at == nil {
			at = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
		}
		for _, a := range at {
			network := "udp4"
			if a.Is6() {
				network = "udp6"
			}
			u, err := net.ListenPacket(network, netip.AddrPortFrom(a, uint16(port)).String())
			if err != nil {
				s.t.Error(err)
				return
			}
			s.t.Cleanup(func() { u.Close() })
			go func() {
				b := make([]byte, 65536)
				for {
					_, from, err := u.ReadFrom(b)
					if err != nil {
						return
					}
					fmt.Fprintln(packetTo{u, from}, from.(*net.UDPAddr).AddrPort().Addr().Unmap())
				}
			}()
		}
	})
}

type packetTo struct {
	net.PacketConn
	to net.Addr
}

func (p packetTo) Write(b []byte) (int, error) { return p.WriteTo(b, p.to) }

// ask connects and gives who the server saw.
func (s *space) ask(network, to string, patience time.Duration) (seen string, err error) {
	s.do(func() {
		var c net.Conn
		if c, err = net.DialTimeout(network, to, patience); err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 200)
		var n int
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if network == "udp" {
				fmt.Fprintln(c, "who am I")
			}
			_ = c.SetReadDeadline(time.Now().Add(patience / 8))
			if n, err = c.Read(b); err == nil || err == io.EOF {
				break
			}
		}
		seen = strings.TrimSpace(string(b[:n]))
	})
	return seen, err
}

// sees checks that the server at an address is reached, by TCP and UDP, and
// whom it sees.
func (s *space) sees(what, to, want string) {
	s.t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		got, err := s.ask(network, to, 8*time.Second)
		if err != nil || want != "" && got != want {
			s.t.Errorf("%s by %s to %s: the server sees %q (%v), want %q", what, network, to, got, err, want)
		}
	}
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// local is the node's own network, and shared one that all nodes have a part of.
func local() Network {
	return Network{Name: "bridge", Mode: api.NetworkLocal, Masquerade: true,
		Gateways: prefixes("172.31.254.1/24", "fd77:6562:7200::1/64"), Ranges: prefixes("172.31.254.0/24", "fd77:6562:7200::/64")}
}

func shared(mode api.NetworkMode, i int) Network {
	return Network{Name: "web", Mode: mode, VNI: 1024, Masquerade: true,
		Gateways: prefixes(fmt.Sprintf("10.128.%d.1/24", i), fmt.Sprintf("fd01:b::%d:0:0:1/80", i)),
		Ranges:   prefixes("10.128.0.0/16", "fd01:b::/64")}
}

// fleet gives nodes their tables: node i has the addresses at i.
func fleet(mode api.NetworkMode, nodes []*node, addresses [][]netip.Addr) {
	var all []netip.Addr
	for _, a := range addresses {
		all = append(all, a...)
	}
	for i, n := range nodes {
		web := shared(mode, i+1)
		for j, other := range nodes {
			if j != i {
				web.Peers = append(web.Peers, Peer{Node: other.name, Addresses: addresses[j],
					Subnets: []netip.Prefix{shared(mode, j+1).Gateways[0].Masked(), shared(mode, j+1).Gateways[1].Masked()}})
			}
		}
		n.table = Table{Node: n.name, Addresses: addresses[i], Inside: all, Networks: []Network{local(), web}}
		n.set()
	}
}

// Package filtertest is what the tests of all packet filters share: a node
// between a client and a server, packets of every kind, a plain evaluator of
// what a ruleset means, and a suite that every filter passes.
package filtertest

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/verdict"
	"github.com/weirproject/weir/testenv"
)

// Filter is what every packet filter offers.
type Filter interface {
	dataplane.Filter
	dataplane.Learner
	Counters() (map[string]verdict.Counter, error)
	Drops(context.Context) (<-chan verdict.Drop, error)
}

// Open makes a filter for a network namespace.
type Open func(t testing.TB, netns int, observe bool) Filter

// Space is a network namespace that a test made. It has no name, so that it is
// gone with its last descriptor.
type Space struct {
	t  testing.TB
	NS netns.NsHandle
	nl *netlink.Handle
}

func newSpace(t testing.TB) *Space {
	t.Helper()
	testenv.NeedNetns(t)
	s := &Space{t: t}
	err := onThread(func() (err error) {
		s.NS, err = netns.New()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.NS.Close() })
	if s.nl, err = netlink.NewHandleAt(s.NS); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.nl.Close)
	s.up("lo")
	for file, value := range map[string]string{
		"ipv6/conf/default/accept_dad": "0", // addresses at once: nobody else is there
		"ipv4/conf/all/rp_filter":      "0", // sources of every kind
		"ipv4/conf/default/rp_filter":  "0",
		"ipv4/icmp_ratelimit":          "0",
		"ipv4/ip_forward":              "1",
		"ipv6/conf/all/forwarding":     "1",
	} {
		s.must(s.Do(func() error { return os.WriteFile("/proc/sys/net/"+file, []byte(value), 0) }))
	}
	return s
}

// onThread runs fn on a thread that ends with it, so that fn may change the
// thread's namespace.
func onThread(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock
		done <- fn()
	}()
	return <-done
}

// Do runs fn on a thread inside the namespace.
func (s *Space) Do(fn func() error) error {
	return onThread(func() error {
		if err := netns.Set(s.NS); err != nil {
			return err
		}
		return fn()
	})
}

// Run runs a command inside the namespace, which must do, and gives its output.
func (s *Space) Run(argv ...string) string {
	s.t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		s.t.Skipf("needs the command %s", argv[0])
	}
	var out bytes.Buffer
	err := s.Do(func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd.Run()
	})
	if err != nil {
		s.t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out.String())
	}
	return out.String()
}

func (s *Space) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *Space) up(device string) {
	s.t.Helper()
	link, err := s.nl.LinkByName(device)
	s.must(err)
	s.must(s.nl.LinkSetUp(link))
}

func (s *Space) address(device string, a netip.Addr) {
	s.t.Helper()
	link, err := s.nl.LinkByName(device)
	s.must(err)
	bits := 16
	if a.Is6() {
		bits = 64
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}, Flags: unix.IFA_F_NODAD}
	s.must(s.nl.AddrAdd(link, addr))
}

// Net is a node between a client and a server, all with several addresses of
// both families. The node's interfaces are left and right.
type Net struct {
	Client, Node, Server                        *Space
	ClientAddrs, LeftAddrs, RightAddrs, Servers []netip.Addr
}

// addrs are addresses of both families on one side.
func addrs(side byte, first, last byte) []netip.Addr {
	var all []netip.Addr
	for i := first; i <= last; i++ {
		all = append(all, netip.AddrFrom4([4]byte{10, side, 0, i}), netip.AddrFrom16([16]byte{0xfd, side, 15: i}))
	}
	return all
}

// NewNet makes one; it is gone with the test.
func NewNet(t testing.TB) *Net {
	n := &Net{
		Client: newSpace(t), Node: newSpace(t), Server: newSpace(t),
		ClientAddrs: addrs(1, 1, 6), LeftAddrs: addrs(1, 254, 254), RightAddrs: addrs(2, 254, 254), Servers: addrs(2, 1, 6),
	}
	for _, side := range []struct {
		far        *Space
		name       string
		here, near []netip.Addr
	}{{n.Client, "left", n.ClientAddrs, n.LeftAddrs}, {n.Server, "right", n.Servers, n.RightAddrs}} {
		pair := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: side.name, Namespace: netlink.NsFd(n.Node.NS)},
			PeerName:  "eth0", PeerNamespace: netlink.NsFd(side.far.NS),
		}
		n.Node.must(n.Node.nl.LinkAdd(pair)) // no end is ever in the machine's namespace
		n.Node.up(side.name)
		side.far.up("eth0")
		for _, a := range side.near {
			n.Node.address(side.name, a)
		}
		for _, a := range side.here {
			side.far.address("eth0", a)
		}
		for _, a := range side.near {
			side.far.must(side.far.nl.RouteAdd(&netlink.Route{Gw: a.AsSlice()}))
		}
	}
	n.resolve(t)
	return n
}

// resolve waits until everybody knows everybody's link address, so that no
// packet has to wait for it.
func (n *Net) resolve(t testing.TB) {
	for _, s := range []*Space{n.Client, n.Node, n.Server} {
		links, err := s.nl.LinkList()
		s.must(err)
		for _, l := range links {
			peer := map[string]struct {
				space *Space
				name  string
			}{"left": {n.Client, "eth0"}, "right": {n.Server, "eth0"}}[l.Attrs().Name]
			all := append(n.ClientAddrs, n.LeftAddrs...)
			if s == n.Server || l.Attrs().Name == "right" {
				all = append(n.Servers, n.RightAddrs...)
			}
			if l.Attrs().Name == "eth0" {
				peer.space, peer.name = n.Node, map[bool]string{true: "left", false: "right"}[s == n.Client]
			}
			if peer.space == nil {
				continue
			}
			far, err := peer.space.nl.LinkByName(peer.name)
			s.must(err)
			for _, a := range all {
				s.must(s.nl.NeighSet(&netlink.Neigh{
					LinkIndex: l.Attrs().Index, IP: a.AsSlice(), HardwareAddr: far.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT,
				}))
			}
		}
	}
}

// Forget makes the node's conntrack forget all flows.
func (n *Net) Forget() {
	h, err := netlink.NewHandleAt(n.Node.NS, unix.NETLINK_NETFILTER)
	n.Node.must(err)
	defer h.Close()
	n.Node.must(h.ConntrackTableFlush(netlink.ConntrackTable))
}

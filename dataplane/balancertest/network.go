package balancertest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
)

// The hosts: the node, which is the process's own network namespace; the far
// one with the backends; and another one whose packets come through the node.
const (
	nodeAddress  = "10.80.0.1"
	nodeAddress6 = "fd00::1"
	otherAddress = "203.0.113.9"
)

var farAddresses = []string{"10.80.0.11", "10.80.0.12", "10.80.0.13", "fd00::11", "fd00::12", "fd00::13"}

// network is the hosts, and the servers that run on them.
type network struct {
	here, far, other netns.NsHandle

	mu      sync.Mutex // guards serving
	serving map[string]bool
}

// newNetwork makes the other hosts and their wires.
func newNetwork(t *testing.T) *network {
	t.Helper()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	n := &network{here: here, serving: map[string]bool{}}
	t.Cleanup(func() { here.Close() })
	n.far, n.other = n.host(t), n.host(t)
	if err := up("lo"); err != nil {
		t.Fatal(err)
	}
	n.wire(t, "weir-far", n.far, []string{nodeAddress + "/24", nodeAddress6 + "/64"}, []string{
		farAddresses[0] + "/24", farAddresses[1] + "/24", farAddresses[2] + "/24",
		farAddresses[3] + "/64", farAddresses[4] + "/64", farAddresses[5] + "/64",
	})
	n.wire(t, "weir-other", n.other, []string{"203.0.113.1/24"}, []string{otherAddress + "/24"})
	n.on(t, n.other, func() error {
		return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP("203.0.113.1")})
	})
	for name, value := range map[string]string{
		"ipv4/ip_forward": "1",
		// A kernel answers one host with six ICMP errors, and then with one a
		// second; the suite asks for more.
		"ipv4/icmp_ratelimit": "0", "ipv6/icmp/ratelimit": "0",
	} {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// host makes a network namespace that lives as long as the test.
func (n *network) host(t *testing.T) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := up("lo"); err != nil {
		t.Error(err)
	}
	if err := netns.Set(n.here); err != nil {
		panic(err) // the thread is lost
	}
	return ns
}

// on runs f on another host. Sockets that it opens stay there.
func (n *network) on(t *testing.T, host netns.NsHandle, f func() error) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := netns.Set(host); err != nil {
		t.Fatal(err)
	}
	err := f()
	if back := netns.Set(n.here); back != nil {
		panic(back) // the thread is lost
	}
	if err != nil {
		t.Fatal(err)
	}
}

func up(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// wire joins the node with a host.
func (n *network) wire(t *testing.T, name string, host netns.NsHandle, here, there []string) {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name, PeerNamespace: netlink.NsFd(host)}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatalf("add veth: %v", err)
	}
	if err := address(name, here); err != nil {
		t.Fatal(err)
	}
	n.on(t, host, func() error { return address(name, there) })
}

func address(name string, all []string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range all {
		parsed, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if parsed.IP.To4() == nil {
			parsed.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, parsed); err != nil {
			return fmt.Errorf("add %s: %w", a, err)
		}
	}
	return netlink.LinkSetUp(l)
}

// serve starts a server at the address, on the host that has it, once. It
// answers every message with its own address and the client's.
func (n *network) serve(t *testing.T, protocol api.Protocol, at netip.AddrPort) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	name := string(protocol) + " " + at.String()
	if n.serving[name] {
		return
	}
	n.serving[name] = true
	host := n.here
	for _, a := range farAddresses {
		if at.Addr() == netip.MustParseAddr(a) {
			host = n.far
		}
	}
	n.on(t, host, func() error {
		if protocol == api.UDP {
			return serveUDP(at)
		}
		return serveTCP(at)
	})
}

// The servers end with the process.

func serveTCP(at netip.AddrPort) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buffer := make([]byte, 16)
				for {
					if _, err := c.Read(buffer); err != nil {
						return
					}
					fmt.Fprintf(c, "%s %s", at, c.RemoteAddr())
				}
			}()
		}
	}()
	return nil
}

func serveUDP(at netip.AddrPort) error {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	go func() {
		buffer := make([]byte, 16)
		for {
			_, from, err := c.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %s", at, from), from)
		}
	}()
	return nil
}

package owner

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/testenv"
)

// segmentLab is a bridge with a client and edge nodes, in namespaces.
type segmentLab struct {
	t      *testing.T
	wires  *space
	client *space
	nodes  int
}

// space is a network namespace.
type space struct {
	t    *testing.T
	file *os.File
	*netlink.Handle
}

func newSpace(t *testing.T) *space {
	t.Helper()
	s := &space{t: t}
	must(t, onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			s.file, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	}))
	handle, err := netlink.NewHandleAt(netns.NsHandle(s.file.Fd()))
	must(t, err)
	s.Handle = handle
	t.Cleanup(func() { handle.Close(); s.file.Close() })
	return s
}

// onThread runs f, which may change the thread's network namespace. The thread
// lives on: nodes that were started from it end with it.
func onThread(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back)
	}
	return err
}

// ip runs ip in the namespace.
func (s *space) ip(arguments ...string) {
	s.t.Helper()
	cmd := exec.Command("nsenter", append([]string{"--net=/proc/self/fd/3", "ip"}, arguments...)...)
	cmd.ExtraFiles = []*os.File{s.file}
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("ip %s: %v: %s", strings.Join(arguments, " "), err, out)
	}
}

func newSegmentLab(t *testing.T) *segmentLab {
	t.Helper()
	testenv.NeedNetns(t)
	t.Parallel()
	l := &segmentLab{t: t, wires: newSpace(t), client: newSpace(t)}
	must(t, l.wires.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: new(bool)}))
	l.wires.ip("link", "set", "br0", "up")
	l.plug("client", "02:00:00:00:00:99", netlink.NsFd(l.client.file.Fd()))
	l.client.ip("link", "set", "eth0", "up")
	l.client.ip("addr", "add", "10.80.0.99/24", "dev", "eth0")
	l.client.ip("addr", "add", "fd00::99/64", "dev", "eth0", "nodad")
	return l
}

func (l *segmentLab) plug(port, mac string, ns any) {
	l.t.Helper()
	hardware, _ := net.ParseMAC(mac)
	must(l.t, l.wires.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0", PeerHardwareAddr: hardware, PeerNamespace: ns}))
	l.wires.ip("link", "set", port, "master", "br0", "up")
}

// ask has the client look for both addresses.
func (l *segmentLab) ask() {
	l.t.Helper()
	index := l.eth0()
	for family, vip := range labVIPs {
		af := unix.AF_INET
		if family == IPv6 {
			af = unix.AF_INET6
		}
		err := l.client.NeighSet(&netlink.Neigh{LinkIndex: index, Family: af, Flags: netlink.NTF_USE, IP: vip.AsSlice()})
		must(l.t, err)
	}
}

func (l *segmentLab) eth0() int {
	l.t.Helper()
	eth0, err := l.client.LinkByName("eth0")
	must(l.t, err)
	return eth0.Attrs().Index
}

// seen is where the client has the address, by its cache.
func (l *segmentLab) seen(vip netip.Addr) string {
	l.t.Helper()
	family := unix.AF_INET
	if vip.Is6() {
		family = unix.AF_INET6
	}
	list, err := l.client.NeighList(l.eth0(), family)
	must(l.t, err)
	for _, n := range list {
		if a, _ := netip.AddrFromSlice(n.IP); a.Unmap() == vip && len(n.HardwareAddr) == 6 {
			return n.HardwareAddr.String()
		}
	}
	return ""
}

// moves waits until the client has both addresses at the node, and tells how
// long that took.
func (l *segmentLab) moves(to *edge, what string) {
	l.t.Helper()
	start := time.Now()
	took := map[Family]time.Duration{}
	for len(took) < len(labVIPs) {
		for f, vip := range labVIPs {
			if took[f] == 0 && l.seen(vip) == to.mac {
				took[f] = time.Since(start)
			}
		}
		if time.Since(start) > 15*time.Second {
			l.t.Fatalf("%s: the client has the addresses at %s and %s, want %s, which says %s", what, l.seen(labVIPs[IPv4]), l.seen(labVIPs[IPv6]), to.mac, to.state())
		}
		time.Sleep(2 * time.Millisecond)
	}
	l.t.Logf("%s: the client's cache moved after %s (IPv4), %s (IPv6)", what, took[IPv4].Round(time.Millisecond), took[IPv6].Round(time.Millisecond))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

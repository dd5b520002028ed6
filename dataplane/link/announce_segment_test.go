package link

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/testenv"
)

// host is a network namespace on a segment, with eth0 in it.
type host struct {
	t    *testing.T
	file *os.File // the namespace
	mac  MAC
}

// newSegment makes a bridge and hosts on it, each with an interface eth0 of
// the MAC 02:00:00:00:00:<n> and the addresses 10.80.0.<n>/24 and
// fd00::<n>/64. All of it is gone with the test's last reference to it.
func newSegment(t *testing.T, n int) []*host {
	t.Helper()
	testenv.NeedNetns(t)
	t.Parallel()
	wires := newHost(t)
	hosts := make([]*host, n)
	wires.do(func() {
		must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: new(bool)}))
		ip(t, "link", "set", "br0", "up")
	})
	for i := range hosts {
		h := newHost(t)
		hosts[i], h.mac = h, MAC{2, 5: byte(i + 1)}
		wires.do(func() {
			port := fmt.Sprintf("port%d", i+1)
			must(t, netlink.LinkAdd(&netlink.Veth{
				LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0",
				PeerHardwareAddr: h.mac[:], PeerNamespace: netlink.NsFd(h.file.Fd()),
			}))
			ip(t, "link", "set", port, "master", "br0", "up")
		})
		h.do(func() {
			must(t, os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0))
			ip(t, "link", "set", "lo", "up")
			ip(t, "link", "set", "eth0", "up")
			ip(t, "addr", "add", fmt.Sprintf("10.80.0.%d/24", i+1), "dev", "eth0")
			ip(t, "addr", "add", fmt.Sprintf("fd00::%d/64", i+1), "dev", "eth0", "nodad")
		})
	}
	return hosts
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			h.file, err = os.Open("/proc/thread-self/ns/net")
		}
		done <- err
	}()
	must(t, <-done)
	t.Cleanup(func() { h.file.Close() })
	return h
}

// do runs f in the namespace of the host. What it opens stays there.
func (h *host) do(f func()) {
	h.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(h.file.Fd()), unix.CLONE_NEWNET)
		defer func() { done <- err }() // also when f ends the test
		if err == nil {
			f()
		}
	}()
	must(h.t, <-done)
	if h.t.Failed() {
		h.t.FailNow()
	}
}

func (h *host) ip(arguments ...string) (out string) {
	h.t.Helper()
	h.do(func() { out = ip(h.t, arguments...) })
	return out
}

// finds tells the MAC that the host reaches the address at, asking for it.
func (h *host) finds(addr string) (mac string) {
	h.t.Helper()
	h.do(func() {
		c, err := net.Dial("udp", net.JoinHostPort(addr, "9"))
		must(h.t, err)
		defer c.Close()
		c.Write([]byte("?"))
	})
	eventually(h.t, func() bool { mac = h.cached(addr); return mac != "" }, func() string { return fmt.Sprintf("%s has no neighbour entry", addr) })
	return mac
}

// cached is the MAC that the host holds for the address, or "".
func (h *host) cached(addr string) string {
	fields := strings.Fields(h.ip("neigh", "show", addr))
	for i, f := range fields {
		if f == "lladdr" {
			return fields[i+1]
		}
	}
	return ""
}

func (h *host) announcer(o AnnounceOptions) *Announcer {
	h.t.Helper()
	o.Interface = "eth0"
	var a *Announcer
	h.do(func() {
		var err error
		a, err = NewAnnouncer(o)
		must(h.t, err)
	})
	h.run(a.Run)
	return a
}

// run runs f until the test ends.
func (h *host) run(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Run: %v", err)
		}
	})
}

func (h *host) own(a *Announcer, addresses ...string) {
	h.t.Helper()
	list := make([]netip.Addr, len(addresses))
	for i, s := range addresses {
		list[i] = netip.MustParseAddr(s)
	}
	h.do(func() { must(h.t, a.Set(list)) })
}

func ip(t *testing.T, arguments ...string) string {
	t.Helper()
	out, err := exec.Command("ip", arguments...).CombinedOutput()
	if err != nil {
		t.Errorf("ip %s: %v: %s", strings.Join(arguments, " "), err, out)
		runtime.Goexit()
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
}

// eventually waits until ok, and says what was there instead when that takes
// too long.
func eventually(t *testing.T, ok func() bool, instead func() string) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal(instead())
		}
	}
}

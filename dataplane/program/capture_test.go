package program

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
)

// The packets of a connection through a virtual address carry the client's own
// address and the backend's, from the first to the last: there is no NAT.
func TestPacketsCarryTheRealAddresses(t *testing.T) {
	l := newLab(t)
	a := service("a/tcp/4", api.TCP, "198.18.0.10:80", "10.81.0.2:8080")
	z := service("z/udp/4", api.UDP, "198.18.0.10:53", "10.81.0.2:5353")
	server := newChild(t, newCgroup(t))
	l.client.must(request{Op: "veth", Namespace: server.command.Process.Pid, Local: "10.81.0.1/24"})
	server.must(request{Op: "veth-address", Local: "10.81.0.2/24"})
	server.must(request{Op: "serve", Network: "tcp", Listen: a.Backends[0].Address})
	server.must(request{Op: "serve", Network: "udp", Listen: z.Backends[0].Address})
	b := l.open()
	set(t, b, table(a, z))
	stop := capture(t, server.command.Process.Pid)
	for _, o := range append(
		l.client.must(request{Op: "dial", Network: "tcp", Target: a.Frontends[0], Count: 5}),
		l.client.must(request{Op: "send", Network: "udp", Target: z.Frontends[0], Count: 5})...) {
		if client := netip.MustParseAddrPort(o.client()).Addr().String(); o.Peer != "198.18.0.10:80" && o.Peer != "198.18.0.10:53" || client != "10.81.0.1" {
			t.Errorf("got %+v", o)
		}
	}
	seen := stop()
	want := map[netip.Addr]bool{netip.MustParseAddr("10.81.0.1"): true, netip.MustParseAddr("10.81.0.2"): true}
	for _, p := range seen {
		if !want[p.source] || !want[p.target] {
			t.Errorf("on the wire: %s to %s", p.source, p.target)
		}
	}
	if len(seen) < 40 { // 5 × (3 to open, 2 with data, acknowledged, 2 to close) and 10 datagrams
		t.Errorf("captured only %d packets", len(seen))
	}
}

type packet struct{ source, target netip.Addr }

// capture records the IPv4 packets in the namespace of the process, until stop.
func capture(t *testing.T, pid int) (stop func() []packet) {
	t.Helper()
	fd := -1
	func() {
		// Only the socket is made in the other namespace.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		own, err := netns.Get()
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		other, err := netns.GetFromPid(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if err := netns.Set(other); err != nil {
			t.Fatal(err)
		}
		defer netns.Set(own)
		protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(protocol)); err != nil {
			t.Fatal(err)
		}
	}()
	t.Cleanup(func() { unix.Close(fd) })
	return func() (seen []packet) {
		time.Sleep(50 * time.Millisecond)
		buffer := make([]byte, 2048)
		for {
			n, from, err := unix.Recvfrom(fd, buffer, 0)
			if err != nil {
				return seen
			}
			link, ok := from.(*unix.SockaddrLinklayer)
			if !ok || link.Protocol != binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP)) || n < 20 {
				continue
			}
			seen = append(seen, packet{netip.AddrFrom4([4]byte(buffer[12:16])), netip.AddrFrom4([4]byte(buffer[16:20]))})
		}
	}
}

package edge

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/testenv"
)

// wires are a client, an edge and a node in namespaces of their own: c0 is wired to
// e0, e1 to b0.
type wires struct {
	t                  *testing.T
	client, edge, node netns.NsHandle
	hop                Hop
}

func newWires(t *testing.T) *wires {
	t.Helper()
	testenv.NeedNetns(t)
	w := &wires{t: t}
	for _, at := range []*netns.NsHandle{&w.client, &w.edge, &w.node} {
		w.in(0, func() {
			fresh, err := netns.New()
			if err != nil {
				t.Fatalf("make namespace: %v", err)
			}
			*at = fresh
		})
		t.Cleanup(func() { at.Close() })
	}
	w.in(w.edge, func() {
		for name, peer := range map[string]struct {
			name string
			at   netns.NsHandle
		}{"e0": {"c0", w.client}, "e1": {"b0", w.node}} {
			v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer.name, PeerNamespace: netlink.NsFd(peer.at)}
			if err := netlink.LinkAdd(v); err != nil {
				t.Fatalf("add veth: %v", err)
			}
			up(t, name)
			w.in(peer.at, func() { up(t, peer.name) })
		}
		e1, _ := netlink.LinkByName("e1")
		w.hop = Hop{Interface: e1.Attrs().Index, Source: [6]byte(e1.Attrs().HardwareAddr), MTU: 1500}
	})
	w.in(w.node, func() {
		b0, _ := netlink.LinkByName("b0")
		w.hop.Destination = [6]byte(b0.Attrs().HardwareAddr)
	})
	return w
}

func up(t *testing.T, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		t.Fatalf("set %s up: %v", name, err)
	}
}

// in runs f in the namespace, or in one that f makes if it is 0.
func (w *wires) in(at netns.NsHandle, f func()) {
	w.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		w.t.Fatal(err)
	}
	defer here.Close()
	defer netns.Set(here)
	if at != 0 {
		if err := netns.Set(at); err != nil {
			w.t.Fatal(err)
		}
	}
	f()
}

// wakeXDP gives the device a native program that passes everything: without one, a
// veth takes no frames from its peer's XDP_TX and redirects.
func (w *wires) wakeXDP(at netns.NsHandle, name string) {
	w.t.Helper()
	spec, err := loadBench()
	if err != nil {
		w.t.Fatal(err)
	}
	program, err := ebpf.NewProgram(spec.Programs["bench_pass"])
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { program.Close() })
	w.in(at, func() {
		index, err := interfaceIndex(name)
		if err != nil {
			w.t.Fatal(err)
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: index, Flags: link.XDPDriverMode})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { l.Close() })
	})
}

// socket opens one for whole frames on the device.
func (w *wires) socket(at netns.NsHandle, name string) int {
	w.t.Helper()
	var fd int
	w.in(at, func() {
		index, err := interfaceIndex(name)
		if err != nil {
			w.t.Fatal(err)
		}
		all := int(swap16(unix.ETH_P_ALL))
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, all); err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index, Protocol: uint16(all)})
		}
		if err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
		}
		if err != nil {
			w.t.Fatalf("open packet socket: %v", err)
		}
	})
	w.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// receive waits for a frame that is wanted.
func receive(t *testing.T, fd int, wanted func(raw []byte) bool) []byte {
	t.Helper()
	raw := make([]byte, 2000)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		n, _, err := unix.Recvfrom(fd, raw, 0)
		if err != nil {
			break
		}
		if wanted(raw[:n]) {
			return raw[:n]
		}
	}
	t.Fatal("nothing arrived")
	return nil
}

func TestPacketsCrossTheEdge(t *testing.T) {
	for _, mode := range []dataplane.AttachMode{dataplane.AttachNative, dataplane.AttachGeneric, dataplane.AttachTCX, dataplane.AttachAuto} {
		t.Run(string(mode), func(t *testing.T) { packetsCross(t, mode) })
	}
}

func packetsCross(t *testing.T, mode dataplane.AttachMode) {
	w := newWires(t)
	w.wakeXDP(w.client, "c0")
	w.wakeXDP(w.node, "b0")
	o := testOptions(t, newBPFFS(t))
	o.Hops = hops{hop: w.hop}
	e := open(t, o)
	wanted := table(service("web", api.TCP, "198.18.0.1:80", "10.80.0.11:8080"), service("web6", api.UDP, "[fd77::1]:80", "[fd00::11]:8080"))
	wanted.Interfaces = map[string]dataplane.AttachMode{"e0": mode}
	w.in(w.edge, func() { set(t, e, wanted) })
	t.Cleanup(func() { Cleanup(o.PinDir) })
	here, there := w.socket(w.client, "c0"), w.socket(w.node, "b0")
	for _, f := range []frame{
		{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: tcp, flags: syn},
		{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: tcp, tags: []uint16{7}, payload: []byte("in a VLAN")},
		{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: tcp, tags: []uint16{7, 8}, payload: []byte("in two")},
		{src: addr("[2001:db8::9]:4000"), dst: addr("[fd77::1]:80"), protocol: udp, payload: []byte("hello")},
	} {
		if _, err := unix.Write(here, f.ethernet()); err != nil {
			t.Fatalf("send: %v", err)
		}
		raw := receive(t, there, func(raw []byte) bool { return [6]byte(raw) == w.hop.Destination })
		if got := openTunnel(t, raw); !bytes.Equal(got.inner, f.ip()) || got.source != w.hop.Source {
			t.Errorf("got %+v, want inside % x", got, f.ip())
		}
	}
	refused := frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:22"), protocol: tcp, flags: syn, tags: []uint16{7}}
	refused.tags = nil
	if _, err := unix.Write(here, refused.ethernet()); err != nil {
		t.Fatalf("send: %v", err)
	}
	raw := receive(t, here, func(raw []byte) bool {
		return [6]byte(raw) == clientMAC && binary.BigEndian.Uint16(raw[12:]) == 0x0800
	})
	reset(t, refused, raw[:54])
}

func TestTheWayIsTheKernelsWhereNoneIsGiven(t *testing.T) {
	w := newWires(t)
	w.wakeXDP(w.node, "b0")
	w.in(w.edge, func() {
		e1, _ := netlink.LinkByName("e1")
		address, _ := netlink.ParseAddr("10.80.0.31/24")
		if err := netlink.AddrAdd(e1, address); err != nil {
			t.Fatal(err)
		}
		forward(t)
	})
	o := testOptions(t, newBPFFS(t))
	o.Hops = nil
	e := open(t, o)
	wanted := table(service("web", api.TCP, "198.18.0.1:80", "10.80.0.11:8080"))
	wanted.Interfaces = map[string]dataplane.AttachMode{"e0": dataplane.AttachNative}
	w.in(w.edge, func() { set(t, e, wanted) })
	t.Cleanup(func() { Cleanup(o.PinDir) })
	here, there := w.socket(w.client, "c0"), w.socket(w.node, "b0")
	f := frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: tcp}
	send := func() {
		if _, err := unix.Write(here, f.ethernet()); err != nil {
			t.Fatalf("send: %v", err)
		}
	}
	send()
	for end := time.Now().Add(5 * time.Second); reasons(t, e)["no_neighbour"] == 0; {
		if time.Now().After(end) {
			t.Fatalf("reasons %v", reasons(t, e))
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.in(w.edge, func() {
		n := &netlink.Neigh{
			LinkIndex: w.hop.Interface, IP: netip.MustParseAddr("10.80.0.12").AsSlice(), HardwareAddr: w.hop.Destination[:],
			State: netlink.NUD_PERMANENT,
		}
		if err := netlink.NeighAdd(n); err != nil {
			t.Fatal(err)
		}
	})
	send()
	raw := receive(t, there, func(raw []byte) bool { return [6]byte(raw) == w.hop.Destination })
	if got := openTunnel(t, raw); !bytes.Equal(got.inner, f.ip()) || got.source != w.hop.Source {
		t.Errorf("got %+v", got)
	}
}

// forward turns IPv4 forwarding on in this thread's namespace.
func forward(t *testing.T) {
	t.Helper()
	fd, err := unix.Open("/proc/sys/net/ipv4/ip_forward", unix.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("1")); err != nil {
		t.Fatal(err)
	}
}

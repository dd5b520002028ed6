package edgebench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/edge"
)

const (
	clientAddress   = "203.0.113.9"
	frontendAddress = "198.18.0.1"
	edgeAddress     = "10.80.0.31"
	backendAddress  = "10.80.0.11"
)

// rig is one way's sender, edge and sink: s0 is wired to e0, e1 to b0.
type rig struct {
	way   way
	from  *sender
	to    *sink
	edge  *edge.Edge
	rates []float64 // packets a second, of each round

	namespaces [3]netns.NsHandle // of sender, edge and sink
}

// newRig lays the wires and what the way needs. What it returns is to be closed,
// also with an error.
func newRig(w way, dir string, o Options) (*rig, error) {
	r := &rig{way: w}
	for i := range r.namespaces {
		var err error
		if r.namespaces[i], err = netns.New(); err != nil {
			return r, fmt.Errorf("make namespace: %w", err)
		}
	}
	macs := map[string]net.HardwareAddr{}
	for i, wire := range [][2]string{{"s0", "e0"}, {"e1", "b0"}} {
		if err := r.wire(wire, i, macs); err != nil {
			return r, err
		}
	}
	sinkAt, device := r.namespaces[2], "b0"
	if w.wire {
		sinkAt, device = r.namespaces[1], "e0"
	} else if err := r.layEdge(macs, dir, o); err != nil {
		return r, err
	}
	if err := netns.Set(sinkAt); err != nil {
		return r, err
	}
	var err error
	if r.to, err = newSink(device, w.xdp); err != nil {
		return r, err
	}
	if err := netns.Set(r.namespaces[0]); err != nil {
		return r, err
	}
	r.from, err = newSender("s0", macs["s0"], macs["e0"], o)
	return r, err
}

// wire joins namespaces n and n+1 and sets both ends up.
func (r *rig) wire(names [2]string, n int, macs map[string]net.HardwareAddr) error {
	if err := netns.Set(r.namespaces[n]); err != nil {
		return err
	}
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: names[0]}, PeerName: names[1], PeerNamespace: netlink.NsFd(r.namespaces[n+1])}
	if err := netlink.LinkAdd(v); err != nil {
		return fmt.Errorf("add %s: %w", names[0], err)
	}
	for i, name := range names {
		if err := netns.Set(r.namespaces[n+i]); err != nil {
			return err
		}
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
		macs[name] = l.Attrs().HardwareAddr
	}
	return nil
}

// layEdge makes the middle a router that knows the backend, and then what the way
// asks for.
func (r *rig) layEdge(macs map[string]net.HardwareAddr, dir string, o Options) error {
	if err := netns.Set(r.namespaces[1]); err != nil {
		return err
	}
	e0, err := netlink.LinkByName("e0")
	if err != nil {
		return err
	}
	e1, err := netlink.LinkByName("e1")
	if err != nil {
		return err
	}
	for link, text := range map[netlink.Link]string{e0: "203.0.113.1/24", e1: edgeAddress + "/24"} {
		a, err := netlink.ParseAddr(text)
		if err == nil {
			err = netlink.AddrAdd(link, a)
		}
		if err != nil {
			return fmt.Errorf("add address %s: %w", text, err)
		}
	}
	backend := net.ParseIP(backendAddress)
	near := &netlink.Neigh{LinkIndex: e1.Attrs().Index, IP: backend, HardwareAddr: macs["b0"], State: netlink.NUD_PERMANENT}
	vip := &netlink.Route{Dst: &net.IPNet{IP: net.ParseIP(frontendAddress).To4(), Mask: net.CIDRMask(32, 32)}, Gw: backend}
	err = errors.Join(netlink.NeighAdd(near), netlink.RouteAdd(vip),
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	if err != nil {
		return fmt.Errorf("make a router: %w", err)
	}
	if r.way.rules != "" {
		load := exec.Command("nft", "-f", "-")
		load.Stdin = strings.NewReader(r.way.rules)
		if out, err := load.CombinedOutput(); err != nil {
			return fmt.Errorf("load rules: %w: %s", err, out)
		}
	}
	if r.way.deliver == "" {
		return nil
	}
	return r.startEdge(dir, oneHop{
		Interface: e1.Attrs().Index, Source: [6]byte(macs["e1"]), Destination: [6]byte(macs["b0"]), MTU: 1500,
	}, o)
}

// oneHop is the way to everywhere.
type oneHop edge.Hop

func (h oneHop) NextHop(netip.Addr) (edge.Hop, error) { return edge.Hop(h), nil }

func (r *rig) startEdge(dir string, hop oneHop, o Options) error {
	pins := filepath.Join(dir, strings.ReplaceAll(r.way.name, " ", "-"))
	var err error
	if r.edge, err = edge.New(edge.Options{PinDir: pins, Hops: hop, Log: o.Log}); err != nil {
		return err
	}
	backend := netip.MustParseAddr(backendAddress)
	s := &dataplane.EdgeService{
		Name: "bench", Protocol: api.UDP, Deliver: r.way.deliver, Slots: []uint32{0},
		Frontends: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(frontendAddress), 80)},
		Backends:  []dataplane.EdgeBackend{{Address: netip.AddrPortFrom(backend, 8080), Node: backend, State: api.Up}},
	}
	_, err = r.edge.Set(context.Background(), dataplane.EdgeTable{
		Interfaces: map[string]dataplane.AttachMode{"e0": r.way.mode},
		Source4:    netip.MustParseAddr(edgeAddress), Services: []*dataplane.EdgeService{s},
	})
	return err
}

// measure sends for a while and books what arrived.
func (r *rig) measure(ctx context.Context, each time.Duration) error {
	if err := netns.Set(r.namespaces[0]); err != nil {
		return err
	}
	if err := r.from.send(ctx, each/10); err != nil {
		return err
	}
	before, err := r.to.count()
	if err != nil {
		return err
	}
	began, err := processorTime()
	if err != nil {
		return err
	}
	if err := r.from.send(ctx, each); err != nil {
		return err
	}
	ended, err := processorTime()
	if err != nil {
		return err
	}
	after, err := r.to.count()
	if err != nil {
		return err
	}
	if after == before {
		return errors.New("nothing arrived")
	}
	r.rates = append(r.rates, float64(after-before)/(ended-began).Seconds())
	return nil
}

func (r *rig) close() {
	if r.from != nil {
		r.from.close()
	}
	if r.to != nil {
		r.to.close()
	}
	if r.edge != nil {
		r.edge.Close()
	}
	for _, n := range r.namespaces {
		if n.IsOpen() {
			n.Close()
		}
	}
}

// processorTime is what this thread has used of its processor, and the kernel's
// threads to which it leaves frames when the processor is wanted by others. So
// whatever else runs on the machine counts little.
func processorTime() (time.Duration, error) {
	var own unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &own); err != nil {
		return 0, fmt.Errorf("read the thread's time: %w", err)
	}
	total := own.Nano()
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if raw, err := os.ReadFile(name); err != nil || !strings.HasPrefix(string(raw), "ksoftirqd/") {
			continue
		}
		var used int64
		raw, err := os.ReadFile(filepath.Join(filepath.Dir(name), "schedstat"))
		if err == nil {
			_, err = fmt.Sscan(string(raw), &used)
		}
		if err != nil {
			return 0, fmt.Errorf("read the time of the kernel's threads: %w", err)
		}
		total += used
	}
	return time.Duration(total), nil
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "?"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func processors() int { return runtime.NumCPU() }

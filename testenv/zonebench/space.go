package zonebench

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is a network namespace without a name: it ends with its last descriptor.
type space struct {
	ns netns.NsHandle
	nl *netlink.Handle
}

// apart runs fn on a thread that is thrown away with the namespace that fn gives
// it. The process's first thread is none that can be.
func apart(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock
		if unix.Gettid() != unix.Getpid() {
			done <- fn()
			return
		}
		done <- apart(fn)
		runtime.UnlockOSThread()
	}()
	return <-done
}

func newSpace() (*space, error) {
	s := &space{ns: netns.None()}
	err := apart(func() (err error) {
		s.ns, err = netns.New()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make namespace: %w", err)
	}
	if s.nl, err = netlink.NewHandleAt(s.ns); err != nil {
		s.close()
		return nil, fmt.Errorf("reach namespace: %w", err)
	}
	return s, s.up("lo")
}

func (s *space) close() {
	if s.nl != nil {
		s.nl.Close()
	}
	s.ns.Close()
}

// do runs fn in the namespace.
func (s *space) do(fn func() error) error {
	return apart(func() error {
		if err := netns.Set(s.ns); err != nil {
			return err
		}
		return fn()
	})
}

func (s *space) up(device string) error {
	l, err := s.nl.LinkByName(device)
	if err == nil {
		err = s.nl.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", device, err)
	}
	return nil
}

// rig is a client, the node with the rules, and a server behind it.
type rig struct {
	client, node, server *space
	sinks                []*sink
}

// newRig lays one. What it returns is to be closed, also with an error.
func newRig() (*rig, error) {
	r := &rig{}
	for _, s := range []**space{&r.client, &r.node, &r.server} {
		var err error
		if *s, err = newSpace(); err != nil {
			return r, err
		}
	}
	err := r.node.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	if err != nil {
		return r, fmt.Errorf("forward packets: %w", err)
	}
	for _, side := range []struct {
		far        *space
		device     string
		here, far4 netip.Addr
	}{{r.client, "left", nodeAddress, clientAddress}, {r.server, "right", rightAddress, serverAddress}} {
		if err := r.wire(side.far, side.device, side.here, side.far4); err != nil {
			return r, fmt.Errorf("wire %s: %w", side.device, err)
		}
	}
	for _, s := range []*space{r.node, r.server} {
		k, err := s.sink(port)
		if err != nil {
			return r, fmt.Errorf("listen: %w", err)
		}
		r.sinks = append(r.sinks, k)
	}
	return r, nil
}

// wire joins a namespace to the node; no end is ever in the machine's own.
func (r *rig) wire(far *space, device string, here, there netip.Addr) error {
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: device, Namespace: netlink.NsFd(r.node.ns)},
		PeerName:  "eth0", PeerNamespace: netlink.NsFd(far.ns),
	}
	if err := r.node.nl.LinkAdd(pair); err != nil {
		return err
	}
	for _, end := range []struct {
		s      *space
		device string
		a      netip.Addr
	}{{r.node, device, here}, {far, "eth0", there}} {
		l, err := end.s.nl.LinkByName(end.device)
		if err != nil {
			return err
		}
		if err := end.s.nl.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: end.a.AsSlice(), Mask: net.CIDRMask(24, 32)}}); err != nil {
			return err
		}
		if err := end.s.up(end.device); err != nil {
			return err
		}
	}
	return far.nl.RouteAdd(&netlink.Route{Gw: here.AsSlice()})
}

func (r *rig) close() {
	for _, k := range r.sinks {
		k.close()
	}
	for _, s := range []*space{r.client, r.node, r.server} {
		if s != nil {
			s.close()
		}
	}
}

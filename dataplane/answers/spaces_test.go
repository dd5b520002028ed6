package answers

import (
	"context"
	"net"
	"runtime"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/testenv"
)

// space is a network namespace of the test.
type space struct {
	t      testing.TB
	handle netns.NsHandle
	links  *netlink.Handle
}

func newSpace(t testing.TB) *space {
	t.Helper()
	testenv.NeedNetns(t)
	s := &space{t: t}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with it
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			s.handle, err = netns.Get()
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	var err error
	if s.links, err = netlink.NewHandleAt(s.handle, unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.links.Close(); s.handle.Close() })
	s.up("lo")
	return s
}

// do runs f on a thread in the namespace and waits for it.
func (s *space) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(s.handle)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (s *space) must(f func() error) {
	s.t.Helper()
	if err := s.do(f); err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) link(name string) netlink.Link {
	s.t.Helper()
	l, err := s.links.LinkByName(name)
	if err != nil {
		s.t.Fatalf("find %s: %v", name, err)
	}
	return l
}

// up gives an interface addresses, and sets it up.
func (s *space) up(name string, addresses ...string) {
	s.t.Helper()
	l := s.link(name)
	for _, text := range addresses {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			s.t.Fatal(err)
		}
		a.Flags = unix.IFA_F_NODAD
		if err := s.links.AddrAdd(l, a); err != nil {
			s.t.Fatalf("add %s to %s: %v", text, name, err)
		}
	}
	if err := s.links.LinkSetUp(l); err != nil {
		s.t.Fatalf("set %s up: %v", name, err)
	}
}

// wire joins two namespaces by a veth.
func wire(a *space, nameA string, b *space, nameB string) {
	a.t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nameB, PeerNamespace: netlink.NsFd(b.handle)}
	veth.Name = nameA
	if err := a.links.LinkAdd(veth); err != nil {
		a.t.Fatalf("join %s and %s: %v", nameA, nameB, err)
	}
}

// setNowhere sets a table in a namespace without any container.
func setNowhere(a *Answerer, table Table) (c dataplane.Changes, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			c, err = a.Set(context.Background(), table)
		}
	}()
	<-done
	return c, err
}

// route leads everything to a gateway.
func (s *space) route(gateway string) {
	s.t.Helper()
	gw := net.ParseIP(gateway)
	all := &net.IPNet{IP: make(net.IP, len(gw.To16())), Mask: net.CIDRMask(0, 128)}
	if four := gw.To4(); four != nil {
		all = &net.IPNet{IP: make(net.IP, 4), Mask: net.CIDRMask(0, 32)}
	}
	if err := s.links.RouteAdd(&netlink.Route{Dst: all, Gw: gw}); err != nil {
		s.t.Fatalf("add route to %s: %v", gateway, err)
	}
}

// setTXChecksum is ETHTOOL_STXCSUM.
const setTXChecksum = 0x17

// finish has the interface send packets with their checksums, as on a real wire.
func (s *space) finish(name string) {
	s.t.Helper()
	s.must(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		value := struct{ command, data uint32 }{setTXChecksum, 0}
		var request struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(request.name[:], name)
		request.data = unsafe.Pointer(&value)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return errno
		}
		return nil
	})
}

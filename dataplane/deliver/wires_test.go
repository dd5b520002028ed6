package deliver

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/testenv"
)

// space is a network namespace of the test.
type space struct {
	t      testing.TB
	name   string
	handle netns.NsHandle
	links  *netlink.Handle
}

func newSpace(t testing.TB, name string) *space {
	t.Helper()
	testenv.NeedNetns(t)
	s := &space{t: t, name: name}
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
		t.Fatalf("make namespace %s: %v", name, err)
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
		s.t.Fatalf("in %s: %v", s.name, err)
	}
}

func (s *space) link(name string) netlink.Link {
	s.t.Helper()
	l, err := s.links.LinkByName(name)
	if err != nil {
		s.t.Fatalf("find %s in %s: %v", name, s.name, err)
	}
	return l
}

func (s *space) up(name string, addresses ...string) {
	s.t.Helper()
	l := s.link(name)
	for _, a := range addresses {
		address, err := netlink.ParseAddr(a)
		if err != nil {
			s.t.Fatal(err)
		}
		if address.IP.To4() == nil {
			address.Flags = unix.IFA_F_NODAD
		}
		if err := s.links.AddrAdd(l, address); err != nil {
			s.t.Fatalf("add %s to %s: %v", a, name, err)
		}
	}
	if err := s.links.LinkSetUp(l); err != nil {
		s.t.Fatal(err)
	}
}

// route adds one; without a gateway what goes there vanishes.
func (s *space) route(to, gateway string, mtu int) {
	s.t.Helper()
	p := netip.MustParsePrefix(to)
	r := &netlink.Route{Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, MTU: mtu}
	if gateway == "" {
		r.Type = unix.RTN_BLACKHOLE
	} else {
		r.Gw = net.ParseIP(gateway)
	}
	if err := s.links.RouteAdd(r); err != nil {
		s.t.Fatalf("add route to %s in %s: %v", to, s.name, err)
	}
}

func (s *space) sysctl(file, value string) {
	s.t.Helper()
	s.must(func() error { return os.WriteFile("/proc/sys/net/"+file, []byte(value), 0) })
}

// wire lays a veth pair. Neither end is ever in another namespace.
func wire(a *space, nameA string, b *space, nameB string) {
	a.t.Helper()
	if err := a.links.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.handle),
	}); err != nil {
		a.t.Fatalf("lay wire from %s to %s: %v", a.name, b.name, err)
	}
}

const setTXChecksum, setTSO, setGSO, setGRO = 0x17, 0x1f, 0x24, 0x2c // <linux/ethtool.h>

// plain has the interface send packets as they are on a real wire: with their
// checksums, one by one.
func (s *space) plain(name string) {
	s.t.Helper()
	s.offload(name, 0, setTSO, setGSO, setTXChecksum)
}

func (s *space) offload(name string, on uint32, commands ...uint32) {
	s.t.Helper()
	s.must(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, command := range commands {
			value := struct{ command, data uint32 }{command, on}
			var request struct {
				name [unix.IFNAMSIZ]byte
				data unsafe.Pointer
				_    [16]byte
			}
			copy(request.name[:], name)
			request.data = unsafe.Pointer(&value)
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
				return fmt.Errorf("set offload %#x of %s: %w", command, name, errno)
			}
		}
		return nil
	})
}

// counter reads one from /proc/net/snmp or snmp6.
func (s *space) counter(group, name string) (value int) {
	s.t.Helper()
	s.must(func() error {
		data, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if f[0] != group+":" {
				continue
			}
			if names == nil {
				names = f
				continue
			}
			for i := range f {
				if names[i] == name {
					_, err = fmt.Sscan(f[i], &value)
					return err
				}
			}
		}
		return fmt.Errorf("no counter %s %s", group, name)
	})
	return value
}

// ping has the kernel learn who has the addresses.
func ping(addresses ...string) error {
	for _, a := range addresses {
		c, err := net.Dial("udp", a)
		if err != nil {
			return err
		}
		c.Write([]byte("?"))
		c.Close()
	}
	time.Sleep(50 * time.Millisecond)
	return nil
}

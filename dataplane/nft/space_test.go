package nft

import (
	"bytes"
	"fmt"
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

	"github.com/weirproject/weir/testenv"
)

// space is a network namespace that a test made. It has no name, so that it is
// gone with its last descriptor.
type space struct {
	t  testing.TB
	ns netns.NsHandle
	nl *netlink.Handle
}

// newSpace makes a namespace with lo up.
func newSpace(t testing.TB) *space {
	t.Helper()
	testenv.NeedNetns(t)
	s := &space{t: t}
	err := onThread(func() (err error) {
		s.ns, err = netns.New()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.ns.Close() })
	if s.nl, err = netlink.NewHandleAt(s.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.nl.Close)
	s.up("lo")
	// New devices have their IPv6 addresses at once: nobody else is there.
	s.must(s.do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644)
	}))
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

// do runs fn on a thread inside the namespace.
func (s *space) do(fn func() error) error {
	return onThread(func() error {
		if err := netns.Set(s.ns); err != nil {
			return err
		}
		return fn()
	})
}

// run runs a command inside the namespace and gives its output.
func (s *space) run(argv ...string) (string, error) {
	var out bytes.Buffer
	err := s.do(func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd.Run()
	})
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out.String())
	}
	return out.String(), err
}

// nft runs the nft command, which must do.
func (s *space) nft(argv ...string) string {
	s.t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		s.t.Skip("needs the nft command")
	}
	out, err := s.run(append([]string{"nft"}, argv...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *space) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) up(device string) {
	s.t.Helper()
	link, err := s.nl.LinkByName(device)
	s.must(err)
	s.must(s.nl.LinkSetUp(link))
}

// address puts an address, with its prefix length, on a device.
func (s *space) address(device, prefix string) {
	s.t.Helper()
	link, err := s.nl.LinkByName(device)
	s.must(err)
	addr, err := netlink.ParseAddr(prefix)
	s.must(err)
	addr.Flags |= unix.IFA_F_NODAD // usable at once
	s.must(s.nl.AddrAdd(link, addr))
}

// route sends everything of the gateway's family to it.
func (s *space) route(gateway string) {
	s.t.Helper()
	gw := net.ParseIP(gateway)
	s.must(s.nl.RouteAdd(&netlink.Route{Gw: gw}))
}

// wire connects two namespaces by a pair of devices with these names.
func wire(a *space, nameA string, b *space, nameB string) {
	a.t.Helper()
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: nameA, Namespace: netlink.NsFd(a.ns)},
		PeerName:  nameB, PeerNamespace: netlink.NsFd(b.ns),
	}
	// Made from within a, so that no end is ever in the machine's namespace.
	a.must(a.nl.LinkAdd(pair))
	a.up(nameA)
	b.up(nameB)
}

// filter makes a filter for the namespace.
func (s *space) filter(mode Mode) *Filter {
	s.t.Helper()
	f, err := New(Options{Mode: mode, NetNS: int(s.ns)})
	s.must(err)
	return f
}

// cleanup runs Cleanup inside the namespace.
func (s *space) cleanup() (found bool) {
	s.t.Helper()
	s.must(s.do(func() (err error) {
		found, err = Cleanup()
		return err
	}))
	return found
}

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// dup gives a descriptor of the namespace of its own.
func (s *space) dup() int {
	s.t.Helper()
	fd, err := unix.FcntlInt(uintptr(s.ns), unix.F_DUPFD_CLOEXEC, 0)
	s.must(err)
	return fd
}

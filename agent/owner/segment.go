package owner

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// segment sends and receives VRRP on one interface.
type segment struct {
	name   string
	index  int
	family Family
	conn   *net.IPConn
	v4     *ipv4.PacketConn
	v6     *ipv6.PacketConn
	group  netip.Addr
}

// datagram is one received packet of IP protocol 112.
type datagram struct {
	payload             []byte
	source, destination netip.Addr
	ttl                 int
}

func openSegment(name string, family Family) (*segment, error) {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("find interface: %w", err)
	}
	s := &segment{name: name, index: device.Index, family: family, group: group4}
	network, any := fmt.Sprintf("ip4:%d", protocol), "0.0.0.0"
	if family == IPv6 {
		network, any, s.group = fmt.Sprintf("ip6:%d", protocol), "::", group6
	}
	// Bound to the interface before it can receive: the socket would see VRRP
	// of all interfaces otherwise.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, name)
		})
		return errors.Join(err, failed)
	}}
	conn, err := config.ListenPacket(context.Background(), network, any)
	if err != nil {
		return nil, fmt.Errorf("open raw socket: %w", err)
	}
	s.conn = conn.(*net.IPConn)
	if family == IPv4 {
		err = s.setUp4(device)
	} else {
		err = s.setUp6(device)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("set up raw socket: %w", err)
	}
	return s, nil
}

// networkControl is the traffic class of routing protocols (CS6): switches do
// not drop it first when they are full.
const networkControl = 0xc0

func (s *segment) setUp4(device *net.Interface) error {
	s.v4 = ipv4.NewPacketConn(s.conn)
	return errors.Join(
		s.v4.SetMulticastInterface(device), s.v4.SetMulticastTTL(hops), s.v4.SetMulticastLoopback(false),
		s.v4.SetTOS(networkControl),
		s.v4.SetControlMessage(ipv4.FlagTTL|ipv4.FlagDst, true),
		s.v4.JoinGroup(device, &net.IPAddr{IP: s.group.AsSlice()}),
	)
}

func (s *segment) setUp6(device *net.Interface) error {
	s.v6 = ipv6.NewPacketConn(s.conn)
	return errors.Join(
		s.v6.SetMulticastInterface(device), s.v6.SetMulticastHopLimit(hops), s.v6.SetMulticastLoopback(false),
		s.v6.SetTrafficClass(networkControl),
		s.v6.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagDst, true),
		s.v6.JoinGroup(device, &net.IPAddr{IP: s.group.AsSlice()}),
	)
}

// receive waits for a packet.
func (s *segment) receive(buffer []byte) (d datagram, err error) {
	var n int
	var from net.Addr
	if s.family == IPv4 {
		var m *ipv4.ControlMessage
		if n, m, from, err = s.v4.ReadFrom(buffer); err == nil && m != nil {
			d.ttl, d.destination = m.TTL, address(m.Dst)
		}
	} else {
		var m *ipv6.ControlMessage
		if n, m, from, err = s.v6.ReadFrom(buffer); err == nil && m != nil {
			d.ttl, d.destination = m.HopLimit, address(m.Dst)
		}
	}
	if err != nil {
		return d, fmt.Errorf("receive: %w", err)
	}
	if a, ok := from.(*net.IPAddr); ok {
		d.source = address(a.IP)
	}
	d.payload = append([]byte(nil), buffer[:n]...)
	return d, nil
}

// send multicasts the payload from the source address.
func (s *segment) send(payload []byte, source netip.Addr) error {
	to := &net.IPAddr{IP: s.group.AsSlice()}
	var err error
	if s.family == IPv4 {
		_, err = s.v4.WriteTo(payload, &ipv4.ControlMessage{Src: source.AsSlice(), IfIndex: s.index}, to)
	} else {
		to.Zone = s.name
		_, err = s.v6.WriteTo(payload, &ipv6.ControlMessage{Src: source.AsSlice(), IfIndex: s.index}, to)
	}
	return err
}

func (s *segment) close() error {
	if err := s.conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// errGone says that the interface is there no more.
var errGone = errors.New("interface is gone")

// up tells whether the interface is up and has a carrier. It asks through the
// socket, so in the network namespace of the socket, and costs two system
// calls.
func (s *segment) up() (up bool, err error) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return false, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		var request *unix.Ifreq
		if request, failed = unix.NewIfreq(s.name); failed != nil {
			return
		}
		if unix.IoctlIfreq(int(fd), unix.SIOCGIFINDEX, request) != nil || int(request.Uint32()) != s.index {
			failed = errGone
			return
		}
		failed = unix.IoctlIfreq(int(fd), unix.SIOCGIFFLAGS, request)
		up = request.Uint16()&unix.IFF_UP != 0 && request.Uint16()&unix.IFF_RUNNING != 0
	})
	return up, errors.Join(err, failed)
}

// primary is the interface's first address of the family, for IPv6 the
// link-local one as RFC 9568 wants it, that is none of the given.
func (s *segment) primary(except []netip.Addr) netip.Addr {
	if s.family == IPv6 {
		table, err := os.ReadFile("/proc/net/if_inet6")
		if err != nil {
			return netip.Addr{}
		}
		return linkLocal(string(table), s.name)
	}
	device := net.Interface{Index: s.index, Name: s.name}
	list, err := device.Addrs()
	if err != nil {
		return netip.Addr{}
	}
	for _, l := range list {
		if n, ok := l.(*net.IPNet); ok {
			if a := address(n.IP); a.Is4() && !slices.Contains(except, a) {
				return a
			}
		}
	}
	return netip.Addr{}
}

// linkLocal finds the interface's link-local address in the kernel's table of
// IPv6 addresses. Nothing can be sent from one that is tentative, as it is for
// up to two seconds after the interface has come up, or that is a duplicate.
func linkLocal(table, name string) netip.Addr {
	for line := range strings.Lines(table) {
		f := strings.Fields(line) // address, index, prefix length, scope, flags, name
		if len(f) != 6 || f[5] != name {
			continue
		}
		raw, err := hex.DecodeString(f[0])
		flags, bad := strconv.ParseUint(f[4], 16, 32)
		if err != nil || bad != nil || flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		if a, ok := netip.AddrFromSlice(raw); ok && a.IsLinkLocalUnicast() {
			return a
		}
	}
	return netip.Addr{}
}

func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// transient tells whether a receive may simply be tried again.
func transient(err error) bool {
	return errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR) || errors.Is(err, os.ErrDeadlineExceeded)
}

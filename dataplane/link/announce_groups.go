package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// groupsPerSocket keeps below what one socket's memory holds (optmem_max).
const groupsPerSocket = 200

// groups are the multicast groups that an interface listens to, so that the
// network card and switches with MLD snooping let them through.
type groups struct {
	iface   int
	sockets []*os.File
	members map[netip.Addr]int // in which socket
	count   []int              // members of each socket
}

func (g *groups) change(group netip.Addr, join bool) error {
	n, in := g.members[group]
	if in == join {
		return nil
	}
	if join {
		for n = 0; n < len(g.count) && g.count[n] >= groupsPerSocket; n++ {
		}
	}
	if n == len(g.sockets) {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open socket for groups: %w", err)
		}
		g.sockets, g.count = append(g.sockets, os.NewFile(uintptr(fd), "groups")), append(g.count, 0)
	}
	option, step := unix.IPV6_JOIN_GROUP, 1
	if !join {
		option, step = unix.IPV6_LEAVE_GROUP, -1
	}
	raw, err := g.sockets[n].SyscallConn()
	if err != nil {
		return fmt.Errorf("use socket for groups: %w", err)
	}
	var failed error
	request := unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(g.iface)}
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, option, &request)
	})
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("change membership of %s: %w", group, err)
	}
	g.count[n] += step
	if join {
		g.members[group] = n
	} else {
		delete(g.members, group)
	}
	return nil
}

// set joins the groups of the addresses, and leaves all others.
func (g *groups) set(owned map[netip.Addr]*schedule) error {
	wanted := map[netip.Addr]bool{}
	for a := range owned {
		if a.Is6() {
			wanted[solicitedNode(a)] = true
		}
	}
	var failed error
	for group := range g.members {
		if !wanted[group] {
			failed = errors.Join(failed, g.change(group, false))
		}
	}
	for group := range wanted {
		failed = errors.Join(failed, g.change(group, true))
	}
	return failed
}

func (g *groups) close() {
	for _, s := range g.sockets {
		s.Close()
	}
}

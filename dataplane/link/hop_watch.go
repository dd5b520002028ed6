package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// askAgain is how often an unknown neighbour is asked for once more; the kernel
// itself gives up after three solicitations.
const askAgain = time.Second

// settle is how long route changes are gathered: a routing daemon that starts
// brings thousands at once.
const settle = 50 * time.Millisecond

// subscribe opens the socket on which the kernel tells of changes.
func (h *Hops) subscribe() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open route socket: %w", err)
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_NEIGH | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return fmt.Errorf("bind route socket: %w", err)
	}
	h.events = os.NewFile(uintptr(fd), "route")
	if h.raw, err = h.events.SyscallConn(); err != nil {
		h.events.Close()
		return fmt.Errorf("use route socket: %w", err)
	}
	return nil
}

// Run keeps the answers true until ctx ends, and closes the sockets.
func (h *Hops) Run(ctx context.Context) error {
	defer h.Close()
	defer context.AfterFunc(ctx, func() { h.events.Close() })()
	buffer := make([]byte, 1<<16)
	again := time.Now().Add(askAgain)
	var rerouteAt time.Time // when routes are looked at again; zero: they are true
	for {
		deadline := again
		if !rerouteAt.IsZero() && rerouteAt.Before(again) {
			deadline = rerouteAt
		}
		n, err := h.receive(buffer, deadline)
		routes := false
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			routes, err = h.take(buffer[:n])
		case errors.Is(err, unix.ENOBUFS): // changes were lost: read everything again
			h.log.Debug("changes of routes and neighbours lost")
			h.mu.Lock()
			err = h.readTables()
			h.mu.Unlock()
			routes = true
		case isTimeout(err):
			err = nil
		}
		if err != nil {
			return fmt.Errorf("watch routes and neighbours: %w", err)
		}
		now := time.Now()
		if routes && rerouteAt.IsZero() {
			rerouteAt = now.Add(settle)
		}
		if !rerouteAt.IsZero() && !now.Before(rerouteAt) {
			rerouteAt = time.Time{}
			h.reroute()
		}
		if !now.Before(again) {
			again = now.Add(askAgain)
			h.askUnresolved()
		}
	}
}

func (h *Hops) receive(buffer []byte, deadline time.Time) (n int, err error) {
	if err := h.events.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	var failed error
	err = h.raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), buffer, 0)
		return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
	})
	if err == nil {
		err = failed
	}
	return n, err
}

// take applies messages of the kernel, and tells whether routes may lead
// elsewhere now.
func (h *Hops) take(b []byte) (routes bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return false, fmt.Errorf("parse message: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	touched, links := map[neighbourKey]bool{}, false
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			routes = true
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			routes, links = true, true
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			n, err := netlink.NeighDeserialize(m.Data)
			if err != nil {
				return false, fmt.Errorf("parse neighbour: %w", err)
			}
			if n.Family != unix.AF_INET && n.Family != unix.AF_INET6 {
				continue // a bridge's table is told of on the same group
			}
			touched[h.note(n, m.Header.Type == unix.RTM_DELNEIGH)] = true
		}
	}
	if links {
		if err := h.readLinks(); err != nil {
			return false, err
		}
	}
	if len(touched) > 0 {
		h.refresh(func(e *hopEntry) bool { return touched[e.way.key] })
	}
	return routes, nil
}

// note takes down what the kernel says of a neighbour.
func (h *Hops) note(n *netlink.Neigh, gone bool) neighbourKey {
	ip, _ := netip.AddrFromSlice(n.IP)
	key := neighbourKey{n.LinkIndex, ip.Unmap()}
	if gone {
		delete(h.near, key)
		return key
	}
	entry := neighbour{state: n.State}
	if len(n.HardwareAddr) == len(MAC{}) {
		entry.mac = MAC(n.HardwareAddr)
	}
	h.near[key] = entry
	return key
}

// refresh answers anew for the entries, and tells when an answer has changed.
func (h *Hops) refresh(which func(*hopEntry) bool) {
	changed := false
	for _, e := range h.known {
		if !which(e) {
			continue
		}
		hop, err := h.resolve(e.way)
		if hop != e.hop || (err == nil) != (e.err == nil) || err != nil && err.Error() != e.err.Error() {
			changed = true
		}
		e.hop, e.err = hop, err
	}
	if !changed {
		return
	}
	select {
	case h.changes <- struct{}{}:
	default:
	}
}

// reroute asks for every route again.
func (h *Hops) reroute() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for addr, e := range h.known {
		e.way = h.route(addr)
	}
	h.refresh(func(*hopEntry) bool { return true })
}

func (h *Hops) askUnresolved() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refresh(func(e *hopEntry) bool { return errors.Is(e.err, ErrUnresolved) })
}

func (h *Hops) readTables() error {
	if err := h.readLinks(); err != nil {
		return err
	}
	h.near = map[neighbourKey]neighbour{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := h.handle.NeighList(0, family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // what it lacks, an event tells
			return fmt.Errorf("list neighbours: %w", err)
		}
		for _, n := range list {
			h.note(&n, false)
		}
	}
	return nil
}

func (h *Hops) readLinks() error {
	list, err := h.handle.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list interfaces: %w", err)
	}
	h.links = make(map[int]device, len(list))
	for _, l := range list {
		a := l.Attrs()
		d := device{mtu: a.MTU, up: a.RawFlags&unix.IFF_UP != 0, silent: a.RawFlags&(unix.IFF_NOARP|unix.IFF_LOOPBACK) != 0}
		if len(a.HardwareAddr) == len(MAC{}) {
			d.ethernet, d.mac = true, MAC(a.HardwareAddr)
		}
		h.links[a.Index] = d
	}
	return nil
}

package health

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// keptPorts is how many ports of an address wait for their next check. Few are
// in use at a time, and every port is one more flow that the backends' nodes
// remember for a while.
const keptPorts = 64

// tunnels are the sockets that all tunnel checks share. They are opened by the
// first check that needs them.
type tunnels struct {
	// magic is the lower half of what answers acknowledge: by it the kernel tells
	// them from all other packets. It is the lower half so that the numbers of two
	// SYNs are further apart than any window without scaling: were the second
	// within the window of a connection that the first has left half open, the
	// backend would reset both (RFC 9293 section 3.10.7.4).
	magic   uint16
	running sync.WaitGroup // what reads taps

	mu    sync.Mutex                  // guards what follows; what is done under it does not block
	taps  map[bool]*tap               // by whether they are for IPv6
	outer map[netip.Addr]*net.UDPConn // that tunnels come from
	free  map[netip.Addr][]*port      // the last used one is the next
	ports map[netip.AddrPort]*port
}

// port is one of this node's that no other socket gets meanwhile.
type port struct {
	local   netip.AddrPort
	fd      int // bound, and nothing else
	answers chan segment
}

func newTunnels() *tunnels {
	return &tunnels{
		magic: uint16(1 + rand.N(0xffff)), // zero is what SYNs acknowledge
		taps:  map[bool]*tap{}, outer: map[netip.Addr]*net.UDPConn{}, free: map[netip.Addr][]*port{}, ports: map[netip.AddrPort]*port{},
	}
}

// sequence is the number of a SYN whose answer will have the magic.
func (t *tunnels) sequence() uint32 { return uint32(rand.N(0x10000))<<16 | uint32(t.magic-1) }

// take returns a port to send from and what to send with; the answers are heard
// from now on.
func (t *tunnels) take(way Tunnel) (*port, *net.UDPConn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.listen(way.Source.Is6()); err != nil {
		return nil, nil, err
	}
	outer := t.outer[way.Outer]
	if outer == nil {
		var err error
		if outer, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(way.Outer, 0))); err != nil {
			return nil, nil, err
		}
		_ = outer.SetReadBuffer(0) // nobody reads
		t.outer[way.Outer] = outer
	}
	if free := t.free[way.Source]; len(free) > 0 {
		p := free[len(free)-1]
		t.free[way.Source] = free[:len(free)-1]
		for len(p.answers) > 0 { // to the check before
			<-p.answers
		}
		return p, outer, nil
	}
	p, err := openPort(way.Source)
	if err != nil {
		return nil, nil, fmt.Errorf("reserve a port of %s: %w", way.Source, err)
	}
	t.ports[p.local] = p
	return p, outer, nil
}

// listen opens the family's tap where there is none; t.mu is held.
func (t *tunnels) listen(v6 bool) error {
	if t.taps[v6] != nil {
		return nil
	}
	opened, err := openTap(v6, t.magic)
	if err != nil {
		return err
	}
	t.taps[v6] = opened
	t.running.Go(func() {
		_ = opened.run(t.hear)
		opened.file.Close()
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.taps[v6] == opened { // it broke: the next check opens another
			delete(t.taps, v6)
		}
	})
	return nil
}

// hear gives an answer to the check that waits at its port.
func (t *tunnels) hear(s segment) {
	t.mu.Lock()
	p := t.ports[s.to]
	t.mu.Unlock()
	if p == nil {
		return
	}
	select {
	case p.answers <- s:
	default:
	}
}

// giveBack ends the use of a port; without again nobody uses it any more.
func (t *tunnels) giveBack(p *port, again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	source := p.local.Addr()
	if again && len(t.free[source]) < keptPorts {
		t.free[source] = append(t.free[source], p)
		return
	}
	t.drop(p)
}

// drop closes a port; t.mu is held.
func (t *tunnels) drop(p *port) {
	delete(t.ports, p.local)
	unix.Close(p.fd)
}

// close closes everything and waits for what reads; no check may be in flight.
func (t *tunnels) close() {
	t.mu.Lock()
	for _, opened := range t.taps {
		opened.file.Close()
	}
	for _, outer := range t.outer {
		outer.Close()
	}
	for _, p := range t.ports {
		t.drop(p)
	}
	clear(t.taps)
	clear(t.outer)
	clear(t.free)
	t.mu.Unlock()
	t.running.Wait()
}

// openPort reserves a port that the kernel picks.
func openPort(source netip.Addr) (*port, error) {
	family, address := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: source.As16()})
	if source.Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Addr: source.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err = unix.Bind(fd, address); err == nil {
		address, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	number := 0
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		number = a.Port
	case *unix.SockaddrInet6:
		number = a.Port
	}
	// Of more than a few answers none after the first few would be looked at.
	return &port{local: netip.AddrPortFrom(source, uint16(number)), fd: fd, answers: make(chan segment, 4)}, nil
}

package dnsproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// drainStep is how often Drain looks whether all is answered.
const drainStep = 5 * time.Millisecond

// ListenWith is Listen with sockets that another process has opened, for the
// addresses that they are bound to: what they have received meanwhile is
// answered, so nothing is lost between two processes. Of those whose address is
// not among the proxy's, and of the others' copies, it lets go. The files are
// closed in any case. adopted is how many are in use. A proxy that listens
// already refuses.
func (p *Proxy) ListenWith(files []*os.File) (adopted int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if len(p.sockets) > 0 {
		return 0, errors.New("adopt sockets: the proxy listens already")
	}
	defer func() {
		if err != nil {
			p.closeAll()
		}
	}()
	given := sortSockets(files)
	for _, address := range p.options.Listen {
		n, err := p.adopt(address, given)
		if err != nil {
			return 0, fmt.Errorf("listen at %s: %w", address, err)
		}
		adopted += n
	}
	for _, address := range p.options.ListenTLS {
		door, n, err := p.doorAt(address, given)
		if err != nil {
			return 0, fmt.Errorf("listen with TLS at %s: %w", address, err)
		}
		p.addDoor(tlsDoor{tls.NewListener(door, p.options.TLS), door}, "tls")
		adopted += n
	}
	for _, s := range p.sockets {
		enlarge(s.conn)
	}
	p.forward.setListen(p.addrs())
	return adopted, nil
}

// tlsDoor keeps the listener below TLS within reach.
type tlsDoor struct {
	net.Listener
	below net.Listener
}

// socketKey is what a listening socket is told by.
type socketKey struct {
	kind    int // unix.SOCK_STREAM or unix.SOCK_DGRAM
	address netip.AddrPort
}

// sortSockets tells what sockets are bound to; what is none is left out.
func sortSockets(files []*os.File) map[socketKey][]*os.File {
	all := map[socketKey][]*os.File{}
	for _, f := range files {
		if key, ok := keyOf(f); ok {
			all[key] = append(all[key], f)
		}
	}
	return all
}

// keyOf asks the kernel what a socket is. It does not take the descriptor by
// File.Fd, which would make it block, for the other process too.
func keyOf(f *os.File) (key socketKey, ok bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return key, false
	}
	var bound unix.Sockaddr
	outer := raw.Control(func(fd uintptr) {
		if key.kind, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE); err == nil {
			bound, err = unix.Getsockname(int(fd))
		}
	})
	if outer != nil || err != nil {
		return key, false
	}
	switch a := bound.(type) {
	case *unix.SockaddrInet4:
		key.address = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		key.address = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return key, key.address.IsValid()
}

// adopt is open with the sockets that are given. It wants mu held. All UDP sockets
// of an address must be taken: the kernel goes on spreading clients over them.
func (p *Proxy) adopt(address netip.AddrPort, given map[socketKey][]*os.File) (int, error) {
	datagrams := given[socketKey{unix.SOCK_DGRAM, address}]
	if len(datagrams) == 0 {
		return 0, p.open(address)
	}
	door, adopted, err := p.doorAt(address, given)
	if err != nil {
		return 0, err
	}
	p.addDoor(door, "tcp")
	for _, f := range datagrams {
		conn, err := net.FilePacketConn(f)
		if err != nil {
			return 0, fmt.Errorf("adopt a socket: %w", err)
		}
		udp, ok := conn.(*net.UDPConn)
		if !ok {
			conn.Close()
			return 0, fmt.Errorf("adopt a socket: it is a %T", conn)
		}
		socket, err := newUDPSocket(p, udp)
		if err != nil {
			conn.Close()
			return 0, err
		}
		p.sockets = append(p.sockets, socket)
	}
	return adopted + len(datagrams), nil
}

// doorAt takes the listener that is given for an address, or opens one.
func (p *Proxy) doorAt(address netip.AddrPort, given map[socketKey][]*os.File) (net.Listener, int, error) {
	if files := given[socketKey{unix.SOCK_STREAM, address}]; len(files) > 0 {
		door, err := net.FileListener(files[0])
		if err != nil {
			return nil, 0, fmt.Errorf("adopt a listener: %w", err)
		}
		return door, 1, nil
	}
	door, err := p.knock(address)
	return door, 0, err
}

// enlarge lets a socket hold what comes while nobody reads: by right of
// CAP_NET_ADMIN more than net.core.rmem_max. Without it the size stays as it is.
func enlarge(conn *net.UDPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	})
}

// Sockets are copies of the listening sockets, for another process; the caller
// closes them.
func (p *Proxy) Sockets() (files []*os.File, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			files = nil
		}
	}()
	for _, d := range p.doors {
		from := d.Listener
		if t, ok := from.(tlsDoor); ok {
			from = t.below
		}
		tcp, ok := from.(*net.TCPListener)
		if !ok {
			return files, fmt.Errorf("copy the sockets: %T has none", from)
		}
		f, err := tcp.File()
		if err != nil {
			return files, fmt.Errorf("copy the sockets: %w", err)
		}
		files = append(files, f)
	}
	for _, s := range p.sockets {
		f, err := s.conn.File()
		if err != nil {
			return files, fmt.Errorf("copy the sockets: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}

// Drain stops reading and waits until what was read is answered, or until ctx
// ends. What comes from then on stays in the sockets, for who has copies of
// them. Connections end when Run does: their clients ask again over new ones
// (RFC 7766, 6.2.4).
func (p *Proxy) Drain(ctx context.Context) {
	past := time.Unix(1, 0)
	p.mu.Lock()
	for _, s := range p.sockets {
		_ = s.conn.SetReadDeadline(past)
	}
	for _, d := range p.doors {
		from := d.Listener
		if t, ok := from.(tlsDoor); ok {
			from = t.below
		}
		if tcp, ok := from.(*net.TCPListener); ok {
			_ = tcp.SetDeadline(past)
		}
	}
	p.mu.Unlock()
	// A batch that is being answered is over, and its misses are flights, when
	// the next step finds none.
	for quiet := 0; quiet < 2 && ctx.Err() == nil; {
		time.Sleep(drainStep)
		if quiet++; p.flights.size() > 0 {
			quiet = 0
		}
	}
}

package dnsproxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// receiveBuffer holds a burst while the socket's goroutine waits for a CPU. The
// kernel cuts it to net.core.rmem_max.
const receiveBuffer = 4 << 20

// Listen opens the sockets without serving yet; Run does. A second call does
// nothing.
func (p *Proxy) Listen() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sockets) > 0 {
		return nil
	}
	for _, address := range p.options.Listen {
		if err := p.open(address); err != nil {
			p.closeAll()
			return fmt.Errorf("listen at %s: %w", address, err)
		}
	}
	for _, address := range p.options.ListenTLS {
		door, err := p.knock(address)
		if err != nil {
			p.closeAll()
			return fmt.Errorf("listen with TLS at %s: %w", address, err)
		}
		p.addDoor(tls.NewListener(door, p.options.TLS), "tls")
	}
	p.forward.setListen(p.addrs())
	return nil
}

// door is where connections come in.
type door struct {
	net.Listener
	proto string
}

// addDoor wants mu held.
func (p *Proxy) addDoor(l net.Listener, proto string) { p.doors = append(p.doors, door{l, proto}) }

func (p *Proxy) knock(address netip.AddrPort) (net.Listener, error) {
	config := net.ListenConfig{Control: control}
	return config.Listen(context.Background(), "tcp", address.String())
}

// Addrs are where the proxy listens, with the ports that were picked: all of
// Listen, then all of ListenTLS.
func (p *Proxy) Addrs() []netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addrs()
}

// addrs wants mu held.
func (p *Proxy) addrs() []netip.AddrPort {
	var all []netip.AddrPort
	for _, d := range p.doors {
		all = append(all, d.Addr().(*net.TCPAddr).AddrPort())
	}
	return all
}

// open makes the sockets of one address: TCP first, which picks the port if it
// is open, then one UDP socket per CPU that we may use. The kernel spreads
// clients over them by a hash of their addresses (SO_REUSEPORT).
func (p *Proxy) open(address netip.AddrPort) error {
	door, err := p.knock(address)
	if err != nil {
		return err
	}
	p.addDoor(door, "tcp")
	config := net.ListenConfig{Control: control}
	address = netip.AddrPortFrom(address.Addr(), door.Addr().(*net.TCPAddr).AddrPort().Port())
	for range max(2, runtime.GOMAXPROCS(0)) {
		conn, err := config.ListenPacket(context.Background(), "udp", address.String())
		if err != nil {
			return err
		}
		socket, err := newUDPSocket(p, conn.(*net.UDPConn))
		if err != nil {
			conn.Close()
			return err
		}
		p.sockets = append(p.sockets, socket)
	}
	return nil
}

// control sets a socket up before it is bound. SO_REUSEPORT also lets a new
// process listen before the old one closes; IP_FREEBIND lets us listen before
// the address is on lo.
func control(network, _ string, raw syscall.RawConn) error {
	var err error
	set := func(fd, level, option, value int) {
		if err == nil {
			err = unix.SetsockoptInt(fd, level, option, value)
		}
	}
	if outer := raw.Control(func(fd uintptr) {
		set(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		if network == "tcp4" || network == "udp4" {
			set(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
		} else {
			set(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
		}
		if network == "udp4" || network == "udp6" {
			set(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
	}); outer != nil {
		return outer
	}
	return err
}

func (p *Proxy) closeSockets() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeAll()
}

// closeAll wants mu held.
func (p *Proxy) closeAll() {
	for _, d := range p.doors {
		d.Close()
	}
	for _, s := range p.sockets {
		s.conn.Close()
	}
	p.doors, p.sockets = nil, nil
}

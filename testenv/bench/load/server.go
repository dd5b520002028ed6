package load

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A server listens on Ports of every address of its host, for TCP and UDP.
const (
	FirstPort = 8080
	PortCount = 16
)

// connection is what the server knows of a socket.
type connection struct {
	kind    byte // listener, datagram or, for a connection, its first byte
	control []byte
}

const (
	kindNew      = 0
	kindListener = 1
	kindDatagram = 2
	kindParent   = 3
)

type server struct {
	epoll  int
	known  map[int32]*connection
	buffer []byte
}

func newServer() (*server, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	s := &server{epoll: epoll, known: map[int32]*connection{}, buffer: make([]byte, 256<<10)}
	// The parent says nothing; its end is the server's.
	if err := s.watch(0, &connection{kind: kindParent}); err != nil {
		return nil, fmt.Errorf("watch the parent: %w", err)
	}
	for i := range PortCount {
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
			if err := s.listen(kind, FirstPort+i); err != nil {
				return nil, fmt.Errorf("listen on port %d: %w", FirstPort+i, err)
			}
		}
	}
	return s, nil
}

func (s *server) listen(kind, port int) error {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		return err
	}
	c := &connection{kind: kindListener}
	if kind == unix.SOCK_DGRAM {
		// The answer must come from the address that was asked.
		c = &connection{kind: kindDatagram, control: make([]byte, 64)}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	} else {
		err = unix.Listen(fd, 65535)
	}
	if err != nil {
		return err
	}
	return s.watch(int32(fd), c)
}

func (s *server) watch(fd int32, c *connection) error {
	s.known[fd] = c
	return unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: fd})
}

func (s *server) forget(fd int32) {
	delete(s.known, fd)
	closeSocket(int(fd)) // leaves the epoll set by itself
}

func (s *server) run() error {
	events := make([]unix.EpollEvent, 256)
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
		if e != 0 && e != unix.EINTR {
			return fmt.Errorf("wait for traffic: %w", e)
		}
		if e != 0 {
			continue
		}
		for _, event := range events[:n] {
			c := s.known[event.Fd]
			switch {
			case c == nil:
			case c.kind == kindParent:
				return nil
			case c.kind == kindListener:
				s.accept(event.Fd)
			case c.kind == kindDatagram:
				s.datagram(event.Fd, c)
			default:
				s.serve(event.Fd, c)
			}
		}
	}
}

// accept takes all that wait. Most have sent something, or have ended, by then:
// they are served at once.
func (s *server) accept(listener int32) {
	for {
		fd, _, e := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0)
		if e != 0 {
			return
		}
		c := &connection{}
		if s.serveOnce(int32(fd), c) {
			closeSocket(int(fd))
		} else if s.watch(int32(fd), c) != nil {
			s.forget(int32(fd))
		}
	}
}

func (s *server) serve(fd int32, c *connection) {
	if s.serveOnce(fd, c) {
		s.forget(fd)
	}
}

// serveOnce reads what is there, answers and tells whether it was the end.
func (s *server) serveOnce(fd int32, c *connection) (ended bool) {
	n, err := read(int(fd), s.buffer)
	if errors.Is(err, unix.EAGAIN) {
		return false
	}
	if err != nil || n == 0 {
		return true
	}
	if c.kind == askDiscard {
		return false
	}
	c.kind = s.buffer[0]
	switch c.kind {
	case askIdentity:
		_, err = write(int(fd), identify(int(fd)))
	case askDiscard:
	case askLast:
		_, _ = write(int(fd), s.buffer[:1])
		return true
	default:
		_, err = write(int(fd), s.buffer[:1])
	}
	return err != nil
}

// identify names the address that the client reached.
func identify(fd int) []byte {
	name, err := unix.Getsockname(fd)
	at, ok := name.(*unix.SockaddrInet4)
	if err != nil || !ok {
		return make([]byte, identitySize)
	}
	return []byte{at.Addr[0], at.Addr[1], at.Addr[2], at.Addr[3], byte(at.Port >> 8), byte(at.Port)}
}

// datagram sends back what is there. The message that was received is the one
// to send: its address and its control data are the answer's too.
func (s *server) datagram(fd int32, c *connection) {
	var from unix.RawSockaddrInet4
	data := unix.Iovec{Base: &s.buffer[0]}
	for {
		data.SetLen(2048)
		message := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&from)), Namelen: unix.SizeofSockaddrInet4, Iov: &data, Iovlen: 1, Control: &c.control[0]}
		message.SetControllen(len(c.control))
		n, _, e := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)), 0)
		if e != 0 {
			return
		}
		data.SetLen(int(n))
		// ipi_spec_dst is the source of the answer. The interface that the
		// message came by is not the answer's: the route decides.
		if header := (*unix.Cmsghdr)(unsafe.Pointer(&c.control[0])); message.Controllen > 0 && header.Type == unix.IP_PKTINFO {
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&c.control[unix.CmsgLen(0)]))
			info.Ifindex, info.Spec_dst = 0, info.Addr
		}
		unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)), 0)
	}
}

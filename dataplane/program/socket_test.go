package program

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func sockaddr(a netip.AddrPort, v6 bool) unix.Sockaddr {
	if v6 {
		return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func spell(s unix.Sockaddr) string {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port)).String()
	default:
		return fmt.Sprintf("%v", s)
	}
}

func (r request) open(v6 bool) (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if v6 {
		family = unix.AF_INET6
	}
	if r.Network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	protocol := 0
	if r.MPTCP {
		protocol = unix.IPPROTO_MPTCP
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return 0, err
	}
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &unix.Timeval{Sec: 2}); err != nil {
			return fd, err
		}
	}
	if r.Bind.IsValid() {
		return fd, unix.Bind(fd, sockaddr(netip.AddrPortFrom(r.Bind, 0), v6))
	}
	return fd, nil
}

// exchange asks the target and reads its answer, connected or by message.
func (r request) exchange(connect bool) (o outcome) {
	fail := func(step string, err error) outcome {
		o.Err = fmt.Sprintf("%s: %v", step, err)
		var errno unix.Errno
		if errors.As(err, &errno) {
			o.Errno = int(errno)
		}
		return o
	}
	v6 := r.Mapped || r.Target.Addr().Is6()
	fd := r.Socket
	if fd == 0 {
		var err error
		if fd, err = r.open(v6); err != nil {
			return fail("open", err)
		}
	}
	o.Socket = fd
	if !r.Keep {
		defer unix.Close(fd)
	}
	if connect {
		if r.Target.IsValid() {
			if err := unix.Connect(fd, sockaddr(r.Target, v6)); err != nil {
				return fail("connect", err)
			}
		}
		peer, err := unix.Getpeername(fd)
		if err != nil {
			return fail("getpeername", err)
		}
		o.Peer = spell(peer)
		if _, err := unix.Write(fd, []byte("?")); err != nil {
			return fail("write", err)
		}
	} else if err := unix.Sendto(fd, []byte("?"), 0, sockaddr(r.Target, v6)); err != nil {
		return fail("sendto", err)
	}
	buffer := make([]byte, 512)
	n, from, err := unix.Recvfrom(fd, buffer, 0)
	if err != nil {
		return fail("recvfrom", err)
	}
	o.Answer = string(buffer[:n])
	if r.Network == "udp" {
		o.Peer = spell(from)
	}
	return o
}

// read waits for data on an open socket.
func (r request) read() (o outcome) {
	n, err := unix.Read(r.Socket, make([]byte, 512))
	o.Answer = fmt.Sprint(n)
	var errno unix.Errno
	if errors.As(err, &errno) {
		o.Err, o.Errno = err.Error(), int(errno)
	}
	return o
}

// bind binds a socket to the address alone.
func (r request) bind() (o outcome) {
	fd, err := r.open(r.Bind.Is6())
	unix.Close(fd)
	var errno unix.Errno
	if errors.As(err, &errno) {
		o.Err, o.Errno = err.Error(), int(errno)
	}
	return o
}

// connect opens Count sockets, connects them and closes them.
func (r request) connect() error {
	for range r.Count {
		fd, err := r.open(r.Target.Addr().Is6())
		if err == nil {
			err = unix.Connect(fd, sockaddr(r.Target, r.Target.Addr().Is6()))
		}
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// churn connects again and again for Count milliseconds. It returns the
// failures, and last one outcome that tells how many connections it made.
func (r request) churn() (failures []outcome) {
	made := 0
	for end := time.Now().Add(time.Duration(r.Count) * time.Millisecond); time.Now().Before(end); made++ {
		if o := r.exchange(true); o.Err != "" || !strings.HasSuffix(o.server(), fmt.Sprintf(":%d", r.Target.Port())) {
			failures = append(failures, o)
		}
	}
	return append(failures, outcome{Socket: made})
}

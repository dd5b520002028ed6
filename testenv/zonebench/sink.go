package zonebench

import (
	"golang.org/x/sys/unix"
)

// sink accepts connections and closes them.
type sink struct {
	fd   int
	done chan struct{}
}

func (s *space) sink(port int) (*sink, error) {
	k := &sink{fd: -1, done: make(chan struct{})}
	err := s.do(func() (err error) {
		if k.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.Bind(k.fd, &unix.SockaddrInet4{Port: port}); err != nil {
			return err
		}
		return unix.Listen(k.fd, 4096)
	})
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(k.done)
		for {
			c, _, err := unix.Accept4(k.fd, unix.SOCK_CLOEXEC)
			switch err {
			case nil:
				unix.Close(c)
			case unix.ECONNABORTED, unix.EINTR:
			default:
				return
			}
		}
	}()
	return k, nil
}

func (k *sink) close() {
	_ = unix.Shutdown(k.fd, unix.SHUT_RDWR)
	<-k.done
	unix.Close(k.fd)
}

// connect opens a connection and resets it, so that no TIME_WAIT takes the
// ports.
func connect(to unix.Sockaddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	return unix.Connect(fd, to)
}

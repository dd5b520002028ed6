package tracebench

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// bulkChunk is what one call writes, in bytes.
const bulkChunk = 256 << 10

// traffic has a server that closes what it accepts, and one that reads all.
type traffic struct {
	closer, reader int // listening sockets
	at, bulkAt     unix.Sockaddr
}

func newTraffic() (*traffic, error) {
	t := &traffic{closer: -1, reader: -1}
	var err error
	if t.closer, t.at, err = listen(); err != nil {
		return nil, err
	}
	if t.reader, t.bulkAt, err = listen(); err != nil {
		t.close()
		return nil, err
	}
	go serve(t.closer, func(fd int) {})
	go serve(t.reader, func(fd int) {
		buffer := make([]byte, bulkChunk)
		for {
			if n, err := unix.Read(fd, buffer); n <= 0 && !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	return t, nil
}

func (t *traffic) close() {
	for _, fd := range []int{t.closer, t.reader} {
		if fd >= 0 {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR)
			_ = unix.Close(fd)
		}
	}
}

func listen() (int, unix.Sockaddr, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("make a socket: %w", err)
	}
	address := &unix.SockaddrInet4{Addr: [4]byte(net.IPv4(127, 0, 0, 1).To4())}
	err = unix.Bind(fd, address)
	if err == nil {
		err = unix.Listen(fd, 4096)
	}
	var at unix.Sockaddr
	if err == nil {
		at, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, fmt.Errorf("listen: %w", err)
	}
	return fd, at, nil
}

func serve(fd int, handle func(fd int)) {
	runtime.LockOSThread()
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return
		}
		handle(c)
		_ = unix.Close(c)
	}
}

// sample is what one turn gave.
type sample struct{ connections, connectionCPU, bulk, bulkCPU float64 }

// turn opens connections one after the other, and then sends through one.
func (t *traffic) turn(each time.Duration) (s sample, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpu, n, start := processCPU(), 0, time.Now()
	for ; time.Since(start) < each; n++ {
		if err := t.connect(); err != nil {
			return s, err
		}
	}
	s.connections = float64(n) / time.Since(start).Seconds()
	s.connectionCPU = (processCPU() - cpu) / float64(n)
	cpu, start = processCPU(), time.Now()
	sent, err := t.stream(each)
	s.bulk, s.bulkCPU = float64(sent)/time.Since(start).Seconds(), (processCPU()-cpu)/float64(sent)
	return s, err
}

// processCPU is what this process has used, in seconds; it cannot fail for itself.
func processCPU() float64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// connect opens a connection and resets it, which leaves no port in TIME_WAIT.
func (t *traffic) connect() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return fmt.Errorf("set SO_LINGER: %w", err)
	}
	if err := unix.Connect(fd, t.at); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

func (t *traffic) stream(each time.Duration) (sent int, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, t.bulkAt); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	buffer, start := make([]byte, bulkChunk), time.Now()
	for time.Since(start) < each {
		n, err := unix.Write(fd, buffer)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("write: %w", err)
		}
		sent += max(n, 0)
	}
	return sent, nil
}

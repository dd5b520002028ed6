package load

import (
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the hot loops. The runtime is not told that they block:
// it would hand this thread's work to others and take it back each time.

func sockaddr(a netip.AddrPort) *unix.RawSockaddrInet4 {
	p := a.Port()
	return &unix.RawSockaddrInet4{Family: unix.AF_INET, Port: p<<8 | p>>8, Addr: a.Addr().Unmap().As4()}
}

func fault(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func socket(kind int) (int, error) {
	fd, _, e := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, uintptr(kind|unix.SOCK_CLOEXEC), 0)
	return int(fd), fault(e)
}

func connect(fd int, to *unix.RawSockaddrInet4) error {
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(to)), unix.SizeofSockaddrInet4)
	return fault(e)
}

func bind(fd int, at *unix.RawSockaddrInet4) error {
	_, _, e := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(at)), unix.SizeofSockaddrInet4)
	return fault(e)
}

func closeSocket(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func setOption(fd, level, name int, value unsafe.Pointer, size uintptr) error {
	_, _, e := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(value), size, 0)
	return fault(e)
}

// resetAtClose makes close() send a reset, so that no port waits for old
// packets.
func resetAtClose(fd int) error {
	l := unix.Linger{Onoff: 1}
	return setOption(fd, unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&l), unsafe.Sizeof(l))
}

// giveUpAfter bounds every blocking call on the socket.
func giveUpAfter(fd int, d time.Duration) error {
	t := unix.NsecToTimeval(d.Nanoseconds())
	for _, name := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := setOption(fd, unix.SOL_SOCKET, name, unsafe.Pointer(&t), unsafe.Sizeof(t)); err != nil {
			return err
		}
	}
	return nil
}

func write(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), fault(e)
}

func read(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func sendTo(fd int, b []byte, to *unix.RawSockaddrInet4) error {
	_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0,
		uintptr(unsafe.Pointer(to)), unix.SizeofSockaddrInet4)
	return fault(e)
}

func receiveFrom(fd int, b []byte, from *unix.RawSockaddrInet4) error {
	size := uint32(unix.SizeofSockaddrInet4)
	_, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0,
		uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&size)))
	return fault(e)
}

// cpuTime of this thread so far.
func cpuTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// now is the monotonic clock, in nanoseconds.
func now() int64 {
	return int64(time.Since(started))
}

// started is fixed once so that now needs one reading of the clock.
var started = time.Now()

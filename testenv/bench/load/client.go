package load

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a client waits for anything.
const patience = 2 * time.Second

// What the first byte of a connection asks the server for; see server.go.
const (
	askEcho     = 'e' // the same byte back
	askIdentity = 'i' // the address and port that was reached
	askLast     = 'l' // the same, and then the end, from the server's side
	askDiscard  = 'd' // nothing: swallow what comes
)

// step is an error with what was being done.
func step(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// errClosed is a connection that the server ended.
var errClosed = errors.New("closed by the server")

// worker is a client at its job.
type worker struct {
	Job
	result  Result
	targets []*unix.RawSockaddrInet4
	turn    int
	buffer  []byte
}

func (j Job) run() Result {
	w := &worker{Job: j, result: Result{Failures: map[string]int{}}, buffer: make([]byte, 128<<10)}
	for _, t := range j.Targets {
		w.targets = append(w.targets, sockaddr(t))
	}
	start, used := now(), cpuTime()
	if len(w.targets) == 0 {
		w.result.Failures["no target is given"]++
		return w.result
	}
	switch j.Op {
	case Connect:
		w.repeat(w.connectOnly)
	case Request:
		w.repeat(w.connectAndAsk)
	case KeepAlive:
		w.onOne(unix.SOCK_STREAM, func(fd int) error { return w.ask(fd, askEcho, 1) })
	case Connected:
		w.onOne(unix.SOCK_DGRAM, func(fd int) error { return w.ask(fd, askEcho, 1) })
	case Datagram:
		w.datagrams()
	case Bulk:
		w.fail(w.bulk())
		return w.result
	case Soak:
		w.soak()
	case Ports:
		w.ports()
	default:
		w.result.Failures[fmt.Sprintf("no op %q", j.Op)]++
	}
	w.result.Elapsed, w.result.CPU = time.Duration(now()-start), cpuTime()-used
	return w.result
}

func (w *worker) fail(err error) {
	if err != nil {
		w.result.Failures[err.Error()]++
	}
}

func (w *worker) next() *unix.RawSockaddrInet4 {
	w.turn++
	return w.targets[w.turn%len(w.targets)]
}

// repeat does one exchange after the other, each timing itself, until the time
// is up.
func (w *worker) repeat(exchange func() (time.Duration, error)) {
	for end := now() + int64(w.For); now() < end; {
		took, err := exchange()
		if err != nil {
			w.fail(err)
			continue
		}
		w.result.Count++
		w.result.Latency.Record(took)
	}
}

// open makes a socket that resets at close and waits for nothing longer than
// patience.
func open(kind int) (int, error) {
	fd, err := socket(kind)
	if err != nil {
		return fd, step("socket", err)
	}
	if kind == unix.SOCK_STREAM {
		err = resetAtClose(fd)
	}
	return fd, step("set socket option", errors.Join(err, giveUpAfter(fd, patience)))
}

func (w *worker) connectOnly() (time.Duration, error) {
	fd, err := socket(unix.SOCK_STREAM)
	if err != nil {
		return 0, step("socket", err)
	}
	defer closeSocket(fd)
	if err := resetAtClose(fd); err != nil {
		return 0, step("set socket option", err)
	}
	to := w.next()
	start := now()
	err = connect(fd, to)
	return time.Duration(now() - start), step("connect", err)
}

func (w *worker) connectAndAsk() (time.Duration, error) {
	fd, err := open(unix.SOCK_STREAM)
	if err != nil {
		return 0, err
	}
	defer closeSocket(fd)
	to := w.next()
	start := now()
	if err := connect(fd, to); err != nil {
		return 0, step("connect", err)
	}
	err = w.ask(fd, askEcho, 1)
	return time.Duration(now() - start), err
}

// ask sends a byte and reads an answer of that size into the buffer.
func (w *worker) ask(fd int, what byte, size int) error {
	w.buffer[0] = what
	if _, err := write(fd, w.buffer[:1]); err != nil {
		return step("write", err)
	}
	for got := 0; got < size; {
		n, err := read(fd, w.buffer[got:size])
		if err != nil {
			return step("read", err)
		}
		if n == 0 {
			return step("read", errClosed)
		}
		got += n
	}
	return nil
}

// onOne connects one socket, opening another when it breaks, and repeats the
// exchange on it.
func (w *worker) onOne(kind int, exchange func(fd int) error) {
	fd := -1
	w.repeat(func() (time.Duration, error) {
		if fd < 0 {
			var err error
			if fd, err = open(kind); err == nil {
				err = step("connect", connect(fd, w.next()))
			}
			if err != nil {
				closeSocket(fd)
				fd = -1
				return 0, err
			}
		}
		start := now()
		err := exchange(fd)
		took := time.Duration(now() - start)
		if err != nil {
			closeSocket(fd)
			fd = -1
		}
		return took, err
	})
	if fd >= 0 {
		closeSocket(fd)
	}
}

// datagrams sends to one target on a socket that is not connected.
func (w *worker) datagrams() {
	fd, err := open(unix.SOCK_DGRAM)
	if err != nil {
		w.fail(err)
		return
	}
	defer closeSocket(fd)
	to, from := w.next(), &unix.RawSockaddrInet4{}
	w.buffer[0] = askEcho
	w.repeat(func() (time.Duration, error) {
		start := now()
		if err := sendTo(fd, w.buffer[:1], to); err != nil {
			return 0, step("sendto", err)
		}
		if err := receiveFrom(fd, w.buffer[:1], from); err != nil {
			return 0, step("recvfrom", err)
		}
		if from.Addr != to.Addr || from.Port != to.Port {
			w.result.Wrong++
		}
		return time.Duration(now() - start), nil
	})
}

// bulk writes until the time is up and then waits until the server has read it
// all.
func (w *worker) bulk() error {
	fd, err := open(unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	defer closeSocket(fd)
	if err := connect(fd, w.next()); err != nil {
		return step("connect", err)
	}
	w.buffer[0] = askDiscard
	start := now()
	for end := start + int64(w.For); now() < end; {
		n, err := write(fd, w.buffer)
		if err != nil {
			return step("write", err)
		}
		w.result.Bytes += uint64(n)
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return step("shutdown", err)
	}
	n, err := read(fd, w.buffer[:1])
	w.result.Elapsed = time.Duration(now() - start)
	if err == nil && n != 0 {
		err = errors.New("an answer to bulk data")
	}
	return step("wait for the server", err)
}

// identity is the answer to askIdentity, in the buffer.
func (w *worker) identity() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(w.buffer[:4])), uint16(w.buffer[4])<<8|uint16(w.buffer[5]))
}

const identitySize = 6

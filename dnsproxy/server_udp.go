package dnsproxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batchSize = 32   // packets per system call
	queryRoom = 4096 // bytes of a query; of a longer one the rest is cut off
	// maxBatches are served before the loop looks whether it shall end.
	maxBatches = 64
)

// message is the kernel's struct mmsghdr. Go pads it as C does.
type message struct {
	header unix.Msghdr
	length uint32
}

// udpSocket serves one of an address's UDP sockets, in one goroutine: it reads
// up to batchSize packets by one recvmmsg, answers them into buffers of its own
// and sends the answers by one sendmmsg. The runtime's poller wakes it. No
// packet costs a goroutine or an allocation, except for those that an upstream
// must answer.
type udpSocket struct {
	worker
	conn *net.UDPConn
	raw  syscall.RawConn

	in, out   [batchSize]message
	inVector  [batchSize]unix.Iovec
	outVector [batchSize]unix.Iovec
	senders   [batchSize]unix.RawSockaddrInet6 // large enough for IPv4 too
	queries   [batchSize][queryRoom]byte
	answers   [batchSize][udpSize]byte
	// late are the answers that waited for an upstream.
	late outbox
	// failure ends the loop; set by receive.
	failure error
}

func newUDPSocket(p *Proxy, conn *net.UDPConn) (*udpSocket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach the socket: %w", err)
	}
	s := &udpSocket{worker: worker{proxy: p, stats: p.metrics.newCounters("udp"), local: conn.LocalAddr().(*net.UDPAddr).AddrPort()}, conn: conn, raw: raw}
	s.late = outbox{all: &p.answers, raw: raw, unsent: &s.stats.unsent}
	for i := range batchSize {
		s.inVector[i].Base = &s.queries[i][0]
		s.inVector[i].SetLen(queryRoom)
		s.in[i].header.Iov = &s.inVector[i]
		s.in[i].header.SetIovlen(1)
		s.in[i].header.Name = (*byte)(unsafe.Pointer(&s.senders[i]))
		s.out[i].header.Iov = &s.outVector[i]
		s.out[i].header.SetIovlen(1)
	}
	return s, nil
}

// run serves until the socket is closed.
func (s *udpSocket) run() error {
	receive := s.receive // one closure for all calls
	for {
		switch err := s.raw.Read(receive); {
		case s.failure != nil:
			return s.failure
		case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded): // the latter: drained
			return nil
		case err != nil:
			return fmt.Errorf("wait for queries: %w", err)
		}
	}
}

// receive serves the packets that are there. When there are no more it tells
// the poller to wait. Under a flood it returns now and then, so that the socket
// can be closed. Its system calls never block, so they need not tell the
// scheduler (RawSyscall).
func (s *udpSocket) receive(fd uintptr) (done bool) {
	for range maxBatches {
		for i := range s.in {
			s.in[i].header.Namelen = uint32(unsafe.Sizeof(s.senders[i]))
		}
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&s.in[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
		case unix.EAGAIN:
			return false
		case unix.EINTR, unix.ECONNREFUSED: // the latter: a client's socket had gone
			continue
		default:
			s.failure = fmt.Errorf("receive queries: %w", errno)
			return true
		}
		began := s.proxy.now()
		answers := s.serveBatch(int(n), began)
		sendBatch(fd, s.out[:answers], &s.stats.unsent)
		if answers > 0 {
			took := time.Duration(s.proxy.now() - began)
			s.stats.mu.Lock()
			s.stats.tally.local.observe(took, answers)
			s.stats.mu.Unlock()
		}
		if n < batchSize {
			return false // the poller wakes us again if more has come
		}
	}
	return true
}

// serveBatch answers the packets read and gives the number of answers.
func (s *udpSocket) serveBatch(n int, now int64) int {
	answers, tap := 0, s.proxy.tap
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	s.proxy.questions.hold()
	defer s.proxy.questions.release()
	for i := range n {
		out := s.answers[answers][:]
		s.from.sender = &s.senders[i]
		length, miss := s.serve(s.queries[i][:s.in[i].length], out, now)
		if tap != nil {
			tap.client(&s.worker, s.queries[i][:s.in[i].length], out[:length])
		}
		if miss {
			s.submitFrom(i)
			continue
		}
		if length == 0 {
			continue
		}
		s.outVector[answers].Base = &out[0]
		s.outVector[answers].SetLen(length)
		s.out[answers].header.Name = (*byte)(unsafe.Pointer(&s.senders[i]))
		s.out[answers].header.Namelen = s.in[i].header.Namelen
		answers++
	}
	return answers
}

// sendBatch sends messages without blocking, and counts those that the kernel
// does not take.
func sendBatch(fd uintptr, messages []message, unsent *atomic.Uint64) {
	refused := false
	for sent := 0; sent < len(messages); {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&messages[sent])), uintptr(len(messages)-sent), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			sent += int(n)
		case errno == unix.EINTR:
		case errno == unix.ECONNREFUSED && !refused: // it is about an earlier packet
			refused = true
		case errno == unix.EAGAIN:
			unsent.Add(uint64(len(messages) - sent))
			return // the send buffer is full: these clients ask again
		default: // this one cannot be reached; the others can
			unsent.Add(1)
			sent++
		}
	}
}

// submitFrom lets packet i of the batch wait for an upstream.
func (s *udpSocket) submitFrom(i int) {
	sender, size := s.senders[i], s.in[i].header.Namelen
	tap, at := s.proxy.tap, address(&sender)
	s.submit(func(answer []byte) {
		if tap != nil {
			tap.put(tapUDP, at, s.local, tapResponse, answer)
		}
		s.late.put(letter{answer, sender, size})
	})
}

// address reads what the kernel wrote about a packet's sender.
func address(raw *unix.RawSockaddrInet6) netip.AddrPort {
	port := (*[2]byte)(unsafe.Pointer(&raw.Port)) // in network byte order
	number := uint16(port[0])<<8 | uint16(port[1])
	if raw.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), number)
	}
	a := netip.AddrFrom16(raw.Addr)
	if raw.Scope_id != 0 {
		a = a.WithZone(fmt.Sprint(raw.Scope_id))
	}
	return netip.AddrPortFrom(a, number)
}

package dnsbench

import (
	"context"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

const (
	floodSockets = 16
	floodBatch   = 32
	floodRoom    = 512
)

// flood sends packets at a pace, whatever is answered, and counts answers.
type flood struct {
	sockets [floodSockets]*net.UDPConn
	raw     [floodSockets]syscall.RawConn
	packets [][]byte

	out, in   [floodBatch]floodMessage
	vectors   [floodBatch]unix.Iovec
	inVectors [floodBatch]unix.Iovec
	room      [floodBatch][floodRoom]byte
	next      int
	sent, got int
}

// floodMessage is the kernel's struct mmsghdr.
type floodMessage struct {
	header unix.Msghdr
	length uint32
}

func newFlood(s *server, packets [][]byte) (*flood, error) {
	f := &flood{packets: packets}
	for i := range f.sockets {
		conn, err := s.dial()
		if err == nil {
			f.sockets[i] = conn
			conn.SetReadBuffer(4 << 20)
			f.raw[i], err = conn.SyscallConn()
		}
		if err != nil {
			f.close()
			return nil, err
		}
	}
	for i := range floodBatch {
		f.out[i].header.Iov = &f.vectors[i]
		f.out[i].header.SetIovlen(1)
		f.inVectors[i].Base = &f.room[i][0]
		f.inVectors[i].SetLen(floodRoom)
		f.in[i].header.Iov = &f.inVectors[i]
		f.in[i].header.SetIovlen(1)
	}
	return f, nil
}

func (f *flood) close() {
	for _, conn := range f.sockets {
		if conn != nil {
			conn.Close()
		}
	}
}

// run sends so many packets a second until ctx ends; all that it can when none
// is given. It gives the packets sent and the answers received a second.
func (f *flood) run(ctx context.Context, perSecond float64) (sent, got float64) {
	f.sent, f.got = 0, 0
	start := time.Now()
	for socket := 0; ctx.Err() == nil; socket = (socket + 1) % floodSockets {
		count := floodBatch
		if due := int(time.Since(start).Seconds()*perSecond) - f.sent; perSecond > 0 && due < floodBatch {
			count = 0
			time.Sleep(200 * time.Microsecond)
		}
		f.raw[socket].Control(func(fd uintptr) { f.turn(fd, count) })
	}
	took := time.Since(start).Seconds()
	return float64(f.sent) / took, float64(f.got) / took
}

// turn drains a socket and sends a batch on it.
func (f *flood) turn(fd uintptr, count int) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&f.in[0])), floodBatch, unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			break
		}
		f.got += int(n)
		if n < floodBatch {
			break
		}
	}
	for i := range count {
		packet := f.packets[f.next]
		f.next = (f.next + 1) % len(f.packets)
		f.vectors[i].Base = &packet[0]
		f.vectors[i].SetLen(len(packet))
	}
	if count > 0 {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&f.out[0])), uintptr(count), unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			f.sent += int(n)
		}
	}
}

// packetsOf reads a file of questions.
func packetsOf(file string, most int) (all [][]byte, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		name, qtype, _ := strings.Cut(strings.TrimSpace(line), " ")
		packet, err := new(dns.Msg).SetQuestion(name+".", dns.StringToType[qtype]).Pack()
		if err != nil {
			return nil, err
		}
		if all = append(all, packet); len(all) == most {
			break
		}
	}
	return all, nil
}

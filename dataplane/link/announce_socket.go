package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// packetSocket receives the frames of one type on one interface.
type packetSocket struct {
	file *os.File
	raw  syscall.RawConn
}

// arpFilter takes ARP for IPv4 on Ethernet.
var arpFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: etherLen + 4, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x0604, SkipFalse: 1},
	bpf.RetConstant{Val: etherLen + arpLen},
	bpf.RetConstant{Val: 0},
}

// ndpFilter takes neighbour solicitations and advertisements. Every other IPv6
// packet of the interface costs its first two instructions and no copy.
var ndpFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: etherLen + 6, Size: 2}, // next header and hop limit
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: icmpv6<<8 | ndpHops, SkipFalse: 4},
	bpf.LoadAbsolute{Off: etherLen + ipv6Len, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: ndpSolicitation, SkipTrue: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: ndpAdvertisement, SkipFalse: 1},
	bpf.RetConstant{Val: 512},
	bpf.RetConstant{Val: 0},
}

// openPacket opens a socket for the frames of the type that pass the filter.
// It is bound after the filter is on it, so that no other frame slips in.
func openPacket(iface int, etherType uint16, filter []bpf.Instruction) (*packetSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	code, err := bpf.Assemble(filter)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("assemble packet filter: %w", err)
	}
	program := make([]unix.SockFilter, len(code))
	for i, c := range code {
		program[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(etherType), Ifindex: iface})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up packet socket: %w", err)
	}
	s := &packetSocket{file: os.NewFile(uintptr(fd), "packet")}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("set up packet socket: %w", err)
	}
	return s, nil
}

// networkOrder is v as it lies in a field of network byte order.
func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// receive waits for a frame for this host, and tells when it arrived.
func (s *packetSocket) receive(buffer []byte) (frame []byte, at time.Time, err error) {
	oob := make([]byte, 64)
	for {
		var n, oobn int
		var from unix.Sockaddr
		var failed error
		err := s.raw.Read(func(fd uintptr) bool {
			n, oobn, _, from, failed = unix.Recvmsg(int(fd), buffer, oob, 0)
			return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return nil, at, fmt.Errorf("receive frame: %w", err)
		}
		// Frames for other hosts come in where the interface is promiscuous.
		if l, ok := from.(*unix.SockaddrLinklayer); ok && (l.Pkttype == unix.PACKET_OTHERHOST || l.Pkttype == unix.PACKET_OUTGOING) {
			continue
		}
		return buffer[:n], arrival(oob[:oobn]), nil
	}
}

// arrival is the kernel's time stamp of a frame, or now where there is none.
func arrival(oob []byte) time.Time {
	messages, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range messages {
		var ts unix.Timespec
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS &&
			binary.Read(bytes.NewReader(m.Data), binary.NativeEndian, &ts) == nil {
			return time.Unix(ts.Unix())
		}
	}
	return time.Now()
}

// send puts a whole frame on the interface.
func (s *packetSocket) send(iface int, frame []byte) error {
	var failed error
	err := s.raw.Control(func(fd uintptr) {
		failed = unix.Sendto(int(fd), frame, 0, &unix.SockaddrLinklayer{Ifindex: iface, Halen: 6})
	})
	return errors.Join(err, failed)
}

func (s *packetSocket) close() { s.file.Close() }

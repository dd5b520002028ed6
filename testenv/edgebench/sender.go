package edgebench

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many frames one system call takes.
const batch = 64

// sender sends ready frames, past the queues of its device.
type sender struct {
	fd       int
	messages []message
	vectors  []unix.Iovec
	frames   [][]byte
	next     int
}

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
	_      uint32
}

// newSender makes one frame for each flow.
func newSender(device string, source, destination net.HardwareAddr, o Options) (*sender, error) {
	index, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	s := &sender{fd: fd}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index.Index}); err != nil {
		s.close()
		return nil, fmt.Errorf("bind packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		s.close()
		return nil, fmt.Errorf("bypass queues: %w", err)
	}
	// Whole batches, so that none goes past the end.
	count := (o.Flows + batch - 1) / batch * batch
	s.messages, s.vectors = make([]message, count), make([]unix.Iovec, count)
	for i := range count {
		raw := frame(source, destination, uint16(1024+i%o.Flows), o.Payload)
		s.frames = append(s.frames, raw)
		s.vectors[i] = unix.Iovec{Base: &raw[0], Len: uint64(len(raw))}
		s.messages[i].header.Iov, s.messages[i].header.Iovlen = &s.vectors[i], 1
	}
	return s, nil
}

// frame is a UDP packet to the frontend, with its checksums.
func frame(source, destination net.HardwareAddr, port uint16, payload int) []byte {
	raw := append(append([]byte{}, destination...), source...)
	raw = append(raw, 0x08, 0x00)
	ip := make([]byte, 20)
	ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], uint16(28+payload))
	copy(ip[12:], netip.MustParseAddr(clientAddress).AsSlice())
	copy(ip[16:], netip.MustParseAddr(frontendAddress).AsSlice())
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip, 0))
	udp := make([]byte, 8+payload)
	binary.BigEndian.PutUint16(udp, port)
	binary.BigEndian.PutUint16(udp[2:], 80)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], ^sum(udp, uint32(sum(ip[12:], 0))+unix.IPPROTO_UDP+uint32(len(udp))))
	return append(append(raw, ip...), udp...)
}

func sum(data []byte, start uint32) uint16 {
	for i := 0; i+1 < len(data); i += 2 {
		start += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	if len(data)%2 == 1 {
		start += uint32(data[len(data)-1]) << 8
	}
	for start>>16 != 0 {
		start = start&0xffff + start>>16
	}
	return uint16(start)
}

// send sends for as long as told.
func (s *sender) send(ctx context.Context, each time.Duration) error {
	for end := time.Now().Add(each); time.Now().Before(end); {
		if err := ctx.Err(); err != nil {
			return err
		}
		// A look at the clock each 1,024 frames.
		for range 16 {
			_, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.messages[s.next])), batch, 0, 0, 0)
			if errno != 0 && errno != unix.ENOBUFS && errno != unix.EAGAIN && errno != unix.EINTR {
				return fmt.Errorf("send: %w", errno)
			}
			if s.next += batch; s.next == len(s.messages) {
				s.next = 0
			}
		}
	}
	runtime.KeepAlive(s.frames)
	return nil
}

func (s *sender) close() { unix.Close(s.fd) }

package filtertest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

// wire sends packets from the client or the node, and hears what arrives at
// the node's sockets and at the server's and the client's.
type wire struct {
	net     *Net
	senders map[*Space][2]int // raw sockets for either family
	mu      sync.Mutex        // guards seen
	seen    map[uint32]bool   // numbers of packets
	next    uint32
	// patience is how long to wait for packets that should arrive.
	patience time.Duration
}

// magic begins the data of every packet that a wire sends.
const magic = 0x57656972

func newWire(t testing.TB, n *Net) *wire {
	w := &wire{net: n, senders: map[*Space][2]int{}, seen: map[uint32]bool{}, next: 1, patience: 2 * time.Second}
	for _, s := range []*Space{n.Client, n.Node} {
		s.must(s.Do(func() error {
			var fds [2]int
			for i, domain := range []int{unix.AF_INET, unix.AF_INET6} {
				fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
				if err != nil {
					return err
				}
				fds[i] = fd
				t.Cleanup(func() { unix.Close(fd) })
			}
			w.senders[s] = fds
			return nil
		}))
	}
	for _, s := range []*Space{n.Client, n.Node, n.Server} {
		for _, protocol := range []int{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, otherProtocol} {
			w.listen(t, s, unix.AF_INET, protocol)
			if protocol == unix.IPPROTO_ICMP {
				protocol = unix.IPPROTO_ICMPV6
			}
			w.listen(t, s, unix.AF_INET6, protocol)
		}
	}
	return w
}

// otherProtocol is for experiments (RFC 3692).
const otherProtocol = 253

// listen hears the protocol behind the namespace's input hook.
func (w *wire) listen(t testing.TB, s *Space, domain, protocol int) {
	var fd int
	s.must(s.Do(func() (err error) {
		fd, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	}))
	stop, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-done; unix.Close(fd) })
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, _, err := unix.Recvfrom(fd, b, 0)
			select {
			case <-stop:
				return
			default:
			}
			if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				return
			}
			for i := 0; err == nil && i+8 <= n; i++ {
				if binary.BigEndian.Uint32(b[i:]) == magic {
					w.mu.Lock()
					w.seen[binary.BigEndian.Uint32(b[i+4:])] = true
					w.mu.Unlock()
					break
				}
			}
		}
	}()
}

// send sends the packet and gives its number.
func (w *wire) send(p Packet) (uint32, error) {
	n := w.next
	w.next++
	from := w.net.Client
	if p.Hook == Output {
		from = w.net.Node
	}
	data := encode(p, n)
	fd := w.senders[from][0]
	var to unix.Sockaddr = &unix.SockaddrInet4{}
	if p.six() {
		fd, to = w.senders[from][1], &unix.SockaddrInet6{Addr: p.Destination.As16()}
	} else {
		to = &unix.SockaddrInet4{Addr: p.Destination.As4()}
	}
	mark := 0
	if p.Delivered {
		mark = dataplane.DeliveredMark
	}
	if p.Hook == Output {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
			return 0, err
		}
	}
	err := unix.Sendto(fd, data, 0, to)
	if errors.Is(err, unix.EPERM) {
		err = nil // what the output hook drops
	}
	if err != nil {
		return 0, fmt.Errorf("send %+v: %w", p, err)
	}
	return n, nil
}

// passed tells which of the packets arrive. It waits for those that should, for
// a time that is long even on a busy machine, and then a little for those that
// should not.
func (w *wire) passed(should map[uint32]bool) map[uint32]bool {
	arrived := func() (missing int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for n, want := range should {
			if want && !w.seen[n] {
				missing++
			}
		}
		return missing
	}
	for end := time.Now().Add(w.patience); arrived() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.seen
	w.seen = map[uint32]bool{}
	return out
}

// encode writes the packet with its number as data.
func encode(p Packet, number uint32) []byte {
	data := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, magic), number)
	var b []byte
	sum := -1 // where the checksum is
	switch p.Protocol {
	case unix.IPPROTO_TCP:
		b = make([]byte, 20)
		binary.BigEndian.PutUint32(b[4:], number)
		b[12], b[13] = 5<<4, 2 // SYN
		if p.Invalid {
			b[13] = 0
		}
		binary.BigEndian.PutUint16(b[14:], 1024)
		sum = 16
	case unix.IPPROTO_UDP:
		b = make([]byte, 8)
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
		sum = 6
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		b = []byte{p.Type, 0, 0, 0, byte(number >> 8), byte(number), 0, 1}
		sum = 2
	}
	if p.Protocol == unix.IPPROTO_TCP || p.Protocol == unix.IPPROTO_UDP {
		binary.BigEndian.PutUint16(b, p.SourcePort)
		binary.BigEndian.PutUint16(b[2:], p.Port)
	}
	b = append(b, data...)
	if sum >= 0 {
		binary.BigEndian.PutUint16(b[sum:], checksum(p, b))
	}
	var h []byte
	if p.six() {
		h = make([]byte, 40)
		h[0], h[6], h[7] = 6<<4, p.Protocol, 64
		binary.BigEndian.PutUint16(h[4:], uint16(len(b)))
		copy(h[8:], p.Source.AsSlice())
		copy(h[24:], p.Destination.AsSlice())
	} else {
		h = make([]byte, 20)
		h[0], h[8], h[9] = 4<<4|5, 64, p.Protocol // the kernel adds length and checksum
		copy(h[12:], p.Source.AsSlice())
		copy(h[16:], p.Destination.AsSlice())
	}
	return append(h, b...)
}

// checksum is that of the transport header, with the pseudo-header where the
// protocol has one.
func checksum(p Packet, b []byte) uint16 {
	var sum uint32
	add := func(b []byte) {
		for i := 0; i < len(b); i += 2 {
			if i+1 < len(b) {
				sum += uint32(b[i])<<8 | uint32(b[i+1])
			} else {
				sum += uint32(b[i]) << 8
			}
		}
	}
	add(b)
	if p.Protocol != unix.IPPROTO_ICMP {
		for _, a := range []netip.Addr{p.Source, p.Destination} {
			add(a.AsSlice())
		}
		sum += uint32(p.Protocol) + uint32(len(b))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

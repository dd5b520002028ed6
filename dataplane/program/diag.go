package program

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane/internal/inet"
)

// What sock_diag(7) speaks; the structs are the kernel's, in
// linux/inet_diag.h.
const (
	sockDiagByFamily = 20
	sockDestroy      = 21 // needs CONFIG_INET_DIAG_DESTROY
	diagIDSize       = 48 // struct inet_diag_sockid
	diagRequestSize  = 8 + diagIDSize
	anyState         = 0xffffffff
	// tcpTimeWait and tcpListen are states without a connection of ours.
	tcpTimeWait = 6
	tcpListen   = 10
)

// diagSocket is a socket as sock_diag tells of it.
type diagSocket struct {
	family, protocol, state uint8
	inode                   uint32
	id                      [diagIDSize]byte
}

func (s *diagSocket) local() netip.AddrPort {
	return s.address(s.id[4:], binary.BigEndian.Uint16(s.id[0:]))
}

func (s *diagSocket) remote() netip.AddrPort {
	return s.address(s.id[20:], binary.BigEndian.Uint16(s.id[2:]))
}

func (s *diagSocket) address(raw []byte, port uint16) netip.AddrPort {
	if s.family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[:4])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[:16])).Unmap(), port)
}

func (s *diagSocket) cookie() uint64 {
	return uint64(binary.NativeEndian.Uint32(s.id[40:])) | uint64(binary.NativeEndian.Uint32(s.id[44:]))<<32
}

// endByDiag ends the sockets of lost backends in the thread's network
// namespace, where the kernel has no bpf_sock_destroy. Their sockets stay
// counted as open until the process closes them.
func (b *Balancer) endByDiag() error {
	lost := map[netip.AddrPort]uint32{}
	for id := range b.reset.lost {
		if cell := &b.cells.backends[id]; b.cells.counters(id).Open > 0 {
			lost[netip.AddrPortFrom(decodeAddress(cell.Addr), inet.Port(cell.PortBe))] = id
		}
	}
	return eachSocket(func(fd int, s *diagSocket) error {
		id, found := lost[s.remote()]
		if !found || !b.wasBalanced(s.cookie(), id) {
			return nil
		}
		if err := s.destroy(fd); err != nil {
			return fmt.Errorf("end a socket to %s: %w", s.remote(), err)
		}
		atomic.AddUint64(&b.cells.backends[id].Reset, 1)
		return nil
	})
}

// eachSocket lists the TCP and UDP sockets of the thread's network namespace
// that may have a peer.
func eachSocket(do func(fd int, s *diagSocket) error) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return fmt.Errorf("open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			sockets, err := dumpSockets(fd, family, protocol)
			if err != nil {
				return fmt.Errorf("list sockets: %w", err)
			}
			for i := range sockets {
				if err := do(fd, &sockets[i]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// wasBalanced tells whether the socket came to the backend by us.
func (b *Balancer) wasBalanced(cookie uint64, id uint32) bool {
	var peer bpf.BalancePeer
	places := b.maps[bpf.BalanceMapPeers]
	if err := places.Lookup(uint32(cookie%uint64(places.MaxEntries())), &peer); err != nil || peer.Cookie != cookie {
		if err := b.maps[bpf.BalanceMapDisplacedPeers].Lookup(cookie, &peer); err != nil {
			return false
		}
	}
	return peer.Cookie == cookie && peer.BackendId == id && peer.Generation == b.cells.backends[id].Generation
}

// diagMessage is a netlink header and a struct inet_diag_req_v2.
func diagMessage(kind, flags uint16, s *diagSocket) []byte {
	m := make([]byte, unix.NLMSG_HDRLEN+diagRequestSize)
	binary.NativeEndian.PutUint32(m[0:], uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	m[16], m[17] = s.family, s.protocol
	binary.NativeEndian.PutUint32(m[20:], anyState&^(1<<tcpTimeWait|1<<tcpListen))
	copy(m[24:], s.id[:])
	return m
}

func (s *diagSocket) destroy(fd int) error {
	if err := unix.Sendto(fd, diagMessage(sockDestroy, unix.NLM_F_ACK, s), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	_, err := receiveDiag(fd, s.protocol)
	if errors.Is(err, unix.ENOENT) {
		return nil // it ended by itself
	}
	return err
}

func dumpSockets(fd int, family, protocol uint8) ([]diagSocket, error) {
	ask := diagMessage(sockDiagByFamily, unix.NLM_F_DUMP, &diagSocket{family: family, protocol: protocol})
	if err := unix.Sendto(fd, ask, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	return receiveDiag(fd, protocol)
}

// receiveDiag reads to the end of a dump, or to an acknowledgement.
func receiveDiag(fd int, protocol uint8) (all []diagSocket, err error) {
	buffer := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil {
			return nil, err
		}
		for left := buffer[:n]; len(left) >= unix.NLMSG_HDRLEN; {
			header := (*unix.NlMsghdr)(unsafe.Pointer(&left[0]))
			if header.Len < unix.NLMSG_HDRLEN || int(header.Len) > len(left) {
				return nil, errors.New("a netlink message is cut off")
			}
			body := left[unix.NLMSG_HDRLEN:header.Len]
			switch {
			case header.Type == unix.NLMSG_DONE:
				return all, nil
			case header.Type == unix.NLMSG_ERROR && len(body) >= 4:
				if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
					return all, unix.Errno(-code)
				}
				return all, nil
			case header.Type == sockDiagByFamily && len(body) >= 4+diagIDSize:
				// struct inet_diag_msg: family, state, timer, retrans, id.
				s := diagSocket{family: body[0], protocol: protocol, state: body[1]}
				copy(s.id[:], body[4:])
				// After the id: expiry, two queues and the user.
				if at := 4 + diagIDSize + 16; len(body) >= at+4 {
					s.inode = binary.NativeEndian.Uint32(body[at:])
				}
				all = append(all, s)
			}
			left = left[min(int(header.Len+3)&^3, len(left)):]
		}
	}
}

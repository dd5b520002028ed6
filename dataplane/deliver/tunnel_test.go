package deliver

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// tunnel stands in for the edge program: it takes what arrives for a virtual
// address and sends it on in GUE.
func (r *rig) tunnel() {
	var in, out4, out6 int
	r.edge.must(func() (err error) {
		if in, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(htons(unix.ETH_P_ALL))); err != nil {
			return err
		}
		i, err := net.InterfaceByName("e0")
		if err != nil {
			return err
		}
		if err := unix.Bind(in, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: i.Index}); err != nil {
			return err
		}
		unix.SetsockoptInt(in, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
		unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000})
		if out4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW); err != nil {
			return err
		}
		out6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW)
		return err
	})
	stop, stopped := make(chan struct{}), make(chan struct{})
	r.t.Cleanup(func() {
		close(stop)
		<-stopped
		unix.Close(in)
		unix.Close(out4)
		unix.Close(out6)
	})
	backends := map[string]netip.AddrPort{}
	for _, s := range r.table.Services {
		backends[s.Frontends[0].String()+string(s.Protocol)] = s.Backends[0].Address
	}
	go func() {
		defer close(stopped)
		buffer := make([]byte, 65536)
		fragments := map[string]netip.AddrPort{}
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, from, err := unix.Recvfrom(in, buffer, 0)
			if err != nil {
				continue
			}
			if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_HOST {
				continue
			}
			inside := buffer[ethernet:n]
			backend, known := route(inside, backends, fragments)
			if !known {
				continue
			}
			if backend.Addr().Is4() {
				err = unix.Sendto(out4, gue(edge4, node4, backend, inside), 0, &unix.SockaddrInet4{Addr: node4.As4()})
			} else {
				err = unix.Sendto(out6, gue(edge6, node6, backend, inside), 0, &unix.SockaddrInet6{Addr: node6.As16()})
			}
			if errors.Is(err, unix.EMSGSIZE) {
				r.refused.Add(1)
			}
		}
	}()
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// route finds the backend of a packet, and of later fragments by the first.
func route(ip []byte, backends map[string]netip.AddrPort, fragments map[string]netip.AddrPort) (b netip.AddrPort, known bool) {
	var to netip.Addr
	var id string
	var more, later bool
	protocol, body := uint8(0), []byte(nil)
	switch ip[0] >> 4 {
	case 4:
		to, protocol, body = netip.AddrFrom4([4]byte(ip[16:20])), ip[9], ip[20:]
		id, more, later = string(ip[4:6]), ip[6]&0x20 != 0, binary.BigEndian.Uint16(ip[6:])&0x1fff != 0
	case 6:
		to, protocol, body = netip.AddrFrom16([16]byte(ip[24:40])), ip[6], ip[40:]
		if protocol == 44 {
			protocol, id, more, later, body = body[0], string(body[4:8]), body[3]&1 != 0, binary.BigEndian.Uint16(body[2:])&^7 != 0, body[8:]
		}
	default:
		return b, false
	}
	if later {
		b, known = fragments[id]
		return b, known
	}
	name := map[uint8]string{tcp: "tcp", udp: "udp"}[protocol]
	if name == "" {
		return b, false
	}
	b, known = backends[netip.AddrPortFrom(to, binary.BigEndian.Uint16(body[2:])).String()+name]
	if more {
		fragments[id] = b
	}
	return b, known
}

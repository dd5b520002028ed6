package link

import (
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// port is what the kernel says of an interface now.
type port struct {
	MAC   MAC
	Ready bool // up and with a carrier
}

// port asks for the interface by name through the socket, so in the network
// namespace that the socket is of. It fails when the name has gone to another
// interface, or to none.
func (s *packetSocket) port(name string, index int) (p port, err error) {
	var failed error
	err = s.raw.Control(func(fd uintptr) { p, failed = readPort(int(fd), name, index) })
	return p, errors.Join(err, failed)
}

func readPort(fd int, name string, index int) (p port, err error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return p, fmt.Errorf("ask for interface %q: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return p, fmt.Errorf("find interface %s: %w", name, err)
	}
	if int(request.Uint32()) != index {
		return p, fmt.Errorf("find interface %s: another one has its name now", name)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request); err != nil {
		return p, fmt.Errorf("read flags of %s: %w", name, err)
	}
	flags := request.Uint16()
	p.Ready = flags&unix.IFF_UP != 0 && flags&unix.IFF_RUNNING != 0
	mac, err := readMAC(fd, name)
	p.MAC = mac
	return p, err
}

// readMAC asks for the Ethernet address of an interface by a socket of the
// network namespace that it is in.
func readMAC(fd int, name string) (MAC, error) {
	// struct ifreq of linux/if.h, with a struct sockaddr in its union; x/sys
	// has no accessor for that one.
	var request struct {
		name   [unix.IFNAMSIZ]byte
		family uint16
		data   [22]byte
	}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFHWADDR, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return MAC{}, fmt.Errorf("read Ethernet address of %s: %w", name, errno)
	}
	if request.family != unix.ARPHRD_ETHER {
		return MAC{}, fmt.Errorf("read Ethernet address of %s: it has none", name)
	}
	return MAC(request.data[:6]), nil
}

// ethernet finds an interface that has an Ethernet address.
func ethernet(name string) (index int, err error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("find interface %s: %w", name, err)
	}
	if len(i.HardwareAddr) != len(MAC{}) {
		return 0, fmt.Errorf("use interface %s: it has no Ethernet address", name)
	}
	return i.Index, nil
}

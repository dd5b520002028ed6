package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// maxAnswer is how much of a packet is looked at, in bytes: IPv6 and TCP with
// all options that fit.
const maxAnswer = 128

// tap is a packet socket that hears answers to tunnel checks of one family on
// all interfaces. No socket of TCP is there to hear them, and this node's packet
// filter may drop them, since it has seen no SYN go out.
type tap struct {
	v6   bool
	file *os.File
	raw  syscall.RawConn
}

// filter takes TCP for this host that acknowledges a sequence number whose lower
// half is the magic. Nothing else costs a copy. Unlike a socket for all types, one
// for the type IP sees no packet that goes out.
func filter(v6 bool, magic uint16) []bpf.Instruction {
	if v6 {
		return []bpf.Instruction{
			bpf.LoadExtension{Num: bpf.ExtType},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_HOST, SkipTrue: 5},
			bpf.LoadAbsolute{Off: 6, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolTCP, SkipTrue: 3},
			bpf.LoadAbsolute{Off: ipv6Len + 10, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(magic), SkipTrue: 1},
			bpf.RetConstant{Val: maxAnswer},
			bpf.RetConstant{Val: 0},
		}
	}
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_HOST, SkipTrue: 8},
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolTCP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 6, Size: 2}, // later fragments have no ports
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
		bpf.LoadMemShift{Off: 0}, // the header's length
		bpf.LoadIndirect{Off: 10, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(magic), SkipTrue: 1},
		bpf.RetConstant{Val: maxAnswer},
		bpf.RetConstant{Val: 0},
	}
}

// openTap opens one. It is bound after the filter is on it, so that no other
// packet slips in.
func openTap(v6 bool, magic uint16) (*tap, error) {
	code, err := bpf.Assemble(filter(v6, magic))
	if err != nil {
		return nil, fmt.Errorf("assemble packet filter: %w", err)
	}
	program := make([]unix.SockFilter, len(code))
	for i, c := range code {
		program[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	t := &tap{v6: v6, file: os.NewFile(uintptr(fd), "packet")}
	etherType := uint16(unix.ETH_P_IP)
	if v6 {
		etherType = unix.ETH_P_IPV6
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, etherType))})
	}
	if err == nil {
		t.raw, err = t.file.SyscallConn()
	}
	if err != nil {
		t.file.Close()
		return nil, fmt.Errorf("set up packet socket: %w", err)
	}
	return t, nil
}

// run gives every answer to hear until the tap is closed.
func (t *tap) run(hear func(segment)) error {
	var buffer [maxAnswer]byte
	var oob [64]byte
	var n, oobn int
	var failed error
	receive := func(fd uintptr) bool {
		n, oobn, _, _, failed = unix.Recvmsg(int(fd), buffer[:], oob[:], 0)
		return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
	}
	for {
		if err := errors.Join(t.raw.Read(receive), failed); err != nil {
			return fmt.Errorf("receive answers to checks: %w", err)
		}
		if s, ok := readSegment(buffer[:n], t.v6, isSummed(oob[:oobn])); ok {
			hear(s)
		}
	}
}

// isSummed tells by the kernel's note to a packet (struct tpacket_auxdata)
// whether its TCP checksum is complete.
func isSummed(oob []byte) bool {
	messages, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 4 {
			return binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_CSUMNOTREADY == 0
		}
	}
	return false
}

package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/net/bpf"
)

// InUseError is what Probe fails with when another host has the address.
type InUseError struct {
	Address netip.Addr
	MAC     MAC // of that host
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s is in use elsewhere, by %s", e.Address, e.MAC)
}

// A probe is sent three times. RFC 5227 has 1 to 2 s between them and a random
// wait before, for segments where all hosts start at once; few nodes with few
// addresses need no such patience.
const (
	probes    = 3
	probeWait = 300 * time.Millisecond
)

// Probe asks the segment of the interface whether any host has the address, by
// the rules of RFC 5227 (IPv4) and RFC 4862 (IPv6), and takes 900 ms. It
// returns nil when none has, an *InUseError when one has or is about to take
// it, and another error when it could not be found out. A node whose Announcer
// owns the address counts as such a host, so only the owner of a group probes
// an address that is new in it.
func Probe(ctx context.Context, iface string, addr netip.Addr) error {
	addr = addr.Unmap()
	index, err := ethernet(iface)
	if err != nil {
		return fmt.Errorf("probe %s: %w", addr, err)
	}
	etherType, filter := uint16(etherARP), arpFilter
	if addr.Is6() {
		etherType, filter = etherIPv6, ndpFilter
	}
	err = probe(ctx, iface, index, addr, etherType, filter)
	var used *InUseError
	if err != nil && !errors.As(err, &used) {
		return fmt.Errorf("probe %s on %s: %w", addr, iface, err)
	}
	return err
}

func probe(ctx context.Context, iface string, index int, addr netip.Addr, etherType uint16, filter []bpf.Instruction) error {
	s, err := openPacket(index, etherType, filter)
	if err != nil {
		return err
	}
	defer s.close()
	own, err := s.port(iface, index)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, s.close)()
	for range probes {
		frame := arpProbe(addr, own.MAC)
		if addr.Is6() {
			frame = ndpProbe(addr, own.MAC)
		}
		if err := s.send(index, frame); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if err := s.file.SetReadDeadline(time.Now().Add(probeWait)); err != nil {
			return errors.Join(ctx.Err(), err)
		}
		if err := watchFor(s, addr, own.MAC); !isTimeout(err) {
			return errors.Join(ctx.Err(), err)
		}
	}
	return nil
}

// watchFor reads frames until one says that another host has the address, or
// the read fails.
func watchFor(s *packetSocket, addr netip.Addr, own MAC) error {
	buffer := make([]byte, 2048)
	for {
		frame, _, err := s.receive(buffer)
		if err != nil {
			return err
		}
		if mac, ok := holder(frame, addr); ok && mac != own {
			return &InUseError{addr, mac}
		}
	}
}

// holder is the Ethernet address that has addr, or asks whether it may take it,
// by what the frame says.
func holder(frame []byte, addr netip.Addr) (MAC, bool) {
	if p, ok := parseARP(frame); ok {
		return p.SenderMAC, p.Sender == addr || p.Operation == arpRequest && p.Sender.IsUnspecified() && p.Target == addr
	}
	m, ok := parseNDP(frame)
	if !ok {
		return MAC{}, false
	}
	mac := MAC(frame[6:12])
	if m.HasLink {
		mac = m.Link
	}
	switch m.Type {
	case ndpAdvertisement:
		return mac, m.Target == addr
	default:
		return mac, m.Source == addr || m.Source.IsUnspecified() && m.Target == addr
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

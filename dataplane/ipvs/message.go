package ipvs

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The kernel's numbers, from linux/ip_vs.h.
const (
	cmdNewService        = 1
	cmdSetService        = 2
	cmdDeleteService     = 3
	cmdGetService        = 4
	cmdNewDestination    = 5
	cmdSetDestination    = 6
	cmdDeleteDestination = 7
	cmdGetDestination    = 8
	cmdFlush             = 17

	attrService     = 1
	attrDestination = 2

	svcFamily    = 1
	svcProtocol  = 2
	svcAddress   = 3
	svcPort      = 4
	svcFirewall  = 5
	svcScheduler = 6
	svcFlagWords = 7
	svcTimeout   = 8
	svcNetmask   = 9
	svcStats     = 10
	svcStats64   = 12 // Linux 4.1

	destAddress   = 1
	destPort      = 2
	destMethod    = 3
	destWeight    = 4
	destUpper     = 5
	destLower     = 6
	destOpen      = 7
	destStats     = 10
	destFamily    = 11 // Linux 3.18
	destStats64   = 12
	statConns     = 1
	methodMask    = 0x7
	methodNAT     = 0
	genericHeader = 4
)

var errNotByAddress = errors.New("the service is not one of an address and a port")

func family(a netip.Addr) uint16 {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func port(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

// identify names a service in a request.
func identify(v virtual) *nl.RtAttr {
	a := nl.NewRtAttr(attrService|unix.NLA_F_NESTED, nil)
	a.AddRtAttr(svcFamily, nl.Uint16Attr(family(v.At.Addr())))
	a.AddRtAttr(svcProtocol, nl.Uint16Attr(protocolOf(v)))
	a.AddRtAttr(svcAddress, v.At.Addr().AsSlice())
	a.AddRtAttr(svcPort, port(v.At.Port()))
	return a
}

// describe writes a service whole.
func describe(v virtual, s *service) *nl.RtAttr {
	a := identify(v)
	a.AddRtAttr(svcScheduler, nl.ZeroTerminated(s.scheduler))
	flags := binary.NativeEndian.AppendUint32(nil, s.flags)
	a.AddRtAttr(svcFlagWords, binary.NativeEndian.AppendUint32(flags, 0xffffffff)) // and the mask
	a.AddRtAttr(svcTimeout, nl.Uint32Attr(s.timeout))
	netmask := uint32(0xffffffff)
	if v.At.Addr().Is6() {
		netmask = 128
	}
	a.AddRtAttr(svcNetmask, nl.Uint32Attr(netmask))
	return a
}

func describeDestination(at netip.AddrPort, weight uint32) *nl.RtAttr {
	a := nl.NewRtAttr(attrDestination|unix.NLA_F_NESTED, nil)
	a.AddRtAttr(destFamily, nl.Uint16Attr(family(at.Addr())))
	a.AddRtAttr(destAddress, at.Addr().AsSlice())
	a.AddRtAttr(destPort, port(at.Port()))
	a.AddRtAttr(destMethod, nl.Uint32Attr(methodNAT))
	a.AddRtAttr(destWeight, nl.Uint32Attr(weight))
	a.AddRtAttr(destUpper, nl.Uint32Attr(0))
	a.AddRtAttr(destLower, nl.Uint32Attr(0))
	return a
}

// fields are attributes by number.
type fields map[uint16][]byte

func parse(data []byte) (fields, error) {
	all, err := nl.ParseRouteAttr(data)
	if err != nil {
		return nil, err
	}
	f := fields{}
	for _, a := range all {
		f[a.Attr.Type&nl.NLA_TYPE_MASK] = a.Value
	}
	return f, nil
}

// parseMessage gives the fields of the one thing that an answer is about.
func parseMessage(m []byte, attribute uint16) (fields, error) {
	if len(m) < genericHeader {
		return nil, errors.New("the answer is too short")
	}
	outer, err := parse(m[genericHeader:])
	if err != nil {
		return nil, err
	}
	return parse(outer[attribute])
}

func (f fields) u16(n uint16) uint16 {
	if b := f[n]; len(b) >= 2 {
		return binary.NativeEndian.Uint16(b)
	}
	return 0
}

func (f fields) u32(n uint16) uint32 {
	if b := f[n]; len(b) >= 4 {
		return binary.NativeEndian.Uint32(b)
	}
	return 0
}

// addrPort reads an address, which the kernel gives in 16 bytes always.
func (f fields) addrPort(address, portField uint16, v6 bool) (netip.AddrPort, error) {
	b, p := f[address], f[portField]
	n := 4
	if v6 {
		n = 16
	}
	if len(b) < n || len(p) < 2 {
		return netip.AddrPort{}, errors.New("the answer has no address")
	}
	a, _ := netip.AddrFromSlice(b[:n])
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(p)), nil
}

// connections reads the counter, in the width that the kernel has.
func (f fields) connections(wide, narrow uint16) uint64 {
	if s, err := parse(f[wide]); err == nil && len(s[statConns]) >= 8 {
		return binary.NativeEndian.Uint64(s[statConns])
	}
	s, err := parse(f[narrow])
	if err != nil {
		return 0
	}
	return uint64(s.u32(statConns))
}

func parseService(m []byte) (v virtual, s *service, connections uint64, err error) {
	f, err := parseMessage(m, attrService)
	if err != nil {
		return v, nil, 0, err
	}
	protocol := f.u16(svcProtocol)
	if f[svcFirewall] != nil && f[svcAddress] == nil || protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_UDP {
		return v, nil, 0, errNotByAddress
	}
	if v.At, err = f.addrPort(svcAddress, svcPort, f.u16(svcFamily) == unix.AF_INET6); err != nil {
		return v, nil, 0, err
	}
	v.UDP = protocol == unix.IPPROTO_UDP
	s = &service{flags: f.u32(svcFlagWords) & svcFlags, timeout: f.u32(svcTimeout), destinations: map[netip.AddrPort]uint32{}}
	if name := f[svcScheduler]; len(name) > 0 {
		s.scheduler = nl.BytesToString(name)
	}
	return v, s, f.connections(svcStats64, svcStats), nil
}

// notOurs is a weight that we never set, so that the destination is edited.
const notOurs = ^uint32(0)

func parseDestination(m []byte, v6 bool) (destination, error) {
	f, err := parseMessage(m, attrDestination)
	if err != nil {
		return destination{}, err
	}
	if f[destFamily] != nil {
		v6 = f.u16(destFamily) == unix.AF_INET6
	}
	d := destination{weight: f.u32(destWeight), open: f.u32(destOpen), connections: f.connections(destStats64, destStats)}
	if d.at, err = f.addrPort(destAddress, destPort, v6); err != nil {
		return destination{}, err
	}
	if method := f.u32(destMethod) & methodMask; method != methodNAT {
		d.weight = notOurs
	}
	return d, nil
}

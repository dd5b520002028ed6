package link

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

// IPv6 addresses have no label. Ours are known by the priority of their route
// (IFA_RT_PRIORITY, Linux 4.18), which means nothing on lo. They have no
// preferred lifetime, for else the kernel could choose one as the source of what
// the node sends to others (RFC 6724, 5, rule 3).

// add6 puts an IPv6 address on lo.
func add6(lo netlink.Link, a netip.Addr) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	message := nl.NewIfAddrmsg(unix.AF_INET6)
	message.Index, message.Prefixlen = uint32(lo.Attrs().Index), 128
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFA_LOCAL, a.AsSlice()))
	request.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, a.AsSlice()))
	request.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD|unix.IFA_F_NOPREFIXROUTE)))
	request.AddData(nl.NewRtAttr(unix.IFA_RT_PRIORITY, nl.Uint32Attr(dataplane.AddressPriority)))
	const forever = 0xFFFFFFFF
	lifetimes := make([]byte, 16) // struct ifa_cacheinfo: preferred, valid, and two that are only read
	nl.NativeEndian().PutUint32(lifetimes[4:], forever)
	request.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, lifetimes))
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// marked6 lists the IPv6 addresses on lo that bear our mark.
func marked6(lo netlink.Link) ([]netip.Addr, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfInfomsg(unix.AF_INET6))
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	if err != nil {
		return nil, fmt.Errorf("list IPv6 addresses of lo: %w", err)
	}
	var ours []netip.Addr
	for _, m := range messages {
		header := nl.DeserializeIfAddrmsg(m)
		if int(header.Index) != lo.Attrs().Index || header.Family != unix.AF_INET6 {
			continue
		}
		attributes, err := nl.ParseRouteAttr(m[header.Len():])
		if err != nil {
			return nil, fmt.Errorf("list IPv6 addresses of lo: %w", err)
		}
		var a netip.Addr
		isOurs := false
		for _, attribute := range attributes {
			switch attribute.Attr.Type {
			case unix.IFA_ADDRESS:
				a, _ = netip.AddrFromSlice(attribute.Value)
			case unix.IFA_RT_PRIORITY:
				isOurs = len(attribute.Value) == 4 && binary.NativeEndian.Uint32(attribute.Value) == dataplane.AddressPriority
			}
		}
		if isOurs && a.IsValid() {
			ours = append(ours, a)
		}
	}
	return ours, nil
}

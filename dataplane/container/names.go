package container

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/weirproject/weir/dataplane"
)

// BridgeName is the name of a network's bridge: within the kernel's 15
// characters, and with a hash where the network's name does not fit.
func BridgeName(network string) string {
	const room = 15 - len(dataplane.BridgePrefix)
	if len(network) <= room {
		return dataplane.BridgePrefix + network
	}
	return dataplane.BridgePrefix + network[:room-6] + digest(network)[:6]
}

// VethName is the name of the node's end of a container's veth pair.
func VethName(id, network string) string {
	return dataplane.VethPrefix + digest(id + "\x00" + network)[:15-len(dataplane.VethPrefix)]
}

// tunnelName is the name of a VXLAN device: one per VNI and family of the nodes'
// addresses, for all networks that share the VNI.
func tunnelName(vni uint32, v6 bool) string {
	if v6 {
		return fmt.Sprintf("%s6-%d", dataplane.TunnelPrefix, vni)
	}
	return fmt.Sprintf("%s-%d", dataplane.TunnelPrefix, vni)
}

// ours tells whether a link is one of ours, by its name and kind.
func ours(name, kind string) bool {
	return kind == "bridge" && strings.HasPrefix(name, dataplane.BridgePrefix) ||
		kind == "veth" && strings.HasPrefix(name, dataplane.VethPrefix) ||
		kind == "vxlan" && strings.HasPrefix(name, dataplane.TunnelPrefix)
}

// tunnelMAC is the address of a node's end of a tunnel. Every node computes that
// of every other: nothing has to be told or learnt.
func tunnelMAC(node string, vni uint32, v6 bool) net.HardwareAddr {
	return macOf(fmt.Sprintf("%s\x00%d\x00%t", node, vni, v6))
}

// MAC of a container's interface follows from its first address, so that
// neighbours' caches stay right when an address is used again.
func MAC(network string, a netip.Addr) net.HardwareAddr {
	return macOf(network + "\x00" + a.String())
}

// macOf is a locally administered unicast address.
func macOf(text string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(text))
	return net.HardwareAddr{0x0a, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// linkLocal is the IPv6 address that a device with the MAC would have (RFC 4291,
// appendix A); here it only names the next hop in a tunnel.
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// addrOf is an address as the netlink library gives it; the zero Addr for none.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, size := n.Mask.Size()
	a := addrOf(n.IP)
	if size == 128 && a.Is4() {
		a = netip.AddrFrom16(a.As16())
	}
	return netip.PrefixFrom(a, bits)
}

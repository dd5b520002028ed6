package ipvs

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// connectionFile lists the connections of the thread's network namespace.
const connectionFile = "/proc/thread-self/net/ip_vs_conn"

// connection is one that IPVS carries.
type connection struct {
	client  netip.AddrPort
	virtual virtual
	server  netip.AddrPort
}

// through lists the connections to the destinations, which are objects.
func through(destinations map[object]bool) (found []connection, err error) {
	f, err := os.Open(connectionFile)
	if err != nil {
		return nil, fmt.Errorf("list ipvs connections: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if c, ok := parseConnection(lines.Text()); ok && destinations[object{c.virtual, c.server}] {
			found = append(found, c)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list ipvs connections: %w", err)
	}
	return found, nil
}

// parseConnection reads "TCP 0A500063 D2F0 C612000A 0050 0A50000B 1F90
// ESTABLISHED 899", in which an IPv6 address is spelled in brackets.
func parseConnection(line string) (c connection, ok bool) {
	f := strings.Fields(line)
	if len(f) < 8 || f[0] != "TCP" && f[0] != "UDP" {
		return c, false
	}
	var ends [3]netip.AddrPort
	for i := range ends {
		a, err := parseHexAddress(f[1+2*i])
		port, err2 := strconv.ParseUint(f[2+2*i], 16, 16)
		if err != nil || err2 != nil {
			return c, false
		}
		ends[i] = netip.AddrPortFrom(a, uint16(port))
	}
	return connection{client: ends[0], virtual: virtual{UDP: f[0] == "UDP", At: ends[1]}, server: ends[2]}, true
}

func parseHexAddress(s string) (netip.Addr, error) {
	if strings.HasPrefix(s, "[") {
		return netip.ParseAddr(strings.Trim(s, "[]"))
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 {
		return netip.Addr{}, errors.New("not an address")
	}
	return netip.AddrFrom4([4]byte(b)), nil
}

// reset ends the node's own sockets of the TCP connections: their servers are
// gone. Those of other hosts and network namespaces are answered with a reset
// when they send, since IPVS knows them no more. It counts by destination.
func reset(gone []connection) map[object]uint64 {
	count := map[object]uint64{}
	for _, c := range gone {
		if c.virtual.UDP {
			continue
		}
		// A socket that is not here, or a kernel without it, is no fault.
		if netlink.SocketDestroy(net.TCPAddrFromAddrPort(c.client), net.TCPAddrFromAddrPort(c.virtual.At)) == nil {
			count[object{c.virtual, c.server}]++
		}
	}
	return count
}

// forget removes what connection tracking remembers of UDP connections to the
// destinations, so that the next message finds a new one: a socket that never
// stops sending would keep the old one for ever.
func forget(destinations map[object]bool) (int, error) {
	var families []netlink.InetFamily
	for _, v6 := range []bool{false, true} {
		for d := range destinations {
			if d.at.UDP && d.destination.Addr().Is6() == v6 {
				families = append(families, netlink.InetFamily(family(d.destination.Addr())))
				break
			}
		}
	}
	n := 0
	for _, f := range families {
		removed, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, f, udpFlows(destinations))
		n += int(removed)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return n, fmt.Errorf("forget udp connections: %w", err)
		}
	}
	return n, nil
}

// udpFlows matches the flows to the destinations.
type udpFlows map[object]bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (u udpFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	at := func(ip net.IP, port uint16) netip.AddrPort {
		a, _ := netip.AddrFromSlice(ip)
		return netip.AddrPortFrom(a.Unmap(), port)
	}
	return f.Forward.Protocol == unix.IPPROTO_UDP && u[object{
		virtual{UDP: true, At: at(f.Forward.DstIP, f.Forward.DstPort)},
		at(f.Reverse.SrcIP, f.Reverse.SrcPort),
	}]
}

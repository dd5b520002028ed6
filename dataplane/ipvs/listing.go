package ipvs

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// listingFile lists the services of the thread's network namespace with their
// destinations. It takes the place of a question over netlink for each service.
const listingFile = "/proc/thread-self/net/ip_vs"

// readDestinations fills in the destinations of the services.
func readDestinations(all map[virtual]*service) error {
	f, err := os.Open(listingFile)
	if err != nil {
		return fmt.Errorf("list ipvs destinations: %w", err)
	}
	defer f.Close()
	var current *service // nil while the lines are those of a service that is not wanted
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if at, weight, ok := parseListedDestination(lines.Text()); ok {
			if current != nil {
				current.destinations[at] = weight
			}
		} else {
			v, _ := parseListedService(lines.Text())
			current = all[v]
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("list ipvs destinations: %w", err)
	}
	return nil
}

// parseListedService reads "TCP  C612000A:0050 wrr persistent 600 FFFFFFFF", in
// which an IPv6 address is spelled in brackets.
func parseListedService(line string) (v virtual, ok bool) {
	f := strings.Fields(line)
	if len(f) < 3 || f[0] != "TCP" && f[0] != "UDP" {
		return v, false
	}
	v.UDP = f[0] == "UDP"
	v.At, ok = parseHexAddressPort(f[1])
	return v, ok
}

// parseListedDestination reads "  -> 0A50000B:1F90      Masq    1      0
// 0". A destination that is not reached by NAT has no weight of ours.
func parseListedDestination(line string) (at netip.AddrPort, weight uint32, ok bool) {
	f := strings.Fields(line)
	if len(f) < 4 || f[0] != "->" {
		return at, 0, false
	}
	w, err := strconv.ParseInt(f[3], 10, 32)
	if at, ok = parseHexAddressPort(f[1]); !ok || err != nil {
		return at, 0, false
	}
	if f[2] != "Masq" {
		return at, notOurs, true
	}
	return at, uint32(w), true
}

func parseHexAddressPort(s string) (netip.AddrPort, bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return netip.AddrPort{}, false
	}
	a, err := parseHexAddress(s[:i])
	port, err2 := strconv.ParseUint(s[i+1:], 16, 16)
	return netip.AddrPortFrom(a, uint16(port)), err == nil && err2 == nil
}

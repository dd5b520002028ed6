package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ResolvConf is the resolv.conf of tasks and containers on a node of this
// configuration, with search domains; nil when the node has no proxy at port
// 53.
//
// It has the proxy alone. A second server would be asked in its turn whenever
// the first is slow for a moment, or by musl at the same time as the first, and
// would deny every name of the cluster. What a container asks while the agent
// restarts waits in the sockets, or is asked again after a second: five
// attempts of one second are as much patience as libc's usual five seconds.
//
// ndots:1 has names with a dot asked as they are first, so that one outside
// costs one question, not one for each search domain before.
func ResolvConf(c Config, search []string) []byte {
	if len(c.DNS.Listen) == 0 || c.DNS.Port != 53 {
		return nil
	}
	servers := slices.Clone(c.DNS.Listen)
	// IPv4 first: an image's libc may be too old for the other.
	slices.SortStableFunc(servers, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	var b strings.Builder
	for _, a := range servers[:min(len(servers), 3)] { // libc reads three
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	b.WriteString("options ndots:1 timeout:1 attempts:5\n")
	return []byte(b.String())
}

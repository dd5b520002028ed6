package resolvconf

import (
	"net/netip"
	"slices"
	"strings"
)

// mark is the first line of what we write.
const mark = "# weir-agent manages this file."

const note = mark + ` The node's DNS proxy is asked first; the servers
# after it are asked while it is down. What was here is kept in
# %s; "weir-agent cleanup" puts it back.
`

// maxServers is how many name servers libc looks at.
const maxServers = 3

// conf is what resolv.conf says.
type conf struct {
	servers []netip.Addr
	search  []string
	options []string
	others  []string // other directives, as they are
}

// parse reads resolv.conf as libc does: what it does not know counts for
// nothing, and the last search or domain line wins.
func parse(text []byte) conf {
	var c conf
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if len(fields) < 2 {
				continue
			}
			if a, err := netip.ParseAddr(fields[1]); err == nil && !slices.Contains(c.servers, a.Unmap()) {
				c.servers = append(c.servers, a.Unmap())
			}
		case "search", "domain":
			c.search = fields[1:]
		case "options":
			c.options = append(c.options, fields[1:]...)
		default:
			c.others = append(c.others, strings.Join(fields, " "))
		}
	}
	return c
}

// render writes resolv.conf with own servers before those of the original.
func (c conf) render(w Want, original string) []byte {
	var b strings.Builder
	b.WriteString(strings.ReplaceAll(note, "%s", original))
	servers := []netip.Addr{w.Servers[0]}
	for _, a := range c.servers {
		if len(servers) < maxServers && !slices.Contains(w.Servers, a) {
			servers = append(servers, a)
		}
	}
	for _, a := range servers {
		b.WriteString("nameserver " + a.String() + "\n")
	}
	if len(c.search) > 0 {
		b.WriteString("search " + strings.Join(c.search, " ") + "\n")
	}
	options := c.options
	if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "timeout:") }) {
		// A server that is down refuses at once, but one that hangs would cost
		// 5 s each time.
		options = append(slices.Clone(options), "timeout:1")
	}
	b.WriteString("options " + strings.Join(options, " ") + "\n")
	for _, line := range c.others {
		b.WriteString(line + "\n")
	}
	return []byte(b.String())
}

func isOurs(text []byte) bool { return strings.HasPrefix(string(text), mark) }

// isStub tells whether all servers are systemd-resolved's own addresses.
func isStub(servers []netip.Addr) bool {
	for _, a := range servers {
		if a != netip.AddrFrom4([4]byte{127, 0, 0, 53}) && a != netip.AddrFrom4([4]byte{127, 0, 0, 54}) {
			return false
		}
	}
	return len(servers) > 0
}

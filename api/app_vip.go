package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// AppVIP is a virtual IP that a label of an app's port asks for.
type AppVIP struct {
	// Port is the index of the port among the app's.
	Port int
	// Label that asks for it, such as VIP_0.
	Label string
	VIP   VIP
	// Protocols of the port: tcp, udp or both.
	Protocols []Protocol
}

// VIPs are the virtual IPs that the labels of the app's ports ask for, in the
// order of ports and labels. Labels that are wrong are left out: the error
// joins one *FieldError for each of them.
func (a *App) VIPs() ([]AppVIP, error) {
	var all []AppVIP
	var f faults
	read := func(i int, field string, labels Labels, protocol string) {
		keys := make([]string, 0, len(labels))
		for key := range labels {
			if IsVIPLabel(key) {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		for _, key := range keys {
			vip, err := ParseVIPLabel(labels[key])
			if err != nil {
				f.add(fmt.Sprintf("%s[%d].labels.%s", field, i, key), "%v", err)
				continue
			}
			all = append(all, AppVIP{Port: i, Label: key, VIP: vip, Protocols: portProtocols(protocol)})
		}
	}
	if a.HostNetwork() {
		for i, p := range a.PortDefinitions {
			read(i, "portDefinitions", p.Labels, p.Protocol)
		}
	} else if a.Container != nil {
		for i, m := range a.Container.PortMappings {
			read(i, "container.portMappings", m.Labels, m.Protocol)
		}
	}
	return all, f.err()
}

// IsVIPLabel tells whether a port's label asks for a virtual IP: all that start
// with VIP or vip do, as in DC/OS.
func IsVIPLabel(key string) bool {
	return strings.HasPrefix(key, "VIP") || strings.HasPrefix(key, "vip")
}

// ParseVIPLabel reads what a label asks for: ADDRESS:PORT, where an IPv6 address
// may be in brackets or not, or [/]NAME:PORT.
func ParseVIPLabel(value string) (VIP, error) {
	at := strings.LastIndexByte(value, ':')
	if at < 0 {
		return VIP{}, fmt.Errorf("%q has no port: write name:port or address:port", value)
	}
	host, text := value[:at], value[at+1:]
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return VIP{}, fmt.Errorf("%q: port %q must be 1 to 65535", value, text)
	}
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")); err == nil {
		return VIP{Addr: addr, Port: uint16(port)}, nil
	}
	name := VIPName(host)
	if name == "" {
		return VIP{}, fmt.Errorf("%q has no name: write name:port or address:port", value)
	}
	return VIP{Name: name, Port: uint16(port)}, nil
}

// VIPName is a label's name as it stands in DNS: the rules of DC/OS, which take
// away what is no letter, digit or hyphen ("/a/b" and "/ab" are one name, which
// the controller does not let two apps have).
func VIPName(host string) string {
	var b strings.Builder
	for _, c := range []byte(strings.ToLower(host)) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' {
			b.WriteByte(c)
		}
	}
	name := strings.TrimLeft(b.String(), "-")
	if len(name) > 63 {
		// What is cut off in the middle of hyphens is filled up with what follows.
		head, rest := strings.TrimRight(name[:63], "-"), strings.TrimLeft(name[63:], "-")
		name = head + rest[:min(63-len(head), len(rest))]
	}
	return strings.TrimRight(name, "-")
}

func portProtocols(text string) []Protocol {
	var all []Protocol
	for p := range strings.SplitSeq(text, ",") {
		switch strings.ToLower(strings.TrimSpace(p)) {
		case "udp":
			all = append(all, UDP)
		case "tcp", "":
			all = append(all, TCP)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

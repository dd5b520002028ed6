package dnsproxy

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/weirproject/weir/api"
)

// wireName turns labels joined by dots, with or without the last dot, into the
// form that names have in messages and in the table: lower case, each label
// after its length. "\x03web\x04shop\x00".
func wireName(parts ...string) (string, error) {
	whole := strings.ToLower(strings.Trim(strings.Join(parts, "."), "."))
	var b strings.Builder
	for label := range strings.SplitSeq(whole, ".") {
		if label == "" || len(label) > maxLabel {
			return "", fmt.Errorf("name %s: the label %q is not of 1 to %d characters", whole, label, maxLabel)
		}
		b.WriteByte(byte(len(label)))
		b.WriteString(label)
	}
	b.WriteByte(0)
	if b.Len() > maxName {
		return "", fmt.Errorf("name %s is longer than the %d characters that DNS allows", whole, maxName-2)
	}
	return b.String(), nil
}

// parent cuts the first label off a wire name.
func parent(name string) string { return name[1+int(name[0]):] }

// readable is a wire name as people write it, without the last dot.
func readable(name string) string {
	var labels []string
	for name != "" && name[0] != 0 {
		labels = append(labels, name[1:1+int(name[0])])
		name = parent(name)
	}
	return strings.Join(labels, ".")
}

// reverseName is the name whose PTR record names the address (RFC 1035, 3.5;
// RFC 3596, 2.5).
func reverseName(a netip.Addr) string {
	var b strings.Builder
	raw := a.AsSlice()
	for i := len(raw) - 1; i >= 0; i-- {
		if a.Is4() {
			fmt.Fprintf(&b, "%d.", raw[i])
		} else {
			fmt.Fprintf(&b, "%x.%x.", raw[i]&0xF, raw[i]>>4)
		}
	}
	if a.Is4() {
		return b.String() + "in-addr.arpa"
	}
	return b.String() + "ip6.arpa"
}

// addressLabel is a label that stands for one address: 10-80-0-11. IPv6 is
// written in full, since "::" could leave a hyphen at the label's end.
func addressLabel(a netip.Addr) string {
	if a.Is4() {
		return strings.ReplaceAll(a.String(), ".", "-")
	}
	return strings.ReplaceAll(a.StringExpanded(), ":", "-")
}

// serviceLabels is where the SRV records of a name stand: _web._tcp for web,
// and _web._tcp.eu for web.eu.
func serviceLabels(name string, p api.Protocol) string {
	first, rest, _ := strings.Cut(name, ".")
	labels := "_" + first + "._" + string(p)
	if rest != "" {
		labels += "." + rest
	}
	return labels
}

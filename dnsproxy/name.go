package dnsproxy

import (
	"fmt"
	"net/netip"
	"strconv"
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

// wireBelow puts labels joined by dots before a domain that is on the wire.
func wireBelow(domain string, parts ...string) (string, error) {
	b := make([]byte, 0, 128)
	for _, part := range parts {
		for label := range strings.SplitSeq(strings.Trim(part, "."), ".") {
			if label == "" || len(label) > maxLabel {
				return "", fmt.Errorf("name %s: the label %q is not of 1 to %d characters", strings.Join(parts, "."), label, maxLabel)
			}
			b = append(b, byte(len(label)))
			for i := range len(label) {
				b = append(b, lower(label[i]))
			}
		}
	}
	if len(b)+len(domain) > maxName {
		return "", fmt.Errorf("name %s.%s is longer than the %d characters that DNS allows", strings.Join(parts, "."), readable(domain), maxName-2)
	}
	return string(append(b, domain...)), nil
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
// RFC 3596, 2.5), on the wire.
func reverseName(a netip.Addr) string {
	b := make([]byte, 0, 80)
	raw := a.AsSlice()
	for i := len(raw) - 1; i >= 0; i-- {
		if a.Is4() {
			at := len(b)
			b = strconv.AppendUint(append(b, 0), uint64(raw[i]), 10)
			b[at] = byte(len(b) - at - 1)
		} else {
			const digits = "0123456789abcdef"
			b = append(b, 1, digits[raw[i]&0xF], 1, digits[raw[i]>>4])
		}
	}
	if a.Is4() {
		return string(append(b, "\x07in-addr\x04arpa\x00"...))
	}
	return string(append(b, "\x03ip6\x04arpa\x00"...))
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
	labels := serviceLabel(first) + "._" + string(p)
	if rest != "" {
		labels += "." + rest
	}
	return labels
}

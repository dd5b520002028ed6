package api

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// PortRange is a protocol with its ports: tcp/80, udp/8000-8100, icmp or any.
// ICMP covers ICMPv6 too.
type PortRange struct {
	Protocol    string // tcp, udp, icmp, or any
	First, Last uint16 // both zero: every port
}

// ParsePortRange reads "tcp/80", "tcp/8000-8100", "tcp", "udp/53", "icmp", "any".
func ParsePortRange(s string) (PortRange, error) {
	proto, ports, hasPorts := strings.Cut(s, "/")
	bad := fmt.Errorf(`%q is not one of "tcp/80", "tcp/8000-8100", "udp/53", "tcp", "udp", "icmp", "any"`, s)
	switch proto {
	case "tcp", "udp":
	case "icmp", "any":
		if hasPorts {
			return PortRange{}, bad
		}
	default:
		return PortRange{}, bad
	}
	r := PortRange{Protocol: proto}
	if !hasPorts {
		return r, nil
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || a == 0 || b < a {
		return PortRange{}, bad
	}
	r.First, r.Last = uint16(a), uint16(b)
	return r, nil
}

func (r PortRange) String() string {
	switch {
	case r.First == 0 && r.Last == 0:
		return r.Protocol
	case r.First == r.Last:
		return fmt.Sprintf("%s/%d", r.Protocol, r.First)
	default:
		return fmt.Sprintf("%s/%d-%d", r.Protocol, r.First, r.Last)
	}
}

// MarshalText implements encoding.TextMarshaler.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *PortRange) UnmarshalText(b []byte) (err error) {
	*r, err = ParsePortRange(string(b))
	return err
}

// Traffic is what a rule allows: ports, or a service by name, which stands for
// the addresses and ports of its backends and its virtual addresses.
type Traffic struct {
	PortRange
	Service string // name.namespace; then there is no PortRange
}

// ParseTraffic reads what ParsePortRange does, and "web.shop".
func ParseTraffic(s string) (Traffic, error) {
	r, err := ParsePortRange(s)
	if err == nil {
		return Traffic{PortRange: r}, nil
	}
	if IsServiceName(s) {
		return Traffic{Service: s}, nil
	}
	if strings.Contains(s, "/") {
		return Traffic{}, err
	}
	return Traffic{}, fmt.Errorf(`%w, nor a service such as "web.shop"`, err)
}

func (t Traffic) String() string {
	if t.Service != "" {
		return t.Service
	}
	return t.PortRange.String()
}

// MarshalText implements encoding.TextMarshaler.
func (t Traffic) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Traffic) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTraffic(string(b))
	return err
}

// IsServiceName tells whether s has the form of a service's key:
// name.namespace, of DNS labels that are not all numbers.
func IsServiceName(s string) bool {
	if !strings.Contains(s, ".") {
		return false
	}
	numbers := true // as in an address that is mistyped
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return false
		}
		numbers = numbers && strings.Trim(label, "0123456789") == ""
	}
	return !numbers
}

// Network is an address prefix, written as "203.0.113.0/24" or, for one
// address, as "203.0.113.7".
type Network struct{ netip.Prefix }

// ParseNetwork reads an address or a prefix without host bits.
func ParseNetwork(s string) (Network, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return Network{netip.PrefixFrom(a, a.BitLen())}, nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return Network{}, fmt.Errorf(`%q is neither an address nor a network such as "203.0.113.0/24"`, s)
	case p != p.Masked():
		return Network{}, fmt.Errorf("%s has host bits set; did you mean %s?", p, p.Masked())
	}
	return Network{p}, nil
}

func (n Network) String() string {
	if n.IsSingleIP() {
		return n.Addr().String()
	}
	return n.Prefix.String()
}

// MarshalText implements encoding.TextMarshaler.
func (n Network) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *Network) UnmarshalText(b []byte) (err error) {
	*n, err = ParseNetwork(string(b))
	return err
}

// Time is a moment, written as in RFC 3339, such as "2027-01-31T18:00:00Z".
type Time struct{ time.Time }

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.Format(time.RFC3339)), nil }

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(strconv.Quote(t.Format(time.RFC3339))), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Time) UnmarshalText(b []byte) error {
	v, err := time.Parse(time.RFC3339, string(b))
	if err != nil {
		return fmt.Errorf(`%q is not a time such as "2027-01-31T18:00:00Z" or "2027-01-31T18:00:00+01:00"`, b)
	}
	t.Time = v.UTC()
	return nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Time) UnmarshalJSON(b []byte) error {
	s, err := strconv.Unquote(string(b))
	if err != nil {
		return fmt.Errorf("%s is not a time in quotes", b)
	}
	return t.UnmarshalText([]byte(s))
}

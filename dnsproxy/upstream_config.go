package dnsproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// Protocol that an upstream is asked over.
type Protocol string

// Protocols.
const (
	UDP   Protocol = "udp"   // and TCP for what does not fit
	TCP   Protocol = "tcp"   // one connection, many questions (RFC 7766)
	TLS   Protocol = "tls"   // RFC 7858
	HTTPS Protocol = "https" // RFC 8484, over HTTP/2
)

// Upstream is a server that questions are forwarded to. It has an address, not a
// name, since a name would have to be asked for first.
type Upstream struct {
	Protocol Protocol
	Address  netip.AddrPort
	// ServerName is the name that the certificate must be for (TLS, HTTPS);
	// "": the address.
	ServerName string
	// Path of the resource (HTTPS); /dns-query when empty.
	Path string
}

// ParseUpstream reads an upstream as people write it: 10.0.0.53,
// 10.0.0.53:5353, tcp://10.0.0.53, tls://9.9.9.9#dns.quad9.net or
// https://9.9.9.9/dns-query#dns.quad9.net. The name behind # is the
// certificate's. Ports are 53, 853 and 443 where none is given.
func ParseUpstream(text string) (Upstream, error) {
	fault := func(format string, args ...any) (Upstream, error) {
		return Upstream{}, fmt.Errorf("read upstream %q: %w", text, fmt.Errorf(format, args...))
	}
	u := Upstream{Protocol: UDP}
	host, port := text, uint16(53)
	if strings.Contains(text, "://") {
		parsed, err := url.Parse(text)
		if err != nil {
			return fault("%w", err)
		}
		u.Protocol, host, u.ServerName, u.Path = Protocol(parsed.Scheme), parsed.Host, parsed.Fragment, parsed.Path
		if parsed.RawQuery != "" || parsed.User != nil {
			return fault("it has more than protocol, address, path and name")
		}
	}
	switch u.Protocol {
	case UDP, TCP:
	case TLS:
		port = 853
	case HTTPS:
		port = 443
	default:
		return fault("the protocol is none of udp, tcp, tls, https")
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		u.Address = netip.AddrPortFrom(a, port)
	} else if u.Address, err = netip.ParseAddrPort(host); err != nil {
		return fault("%q is neither an address nor address:port", host)
	}
	if err := u.Validate(); err != nil {
		return fault("%w", err)
	}
	return u, nil
}

// String is the form that ParseUpstream reads.
func (u Upstream) String() string {
	if u.Protocol == UDP || u.Protocol == "" {
		return u.Address.String()
	}
	s := string(u.Protocol) + "://" + u.Address.String() + u.Path
	if u.ServerName != "" {
		s += "#" + u.ServerName
	}
	return s
}

// Validate says what cannot be.
func (u Upstream) Validate() error {
	switch {
	case !u.Address.Addr().IsValid() || u.Address.Addr().IsUnspecified() || u.Address.Port() == 0:
		return fmt.Errorf("%s is not the address of a server", u.Address)
	case u.Path != "" && u.Protocol != HTTPS:
		return errors.New("only an https upstream has a path")
	case u.ServerName != "" && u.Protocol != TLS && u.Protocol != HTTPS:
		return errors.New("only a tls or https upstream has a certificate's name")
	}
	switch u.Protocol {
	case "", UDP, TCP, TLS, HTTPS:
		return nil
	}
	return fmt.Errorf("the protocol %q is none of udp, tcp, tls, https", u.Protocol)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (u *Upstream) UnmarshalText(text []byte) (err error) {
	*u, err = ParseUpstream(string(text))
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (u Upstream) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

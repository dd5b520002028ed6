package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/weirproject/weir/api"
)

// userAgent is how checks name themselves.
const userAgent = "weir-health"

// probeFunc makes one check; nil means that it passed. What does not change
// from check to check was made ready before.
type probeFunc func(context.Context) error

// prober makes the probes of targets.
type prober struct {
	roots   *x509.CertPool // that sign certificates; nil: the system's
	tunnels *tunnels
}

// probe returns the check of a target, whose defaults are filled in. Every check
// opens a connection of its own, since that is what a new client will do, and
// goes to the backend itself whatever proxies the environment names.
func (p *prober) probe(t Target) probeFunc {
	switch c := t.Check; {
	case c.HTTP != nil:
		return newHTTPProbe(*c.HTTP, t.Backend, nil)
	case c.HTTPS != nil:
		return newHTTPProbe(c.HTTPS.HTTPCheck, t.Backend, tlsConfig(*c.HTTPS, t.Backend, p.roots, "http/1.1"))
	case c.GRPC != nil:
		return newGRPCProbe(*c.GRPC, t.Backend)
	case c.TCP != nil && c.TCP.Tunnel && t.Tunnel != nil:
		return newTunnelProbe(p.tunnels, *t.Tunnel, t.Backend)
	case c.TCP != nil:
		address := withPort(t.Backend, c.TCP.Port)
		return func(ctx context.Context) error { return probeTCP(ctx, address) }
	default:
		return newExecProbe(c.Exec.Command, t.Backend)
	}
}

// within runs a probe with a time-out.
func within(ctx context.Context, timeout time.Duration, probe probeFunc) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := probe(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", timeout)
	}
	return err
}

func withPort(backend netip.AddrPort, port uint16) netip.AddrPort {
	if port == 0 {
		port = backend.Port()
	}
	return netip.AddrPortFrom(backend.Addr().Unmap(), port)
}

// dial opens a connection that Close resets, so that it leaves no TIME_WAIT
// behind, neither on this node nor, when the server closes first, on its.
func dial(ctx context.Context, address netip.AddrPort) (*net.TCPConn, error) {
	// Keep-alive probes would cost four system calls on a connection that is
	// gone before the first.
	d := net.Dialer{KeepAlive: -1}
	conn, err := d.DialTCP(ctx, "tcp", netip.AddrPort{}, address)
	if err != nil {
		return nil, err
	}
	_ = conn.SetLinger(0)
	return conn, nil
}

// open dials and shakes hands when there is a config. Reads and writes fail when
// ctx ends; done closes the connection.
func open(ctx context.Context, address netip.AddrPort, config *tls.Config) (conn net.Conn, done func(), err error) {
	tcp, err := dial(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = tcp.SetDeadline(time.Unix(1, 0)) })
	done = func() { stop(); tcp.Close() }
	if config == nil {
		return tcp, done, nil
	}
	secure := tls.Client(tcp, config)
	if err := secure.Handshake(); err != nil {
		done()
		return nil, nil, fmt.Errorf("shake hands over tls: %w", err)
	}
	return secure, done, nil
}

// curves leave out the post-quantum key exchanges, which cost several times the
// processor time: a check has nothing to hide.
var curves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}

// tlsConfig has the name of the check's host, or else the backend's address,
// which is no SNI (RFC 6066 section 3) but is what a certificate is checked for.
func tlsConfig(check api.HTTPSCheck, backend netip.AddrPort, roots *x509.CertPool, protocol string) *tls.Config {
	name := check.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	if name == "" {
		name = backend.Addr().Unmap().String()
	}
	return &tls.Config{
		ServerName: name, InsecureSkipVerify: !check.Verify, RootCAs: roots,
		NextProtos: []string{protocol}, CurvePreferences: curves,
	}
}

func probeTCP(ctx context.Context, address netip.AddrPort) error {
	conn, err := dial(ctx, address)
	if err != nil {
		return err
	}
	return conn.Close()
}

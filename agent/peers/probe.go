package peers

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// Result of a probe.
type Result int

// The results of a probe.
const (
	Unsure  Result = iota // this node could not try, or had no time to look
	Silent                // nobody answers
	Reached               // something answers
)

// ProbeFunc tries for so long whether a node answers at an address.
type ProbeFunc func(ctx context.Context, to netip.Addr, within time.Duration) Result

// kernelProbe asks for a connection to a port where nobody listens: the other
// kernel refuses it at once, however busy its processors are and whether or
// not its agent runs.
func kernelProbe(port uint16) ProbeFunc {
	return func(ctx context.Context, to netip.Addr, within time.Duration) Result {
		began := time.Now()
		dialer := net.Dialer{Timeout: within, KeepAlive: -1}
		conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(to, port).String())
		switch {
		case err == nil:
			conn.Close()
			return Reached
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
			return Reached
		case ctx.Err() != nil || time.Since(began) > within+lateness:
			return Unsure // an answer may have waited for us
		case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, os.ErrDeadlineExceeded):
			return Silent
		}
		var timed net.Error
		if errors.As(err, &timed) && timed.Timeout() {
			return Silent
		}
		return Unsure
	}
}

// probeMember asks the member's kernel.
func (d *Detector) probeMember(ctx context.Context, m *member, to netip.Addr) {
	began := time.Now()
	result := d.probe(ctx, to, probeWithin)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	d.mu.Lock()
	m.probing = false
	if d.members[m.name] == m {
		switch result {
		case Reached:
			m.evidence = now
			d.present(m, now)
		case Silent:
			m.refused = began
		}
	}
	d.release(nil)
}

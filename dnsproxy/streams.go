package dnsproxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Bounds of a connection to an upstream.
const (
	dialTime      = 3 * time.Second
	streamIdle    = 10 * time.Second // RFC 7766, 6.2.3
	streamSilence = 5 * time.Second  // with questions that wait: the peer has gone
	streamQueue   = 256              // questions not written yet
	streamWaiting = 4096             // questions without a reply
)

// streams is the connection to one upstream over TCP, or TLS with a config. All
// questions share it; replies come in any order (RFC 7766, 6.2.1.1).
type streams struct {
	address netip.AddrPort
	config  *tls.Config
	guard   func(what string)

	mu     sync.Mutex // guards what follows
	live   *stream
	closed bool
}

func newStreams(u Upstream, config *tls.Config, guard func(string)) *streams {
	return &streams{address: u.Address, config: config, guard: guard}
}

// send implements way. The connection is made, and written to, by goroutines of
// its own.
func (s *streams) send(c *call, packet []byte) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	l := s.live
	if l == nil || !l.usable() {
		l = s.dial()
		s.live = l
	}
	s.mu.Unlock()
	frame, err := l.enter(c, packet)
	if err != nil {
		return err
	}
	select {
	case l.frames <- frame:
		return nil
	default:
		l.leave(c.id, c)
		return fmt.Errorf("send to %s: %d questions wait to be sent", s.address, streamQueue)
	}
}

// dial starts a connection.
func (s *streams) dial() *stream {
	l := &stream{owner: s, frames: make(chan []byte, streamQueue), waiting: map[uint16]*call{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	go func() {
		defer l.end(errGone)
		defer s.guard("talking to an upstream")
		l.end(l.run())
	}()
	return l
}

func (s *streams) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.address.String())
	if err == nil && s.config != nil {
		secure := tls.Client(conn, s.config)
		if err = secure.HandshakeContext(ctx); err != nil {
			conn.Close()
		}
		conn = secure
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.address, err)
	}
	return conn, nil
}

// cancel implements way.
func (s *streams) cancel(c *call) {
	if c.stream != nil {
		c.stream.leave(c.id, c)
	}
}

// close implements way.
func (s *streams) close() {
	s.mu.Lock()
	s.closed = true
	l := s.live
	s.mu.Unlock()
	if l != nil {
		l.cancel()
	}
}

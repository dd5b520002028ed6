package balancertest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// patience is how long a client waits: longer than anything takes, also in a
// VM, since no promise is about so long a time.
const patience = 10 * time.Second

// conn is a client's connection, or its connected UDP socket.
type conn struct{ net.Conn }

// dial connects a client of the node.
func (s *suite) dial(network, target string) (*conn, error) {
	c, err := (&net.Dialer{Timeout: patience}).Dial(network, target)
	if err != nil {
		return nil, err
	}
	s.Cleanup(func() { c.Close() })
	return &conn{c}, nil
}

// dialFrom connects a client of another host.
func (s *suite) dialFrom(host netns.NsHandle, network, target string) (c *conn, err error) {
	s.network.on(s.T, host, func() error { c, err = s.dial(network, target); return nil })
	return c, err
}

// ask sends a message and gives what the server says: its address, and the
// client's as it sees it.
func (c *conn) ask() (server, client string, err error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", "", err
	}
	if _, err := c.Write([]byte("?")); err != nil {
		return "", "", err
	}
	buffer := make([]byte, 200)
	n, err := c.Read(buffer)
	if err != nil {
		return "", "", err
	}
	server, client, _ = strings.Cut(string(buffer[:n]), " ")
	return server, client, nil
}

// mustDial is a new connection that works, and the server that it has.
func (s *suite) mustDial(network, target string) (c *conn, server string) {
	s.Helper()
	c, err := s.dial(network, target)
	if err != nil {
		s.Fatalf("%s to %s: %v", network, target, err)
	}
	server, _, err = c.ask()
	if err != nil {
		s.Fatalf("%s to %s: %v", network, target, err)
	}
	return c, server
}

// servers makes new connections and counts them by server.
func (s *suite) servers(network, target string, count int) map[string]int {
	s.Helper()
	all := map[string]int{}
	for range count {
		c, server := s.mustDial(network, target)
		all[server]++
		c.Close()
	}
	return all
}

// refused tells whether a new connection is refused, and for TCP whether that
// was at once: the first SYN was answered in a way that ended the connect.
func (s *suite) refused(host netns.NsHandle, network, target string) error {
	retransmits := 0
	d := net.Dialer{Timeout: patience}
	kept := -1
	d.Control = func(_, _ string, c syscall.RawConn) error { // to ask the socket after its failure
		var err error
		return errors.Join(c.Control(func(fd uintptr) { kept, err = unix.Dup(int(fd)) }), err)
	}
	var c net.Conn
	var err error
	s.network.on(s.T, host, func() error { c, err = d.Dial(network, target); return nil })
	defer func() { unix.Close(kept) }()
	if err == nil && network == "udp" {
		_, _, err = (&conn{c}).ask()
	}
	if err == nil {
		peer := "a server"
		if server, _, err := (&conn{c}).ask(); err == nil {
			peer = server
		}
		c.Close()
		return fmt.Errorf("%s to %s reached %s", network, target, peer)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%s to %s was not refused: %w", network, target, err)
	}
	if network == "tcp" {
		if info, err := unix.GetsockoptTCPInfo(kept, unix.SOL_TCP, unix.TCP_INFO); err == nil {
			retransmits = int(info.Total_retrans)
		}
	}
	if retransmits > 0 {
		return fmt.Errorf("%s to %s was refused after %d retransmissions", network, target, retransmits)
	}
	return nil
}

func (s *suite) mustBeRefused(network, target string) {
	s.Helper()
	if err := s.refused(s.network.here, network, target); err != nil {
		s.Error(err)
	}
}

// eventually waits for what takes a moment to come true.
func (s *suite) eventually(what string, true func() bool) {
	s.Helper()
	for end := time.Now().Add(patience); !true(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("%s: not in %s", what, patience)
		}
	}
}

// isReset tells whether the error is one that ends a connection at once.
func isReset(err error) bool {
	return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNREFUSED)
}

// timedOut tells whether nothing was heard.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func addressOf(s string) string {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return s
	}
	return a.Addr().String()
}

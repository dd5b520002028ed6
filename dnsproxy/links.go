package dnsproxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the sockets to one upstream. Each has a port that the kernel drew,
// and lives too short for anybody to find out which. A question takes one of
// them at random; with few questions each has a socket of its own.
const (
	maxLinks    = 16
	linkLife    = 10 * time.Second
	linkQueries = 1000
	linkRun     = 32   // questions in a row on one, about, when many wait, so that their replies are read together
	linkWaiting = 1024 // questions without a reply on one socket
	lastReplies = 5 * time.Second
	replyBatch  = 32
	replyRoom   = 4096
	idAttempts  = 8
)

// links are the UDP sockets to one upstream.
type links struct {
	address netip.AddrPort
	forged  *atomic.Uint64
	unsent  *atomic.Uint64
	guard   func(what string)
	// answers are held while a batch of replies is read; questions gathers what
	// is sent.
	answers, questions *outboxes
	rooms              sync.Pool // of replies

	mu     sync.Mutex // guards slots, closed
	slots  [maxLinks]*link
	now    int // the slot in use, for a few questions
	left   int // of them
	closed bool
}

func newLinks(address netip.AddrPort, up *upstream, f *forwarder) *links {
	return &links{address: address, forged: &up.forged, unsent: &up.unsent, guard: f.guard, answers: f.answers, questions: f.questions, rooms: sync.Pool{New: newReplies}}
}

// send implements way. It never blocks.
func (s *links) send(c *call, packet []byte) error {
	for range 3 {
		l, err := s.pick()
		if err != nil {
			return err
		}
		err = l.enter(c, packet)
		if errors.Is(err, errRetired) {
			continue // just now
		}
		if err == nil {
			l.box.put(letter{packet: packet})
		}
		return err
	}
	return errRetired
}

var errRetired = errors.New("the socket has ended")

// pick gives the socket of a random slot, a new one where the old one's time is
// over.
func (s *links) pick() (*link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if s.left--; s.left < 0 {
		s.now = rand.IntN(maxLinks)
		s.left = rand.IntN(2 * min(linkRun, 1+s.slots[s.now].load()/2))
	}
	slot := &s.slots[s.now]
	if l := *slot; l != nil && l.usable() {
		return l, nil
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.address))
	if err != nil {
		return nil, fmt.Errorf("open a socket to %s: %w", s.address, err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("reach a socket to %s: %w", s.address, err)
	}
	l := &link{conn: conn, raw: raw, forged: s.forged, born: time.Now(), waiting: map[uint16]*call{}}
	l.box = outbox{all: s.questions, raw: raw, unsent: s.unsent}
	conn.SetReadDeadline(l.born.Add(linkLife + lastReplies))
	*slot = l
	go func() {
		defer l.end(errGone)
		defer s.guard("reading an upstream's replies")
		l.read(s.answers, &s.rooms)
	}()
	return l, nil
}

// cancel implements way. The call sends nothing more by now.
func (s *links) cancel(c *call) {
	if c.link != nil {
		c.link.leave(c.id, c)
	}
}

// close implements way.
func (s *links) close() {
	s.mu.Lock()
	slots := s.slots
	s.closed = true
	s.mu.Unlock()
	for _, l := range slots {
		if l != nil {
			l.conn.Close() // its reader tells those that wait
		}
	}
}

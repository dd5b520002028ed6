package dnsproxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// link is one connected socket: the kernel drops what comes from elsewhere.
type link struct {
	conn   *net.UDPConn
	raw    syscall.RawConn
	forged *atomic.Uint64
	box    outbox
	born   time.Time

	mu      sync.Mutex // guards what follows
	waiting map[uint16]*call
	sent    int
	retired bool // it takes no more questions
}

// usable tells whether the socket takes another question. Otherwise it is
// retired: its reader closes it when no reply is missing, or at its deadline.
func (l *link) usable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.retired && l.sent < linkQueries && len(l.waiting) < linkWaiting && time.Since(l.born) < linkLife {
		return true
	}
	l.retired = true
	if len(l.waiting) == 0 {
		l.conn.Close()
	}
	return false
}

// load is how many questions wait on it; none on a nil one.
func (l *link) load() int {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

// enter notes the call under its packet's id, which it redraws if it is taken.
func (l *link) enter(c *call, packet []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.retired {
		return errRetired
	}
	for range idAttempts {
		id := uint16(packet[0])<<8 | uint16(packet[1])
		if _, taken := l.waiting[id]; !taken {
			l.waiting[id], c.link, c.id = c, l, id
			l.sent++
			return nil
		}
		id = uint16(rand.Uint32())
		packet[0], packet[1] = byte(id>>8), byte(id)
	}
	return errors.New("draw an id: all are taken")
}

// replies is room for a batch. Sockets borrow it while they read one, since most
// wait most of the time.
type replies struct {
	room   [replyBatch][replyRoom]byte
	vector [replyBatch]unix.Iovec
	in     [replyBatch]message
}

func newReplies() any {
	r := new(replies)
	for i := range r.in {
		r.vector[i].Base = &r.room[i][0]
		r.vector[i].SetLen(replyRoom)
		r.in[i].header.Iov = &r.vector[i]
		r.in[i].header.SetIovlen(1)
	}
	return r
}

// read takes the replies, all that are there by one system call.
func (l *link) read(answers *outboxes, rooms *sync.Pool) {
	var done bool
	var failure error
	receive := func(fd uintptr) bool {
		r := rooms.Get().(*replies)
		defer rooms.Put(r)
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.in[0])), replyBatch, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
		case unix.EAGAIN, unix.EINTR:
			return errno == unix.EINTR
		default:
			failure = errno
			return true
		}
		answers.hold()
		defer answers.release()
		for i := range int(n) {
			done = l.take(r.room[i][:r.in[i].length]) || done
		}
		return done || n == replyBatch // else wait: the poller wakes us if more has come
	}
	for !done {
		err := l.raw.Read(receive)
		if failure != nil {
			err = failure
		}
		if err != nil {
			l.end(fmt.Errorf("wait for %s: %w", l.conn.RemoteAddr(), err))
			return
		}
	}
	l.end(errGone)
}

// take hands a reply to its call, and tells whether the socket is done.
func (l *link) take(reply []byte) (done bool) {
	if len(reply) < headerSize {
		l.forged.Add(1)
		return false
	}
	id := uint16(reply[0])<<8 | uint16(reply[1])
	l.mu.Lock()
	c := l.waiting[id]
	l.mu.Unlock()
	if c == nil {
		l.forged.Add(1)
		return false
	}
	if !c.deliver(reply, nil) {
		return false // a forgery or a late reply: the true one may still come
	}
	return l.leave(id, c)
}

// leave forgets an answered call, and tells whether the socket is done.
func (l *link) leave(id uint16, c *call) (done bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[id] == c {
		delete(l.waiting, id)
	}
	return l.retired && len(l.waiting) == 0
}

// end closes the socket and tells those that still wait. An ICMP "port
// unreachable" is such an end, so that the next server is asked at once.
func (l *link) end(err error) {
	l.conn.Close()
	l.mu.Lock()
	waiting := l.waiting
	l.waiting, l.retired = map[uint16]*call{}, true
	l.mu.Unlock()
	for _, c := range waiting {
		c.deliver(nil, err)
	}
}

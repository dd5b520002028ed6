package dnsproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// stream is one connection. run owns it.
type stream struct {
	owner  *streams
	frames chan []byte
	ctx    context.Context
	cancel context.CancelFunc

	mu        sync.Mutex // guards what follows
	waiting   map[uint16]*call
	expecting bool // questions were written that no reply has come to since
	used      bool // a reply has come: its end may be the server's idle limit
	ended     bool
}

func (l *stream) usable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.ended && len(l.waiting) < streamWaiting
}

// enter notes the call and gives its packet as a frame, with an id that is free.
func (l *stream) enter(c *call, packet []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, fmt.Errorf("send to %s: the connection has just ended", l.owner.address)
	}
	id := uint16(packet[0])<<8 | uint16(packet[1])
	for l.waiting[id] != nil { // at most streamWaiting of 65,536 are taken
		id = uint16(rand.Uint32())
	}
	packet[0], packet[1] = byte(id>>8), byte(id)
	l.waiting[id], c.stream, c.id = c, l, id
	frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(packet)), uint16(len(packet)))
	return append(frame, packet...), nil
}

func (l *stream) leave(id uint16, c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[id] == c {
		delete(l.waiting, id)
	}
}

// run dials, writes and reads until the connection ends or idles.
func (l *stream) run() error {
	conn, err := l.owner.connect(l.ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(l.ctx, func() { conn.Close() })
	defer stop()
	go func() {
		defer l.cancel()
		defer l.owner.guard("writing to an upstream")
		l.write(conn)
	}()
	return l.read(conn)
}

// write sends the frames, as many by one write as there are.
func (l *stream) write(conn net.Conn) {
	var data []byte
	for {
		select {
		case <-l.ctx.Done():
			return
		case frame := <-l.frames:
			data = append(data[:0], frame...)
		}
		for more := true; more && len(data) < 16<<10; {
			select {
			case frame := <-l.frames:
				data = append(data, frame...)
			default:
				more = false
			}
		}
		conn.SetWriteDeadline(time.Now().Add(streamSilence))
		l.expect(conn)
		if _, err := conn.Write(data); err != nil {
			return
		}
	}
}

func (l *stream) read(conn net.Conn) error {
	var size [2]byte
	var room []byte
	for {
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return fmt.Errorf("wait for %s: %w", l.owner.address, err)
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n < headerSize {
			return fmt.Errorf("wait for %s: a frame of %d bytes is no reply", l.owner.address, n)
		}
		if n > len(room) {
			room = make([]byte, max(n, 2048))
		}
		if _, err := io.ReadFull(conn, room[:n]); err != nil {
			return fmt.Errorf("wait for %s: %w", l.owner.address, err)
		}
		id := binary.BigEndian.Uint16(room)
		l.mu.Lock()
		c := l.waiting[id]
		l.used = true
		l.mu.Unlock()
		if c != nil {
			if !c.deliver(room[:n], nil) {
				return errNoMatch // the stream carries what nobody asked
			}
			l.leave(id, c)
		}
		l.heard(conn)
	}
}

// expect starts the time in which a reply must come. Only replies prolong it, so
// that a peer which has vanished is noticed however much is sent to it.
func (l *stream) expect(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.expecting {
		l.expecting = true
		conn.SetReadDeadline(time.Now().Add(streamSilence))
	}
}

func (l *stream) heard(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expecting = len(l.waiting) > 0
	wait := streamIdle
	if l.expecting {
		wait = streamSilence
	}
	conn.SetReadDeadline(time.Now().Add(wait))
}

var errNoMatch = errors.New("the reply's question is not ours")

// end closes the connection. What still waits on one that has served before is
// asked once more, on a new one: the server may have closed it while the
// question was under way.
func (l *stream) end(err error) {
	l.cancel()
	l.mu.Lock()
	waiting, used, before := l.waiting, l.used, l.ended
	l.waiting, l.ended = map[uint16]*call{}, true
	l.mu.Unlock()
	if before {
		return
	}
	l.owner.mu.Lock()
	if l.owner.live == l {
		l.owner.live = nil
	}
	l.owner.mu.Unlock()
	for _, c := range waiting {
		if !used || !c.resend() {
			c.deliver(nil, err)
		}
	}
}

// resend sends the call's packet again, and tells whether that is done.
func (c *call) resend() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.retries >= maxRetries {
		return false
	}
	c.retries++
	return c.way.send(c, c.packet) == nil
}

package dnsproxy

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// outboxes gather packets that belong to one batch of others, so that they leave
// by one system call: the answers that an upstream's replies bring, and the
// questions that clients' packets raise. Whoever reads a batch holds them
// meanwhile; what comes while nobody does leaves at once.
type outboxes struct {
	holders atomic.Int32

	mu   sync.Mutex // guards full
	full []*outbox  // those that have something to send
}

// hold keeps packets back until release.
func (o *outboxes) hold() { o.holders.Add(1) }

// release sends what has gathered. A packet that was put while somebody held is
// sent by that one at the latest, since it looks only after it has let go.
func (o *outboxes) release() {
	o.holders.Add(-1)
	o.mu.Lock()
	full := o.full
	o.full = nil
	o.mu.Unlock()
	for _, box := range full {
		box.flush()
	}
}

// outbox is the part of one socket.
type outbox struct {
	all    *outboxes
	raw    syscall.RawConn
	unsent *atomic.Uint64

	mu      sync.Mutex // guards what follows; held over system calls that do not block
	waiting []letter
	listed  bool // in all.full
	out     [batchSize]message
	vector  [batchSize]unix.Iovec
}

// letter is a packet with its receiver's address as the kernel wrote it; none,
// and a size of 0, on a connected socket.
type letter struct {
	packet []byte
	to     unix.RawSockaddrInet6
	size   uint32
}

// put sends a packet, now or when the holder lets go.
func (b *outbox) put(l letter) {
	b.mu.Lock()
	b.waiting = append(b.waiting, l)
	list := !b.listed
	b.listed = true
	b.mu.Unlock()
	if list {
		b.all.mu.Lock()
		b.all.full = append(b.all.full, b)
		b.all.mu.Unlock()
	}
	if b.all.holders.Load() == 0 {
		b.flush()
	}
}

// flush sends what waits.
func (b *outbox) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listed = false
	letters := b.waiting
	for len(letters) > 0 {
		n := min(len(letters), batchSize)
		for i := range n {
			b.vector[i].Base = &letters[i].packet[0]
			b.vector[i].SetLen(len(letters[i].packet))
			header := &b.out[i].header
			header.Iov, header.Name, header.Namelen = &b.vector[i], nil, letters[i].size
			header.SetIovlen(1)
			if header.Namelen > 0 {
				header.Name = (*byte)(unsafe.Pointer(&letters[i].to))
			}
		}
		if err := b.raw.Control(func(fd uintptr) { sendBatch(fd, b.out[:n], b.unsent) }); err != nil {
			b.unsent.Add(uint64(n)) // the socket is closed
		}
		letters = letters[n:]
	}
	clear(b.waiting)
	b.waiting = b.waiting[:0]
	if cap(b.waiting) > 8*batchSize {
		b.waiting = nil
	}
}

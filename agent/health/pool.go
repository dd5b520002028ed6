package health

import (
	"slices"

	"github.com/weirproject/weir/api"
)

// Bounds of what is in flight at once: about 15 KiB each for a connection.
const (
	maxConnections = 2048
	maxCommands    = 64
)

// pool bounds the checks that run at once and shares the room among services: a
// service may have as many checks in flight as there are places free. One whose
// checks all hang so gets half of the room, n of them leave an n+1th free, and
// a service whose checks answer never waits behind those that do not.
//
// Checker.mu guards it.
type pool struct {
	free    int
	shares  map[owner]*share
	waiting []*share // in the order in which they began to wait
}

type owner struct {
	service  string
	protocol api.Protocol
}

// share is what one service has of a pool.
type share struct {
	inFlight int
	queue    []*check
}

func newPool(size int) *pool { return &pool{free: size, shares: map[owner]*share{}} }

// add queues a check that is due.
func (p *pool) add(k *check) {
	o := owner{k.target.Service, k.target.Protocol}
	s := p.shares[o]
	if s == nil {
		s = &share{}
		p.shares[o] = s
	}
	if len(s.queue) == 0 {
		p.waiting = append(p.waiting, s)
	}
	s.queue = append(s.queue, k)
}

// take returns a check that may start, of the service with the fewest in
// flight, or nil.
func (p *pool) take() *check {
	var next *share
	for _, s := range p.waiting {
		if s.inFlight < p.free && (next == nil || s.inFlight < next.inFlight) {
			next = s
		}
	}
	if next == nil {
		return nil
	}
	k := next.queue[0]
	if next.queue = next.queue[1:]; len(next.queue) == 0 {
		next.queue = nil
		p.waiting = slices.DeleteFunc(p.waiting, func(s *share) bool { return s == next })
	}
	next.inFlight++
	p.free--
	return k
}

// release gives the place of a check that take returned back.
func (p *pool) release(k *check) {
	o := owner{k.target.Service, k.target.Protocol}
	s := p.shares[o]
	s.inFlight--
	p.free++
	if s.inFlight == 0 && len(s.queue) == 0 {
		delete(p.shares, o)
	}
}

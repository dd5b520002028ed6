package dnsproxy

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Response rate limiting, as name servers do it: a forged source address makes
// us send to a victim, and forgers use many addresses of one network. So each
// network has a bucket of answers. Every second answer beyond it is sent cut
// (TC), and the others not at all: who is really there asks again over TCP.
const (
	limitShards = 16
	limitSlots  = 1024 // networks remembered by a shard
	limitBits4  = 24
	limitBits6  = 56
)

// rateLimit counts answers by the network they go to. Its memory is fixed: where
// two networks meet in a slot, the later one takes it.
type rateLimit struct {
	perSecond int64
	seed      maphash.Seed
	shards    [limitShards]limitShard

	slipped, dropped atomic.Uint64
}

type limitShard struct {
	mu    sync.Mutex // guards slots
	slots []limitSlot
}

type limitSlot struct {
	hash   uint64
	tokens int64 // in nanoseconds of what the rate earns
	at     int64
	over   uint32
}

// newRateLimit allows so many answers per second to a network, and as many at
// once; nil for 0, which allows all.
func newRateLimit(perSecond int) *rateLimit {
	if perSecond <= 0 {
		return nil
	}
	l := &rateLimit{perSecond: int64(perSecond), seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].slots = make([]limitSlot, limitSlots)
	}
	return l
}

// pace is what becomes of an answer.
type pace uint8

const (
	paceSend pace = iota
	paceSlip      // send it cut
	paceDrop
)

// allow decides about an answer to a client. Those on the node itself or in
// private networks are not limited: they are whom we serve.
func (l *rateLimit) allow(client netip.Addr, now int64) pace {
	if l == nil || !client.IsValid() || isNear(client) {
		return paceSend
	}
	client = client.Unmap().WithZone("")
	bits := limitBits6
	if client.Is4() {
		bits = limitBits4
	}
	network, _ := client.Prefix(bits)
	raw := network.Addr().As16()
	hash := maphash.Bytes(l.seed, raw[:])
	s := &l.shards[hash%limitShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := &s.slots[hash/limitShards%limitSlots]
	const second = 1e9
	if slot.hash != hash {
		*slot = limitSlot{hash: hash, tokens: second, at: now}
	}
	slot.tokens = min(slot.tokens+now-slot.at, second)
	slot.at = now
	if cost := second / l.perSecond; slot.tokens >= cost {
		slot.tokens -= cost
		return paceSend
	}
	if slot.over++; slot.over%2 == 0 {
		l.slipped.Add(1)
		return paceSlip
	}
	l.dropped.Add(1)
	return paceDrop
}

var sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

// isNear tells whether an address is of this node or of a private network.
func isNear(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsPrivate() || sharedSpace.Contains(a)
}

package dnsproxy

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// cacheShards is how many parts the cache has, each with its own lock, so that
// sockets rarely wait for each other.
const cacheShards = 64

// itemOverhead is about what an item costs beside its key and bytes.
const itemOverhead = 256

// cache keeps upstreams' answers, bounded by number and by bytes. What goes when
// it is full is decided by SIEVE: a hand walks from the oldest item to the
// newest and takes the first that has not been asked for since it last passed.
type cache struct {
	seed   maphash.Seed
	shards [cacheShards]cacheShard
	// Limits of one shard.
	maxItems, maxBytes int

	hits, misses, evictions, stale, ahead atomic.Uint64
}

type cacheShard struct {
	mu    sync.Mutex // guards all below
	items map[string]*item
	// head is the newest item and tail the oldest.
	head, tail, hand *item
	bytes            int
	_                [64]byte // keeps the locks of two shards out of one cache line
}

type item struct {
	key          string
	answer       *cached
	hits         uint32 // of this answer and those before it
	visited      bool
	refreshing   bool // it is being fetched ahead
	newer, older *item
}

func newCache(items, bytes int) *cache {
	c := &cache{seed: maphash.MakeSeed(), maxItems: max(1, items/cacheShards), maxBytes: max(4096, bytes/cacheShards)}
	for i := range c.shards {
		c.shards[i].items = map[string]*item{}
	}
	return c
}

func (c *cache) shard(key []byte) *cacheShard {
	return &c.shards[maphash.Bytes(c.seed, key)%cacheShards]
}

// get gives the answer for a key, also one past its end; nil when there is none.
func (c *cache) get(key []byte) *cached {
	answer, _ := c.take(key, 0, false)
	return answer
}

// take is get for a client that wants the answer. ahead tells that the answer
// ends soon and is asked for often, so that it shall be fetched before it ends:
// one client is told.
func (c *cache) take(key []byte, now int64, count bool) (answer *cached, ahead bool) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.items[string(key)]
	if i == nil {
		return nil, false
	}
	i.visited = true
	if count {
		i.hits++
		if now >= i.answer.refreshAt && now < i.answer.expires && i.hits >= hotHits && !i.refreshing {
			i.refreshing, ahead = true, true
		}
	}
	return i.answer, ahead
}

// hotHits is how often an answer must have been asked for to be fetched ahead.
const hotHits = 2

// find gives what answers q now: the answer kept for its name and type, or the
// denial of its name or of one above it (RFC 8020), down to but without the
// name of size zoneLen at its end: beyond that others are asked.
func (c *cache) find(q *query, zoneLen int, now int64) (answer *cached, ahead bool) {
	if answer, ahead = c.take(q.key(), now, true); answer != nil && answer.expires > now {
		return answer, ahead
	}
	if q.do {
		return nil, false // a denial needs its own proof
	}
	key := q.denialKey()
	for at := 0; q.nameLen-at > zoneLen; at += 1 + int(key[at]) {
		if answer, _ = c.take(key[at:], now, true); answer != nil && answer.expires > now {
			return answer, false
		}
	}
	return nil, false
}

// old gives what could serve q past its end.
func (c *cache) old(q *query) *cached {
	if answer := c.get(q.key()); answer != nil {
		return answer
	}
	if q.do {
		return nil
	}
	return c.get(q.denialKey())
}

// keep puts an answer to q where find looks for it.
func (c *cache) keep(q *query, answer *cached) {
	if answer.denies {
		c.put(q.denialKey(), answer)
		return
	}
	if answer.rcode == dns.RcodeSuccess && !q.do {
		c.drop(q.denialKey()) // the name exists by now
	}
	c.put(q.key(), answer)
}

func (c *cache) put(key []byte, answer *cached) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.items[string(key)]
	if i != nil {
		s.remove(i) // it may have grown
		i.answer, i.refreshing = answer, false
	} else {
		i = &item{key: string(key), answer: answer}
	}
	if i.size() > c.maxBytes {
		return // it would be all that is kept
	}
	// Room is made first: the newest answer has not been asked for yet, and
	// would be the first to go.
	for len(s.items) > 0 && (len(s.items) >= c.maxItems || s.bytes+i.size() > c.maxBytes) {
		s.evict()
		c.evictions.Add(1)
	}
	s.push(i)
}

func (s *cacheShard) push(i *item) {
	s.items[i.key] = i
	s.bytes += i.size()
	i.older, i.newer = s.head, nil
	if s.head != nil {
		s.head.newer = i
	} else {
		s.tail = i
	}
	s.head = i
}

func (i *item) size() int { return len(i.key) + len(i.answer.wire) + itemOverhead }

func (s *cacheShard) evict() {
	i := s.hand
	if i == nil {
		i = s.tail
	}
	for i.visited {
		i.visited = false
		if i = i.newer; i == nil {
			i = s.tail
		}
	}
	s.hand = i
	s.remove(i)
}

func (s *cacheShard) remove(i *item) {
	if s.hand == i {
		s.hand = i.newer
	}
	if i.newer != nil {
		i.newer.older = i.older
	} else {
		s.head = i.older
	}
	if i.older != nil {
		i.older.newer = i.newer
	} else {
		s.tail = i.newer
	}
	delete(s.items, i.key)
	s.bytes -= i.size()
}

// drop forgets one answer.
func (c *cache) drop(key []byte) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.items[string(key)]; i != nil {
		s.remove(i)
	}
}

// settle ends the fetching ahead of an answer that brought no new one.
func (c *cache) settle(key []byte) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.items[string(key)]; i != nil {
		i.refreshing = false
	}
}

// size is how many answers there are, and their bytes.
func (c *cache) size() (items, bytes int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		items, bytes = items+len(s.items), bytes+s.bytes
		s.mu.Unlock()
	}
	return items, bytes
}

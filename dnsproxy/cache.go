package dnsproxy

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// cacheShards is how many parts the cache has, each with its own lock, so that
// sockets rarely wait for each other.
const cacheShards = 16

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

	hits, misses, evictions, stale atomic.Uint64
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
	visited      bool
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
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.items[string(key)]
	if i == nil {
		return nil
	}
	i.visited = true
	return i.answer
}

func (c *cache) put(key []byte, answer *cached) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.items[string(key)]; i != nil {
		s.bytes += len(answer.wire) - len(i.answer.wire)
		i.answer = answer
	} else {
		s.push(&item{key: string(key), answer: answer})
	}
	for len(s.items) > c.maxItems || s.bytes > c.maxBytes && len(s.items) > 1 {
		s.evict()
		c.evictions.Add(1)
	}
}

func (s *cacheShard) push(i *item) {
	s.items[i.key] = i
	s.bytes += i.size()
	i.older = s.head
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
	s.hand = i.newer
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

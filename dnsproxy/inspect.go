package dnsproxy

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// CacheEntry is one kept answer, for people.
type CacheEntry struct {
	Name string `json:"name"`
	// Type that was asked for; "*" for the denial of a name, which holds for
	// every type and for all names below it.
	Type  string `json:"type"`
	Rcode string `json:"rcode"`
	// Answer in presentation format, with the TTLs that were received. Empty
	// for denials and failures.
	Answer []string `json:"answer,omitempty"`
	// Upstream that gave it; "" for "no upstream answered".
	Upstream string `json:"upstream,omitempty"`
	// Age since it came and TTL left, in whole seconds; TTL is below zero for an
	// answer past its end, which serves only while no upstream does.
	Age   int    `json:"age"`
	TTL   int    `json:"ttl"`
	Stale bool   `json:"stale,omitempty"`
	Hits  uint32 `json:"hits"`
	Bytes int    `json:"bytes"`
	// Secure and Unchecked are the DO and CD bits of the question, each of
	// which has an answer of its own.
	Secure    bool `json:"secure,omitempty"`
	Unchecked bool `json:"unchecked,omitempty"`
}

// Dump lists the kept answers for a name and the names below it ("." for all),
// those asked for most first, and at most limit of them; 0 means all.
func (p *Proxy) Dump(name string, limit int) ([]CacheEntry, error) {
	below, err := anyName(name)
	if err != nil {
		return nil, fmt.Errorf("dump the cache: %w", err)
	}
	type held struct {
		key    string
		answer *cached
		hits   uint32
		size   int
	}
	var all []held
	p.cache.each(below, func(i *item) { all = append(all, held{i.key, i.answer, i.hits, i.size()}) })
	slices.SortFunc(all, func(a, b held) int {
		return cmp.Or(cmp.Compare(b.hits, a.hits), strings.Compare(a.key, b.key))
	})
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	entries, now := make([]CacheEntry, 0, len(all)), p.now()
	for _, h := range all {
		entries = append(entries, h.answer.entry(h.key, h.hits, h.size, now))
	}
	return entries, nil
}

// entry describes a kept answer.
func (c *cached) entry(key string, hits uint32, size int, now int64) CacheEntry {
	name, bits := key[:len(key)-3], key[len(key)-1]
	e := CacheEntry{
		Name: readable(name) + ".", Type: typeName(binary.BigEndian.Uint16([]byte(key[len(key)-3:]))),
		Rcode: dns.RcodeToString[int(c.rcode)], Upstream: c.upstream, Stale: c.stale, Hits: hits, Bytes: size,
		Age: int((now - c.stored) / int64(time.Second)), TTL: int((c.expires - now) / int64(time.Second)),
		Secure: bits&1 != 0, Unchecked: bits&2 != 0,
	}
	if bits&denialBit != 0 {
		e.Type = "*"
		return e
	}
	// The answer's pointers lead into the question, so it is put back.
	wire := make([]byte, headerSize, headerSize+len(key)+len(c.wire))
	wire[5] = 1
	binary.BigEndian.PutUint16(wire[6:], c.an)
	wire = append(append(wire, key[:len(key)-1]...), 0, dns.ClassINET)
	m := new(dns.Msg)
	if m.Unpack(append(wire, c.wire...)) == nil {
		e.Answer = lines(m.Answer)
	}
	return e
}

// Flush forgets the kept answers for a name and for the names below it, "." for
// all, and gives their number.
func (p *Proxy) Flush(name string) (int, error) {
	below, err := anyName(name)
	if err != nil {
		return 0, fmt.Errorf("flush the cache: %w", err)
	}
	return p.cache.flush(below), nil
}

// anyName is wireName that also takes the root.
func anyName(name string) (string, error) {
	if name == "." || name == "" {
		return "\x00", nil
	}
	return wireName(name)
}

// flush drops what is kept for a wire name and the names below it.
func (c *cache) flush(below string) int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for key, item := range s.items {
			if within(key[:len(key)-3], below) {
				s.remove(item)
				n++
			}
		}
		s.mu.Unlock()
	}
	return n
}

// each calls f, which must be quick, with the answers at and below a name.
func (c *cache) each(below string, f func(*item)) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for key, item := range s.items {
			if within(key[:len(key)-3], below) {
				f(item)
			}
		}
		s.mu.Unlock()
	}
}

// within tells whether a wire name is another or lies below it.
func within(name, above string) bool {
	for len(name) > len(above) {
		name = parent(name)
	}
	return name == above
}

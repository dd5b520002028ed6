package dnsproxy

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

// Which names are asked for most is estimated from a sample, in fixed memory: the
// rarest name of a full list makes room for a new one, which starts with its
// count (the space-saving scheme).
const (
	popularNames = 256
	sampleEvery  = 64
	popularHalf  = time.Minute // what was asked then counts half
)

type popular struct {
	mu    sync.Mutex // guards what follows
	seed  maphash.Seed
	names [popularNames]popularName
	aged  int64
}

type popularName struct {
	hash  uint64
	count uint32
	qtype uint16
	size  uint8
	name  [maxName]byte
}

// note counts one of every sampleEvery questions. It allocates nothing, and
// waits for nobody: a question that finds the list locked is not counted.
func (p *popular) note(q *query, now int64) {
	if !p.mu.TryLock() {
		return
	}
	defer p.mu.Unlock()
	if p.seed == (maphash.Seed{}) {
		p.seed = maphash.MakeSeed()
	}
	if now-p.aged > int64(popularHalf) {
		p.aged = now
		for i := range p.names {
			p.names[i].count /= 2
		}
	}
	name := q.name[:q.nameLen]
	hash := maphash.Bytes(p.seed, name) ^ uint64(q.qtype)
	rarest := &p.names[0]
	for i := range p.names {
		n := &p.names[i]
		if n.hash == hash && n.qtype == q.qtype && bytes.Equal(n.name[:n.size], name) {
			n.count++
			return
		}
		if n.count < rarest.count {
			rarest = n
		}
	}
	rarest.hash, rarest.qtype, rarest.size = hash, q.qtype, uint8(copy(rarest.name[:], name))
	rarest.count++
}

// TopName is a name that is asked for often.
type TopName struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// Queries is an estimate from a sample, with those of a minute ago counting
	// half, those of two minutes ago a quarter and so on.
	Queries int `json:"queries"`
}

// Top gives the names that are asked for most, the cluster's and others, at most
// n of them (and never more than a few hundred).
func (p *Proxy) Top(n int) []TopName {
	p.popular.mu.Lock()
	names := slices.Clone(p.popular.names[:])
	p.popular.mu.Unlock()
	slices.SortStableFunc(names, func(a, b popularName) int { return cmp.Compare(b.count, a.count) })
	var top []TopName
	for _, entry := range names {
		if entry.count == 0 || len(top) >= n {
			break
		}
		top = append(top, TopName{readable(string(entry.name[:entry.size])) + ".", typeName(entry.qtype), int(entry.count) * sampleEvery})
	}
	return top
}

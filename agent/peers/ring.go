package peers

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"
)

// watchedBy is how many others each node watches.
const watchedBy = 4

// arrange makes the ring anew: the names in the order of their hashes, so that
// nodes which fail together, as those of a rack do, are watched by others.
// Guarded by mu.
func (d *Detector) arrange() {
	d.stale = true
	d.ring = append(d.ring[:0], d.self)
	for name := range d.members {
		d.ring = append(d.ring, name)
	}
	slices.SortFunc(d.ring, func(a, b string) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b))
	})
	d.choose()
}

func place(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	sum := h.Sum64()
	// FNV's high bits hardly differ for names that end otherwise.
	sum ^= sum >> 33
	sum *= 0xff51afd7ed558ccd
	return sum ^ sum>>33
}

// choose picks whom this node watches: the next ones in the ring that are not
// dead, and the dead ones among the next, so that their return is seen. Guarded
// by mu.
func (d *Detector) choose() {
	self := slices.Index(d.ring, d.self)
	chosen, passed := 0, 0
	for i := 1; i < len(d.ring); i++ {
		m := d.members[d.ring[(self+i)%len(d.ring)]]
		passed++
		watch := chosen < watchedBy && m.entry.rank != dead || passed <= watchedBy && m.entry.rank == dead
		if watch && m.entry.rank != dead {
			chosen++
		}
		if watch && !m.watched {
			// It is judged from now on.
			m.evidence, m.since = time.Now(), time.Now()
		}
		m.watched = watch
	}
}

package dnsproxy

import (
	"hash/maphash"
	"iter"
	"math/bits"
)

// Table holds the cluster's names with their answers as they go on the wire.
// It never changes once made; the proxy swaps whole tables. A changed table
// shares with the one before all shards that have none of the changed names.
type Table struct {
	seed maphash.Seed
	// groups have the shards, a power of two, by the upper bits of a name's hash.
	groups []*group
	shards uint32
	shift  uint8
	zones  []zone
	// renames are suffixes that stand for others.
	renames []rename

	names    int // that have records
	entries  int
	serial   uint32
	revision uint64
	source   *names // what it was made of, and the next one will be
}

// zone is a name that we are authoritative for, with all below it.
type zone struct {
	name string // on the wire
	soa  []byte // body of its SOA record
}

// rename lets names below one suffix be answered as those below another.
type rename struct{ from, to string }

// outcome says where a name leads.
type outcome uint8

const (
	outside outcome = iota // not in a zone of ours
	found                  // an entry
	missing                // in a zone, but the name does not exist
)

// Len is the number of names that have records.
func (t *Table) Len() int { return t.names }

// Revision of the snapshot that the table was made of.
func (t *Table) Revision() uint64 { return t.revision }

// Serial of the zones' SOA records. It grows with every change of what is
// answered, by whatever caused.
func (t *Table) Serial() uint32 { return t.serial }

// locate finds the entry that answers for a name, which is in lower case on the
// wire: its own, or the wildcard's at its closest encloser (RFC 4592). For one
// that is missing it gives the one above it that exists.
func (t *Table) locate(name []byte) (outcome, *entry) {
	if e := t.find(name); e != nil {
		return found, e
	}
	for name[0] != 0 {
		name = name[1+name[0]:]
		e := t.find(name)
		if e == nil {
			continue
		}
		if !e.wildcard {
			return missing, e
		}
		var star [maxName + 1]byte
		star[0], star[1] = 1, '*'
		if w := t.find(star[:2+copy(star[2:], name)]); w != nil {
			return found, w
		}
		return missing, e
	}
	return outside, nil
}

func (t *Table) find(name []byte) *entry {
	hash := maphash.Bytes(t.seed, name)
	return t.shard(uint32(hash>>t.shift)).find(name, hash)
}

// group is what is copied of the list of shards when one of them changes.
type group [groupSize]shard

const groupSize = 32

func (t *Table) shard(i uint32) *shard { return &t.groups[i/groupSize][i%groupSize] }

// setShards makes room for shards that are all to be set.
func (t *Table) setShards(n uint32) {
	t.shards, t.shift = n, uint8(64-bits.Len32(n-1))
	t.groups = make([]*group, (n+groupSize-1)/groupSize)
	for i := range t.groups {
		t.groups[i] = new(group)
	}
}

// pack moves the shards of each group together. A large table that was made piece
// by piece lies scattered among what was thrown away meanwhile, and the heap would
// keep half as much again for it. Nobody else may know the table yet.
func (t *Table) pack() {
	for at, old := range t.groups {
		packed, size := *old, 0
		for i := range packed {
			size += len(packed[i].data)
		}
		room := make([]uint64, size)
		for i := range packed {
			n := copy(room, packed[i].data)
			packed[i].data, room = room[:n:n], room[n:]
		}
		t.groups[at] = &packed
	}
}

// all gives every entry.
func (t *Table) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for i := range t.shards {
			for e := range t.shard(i).all() {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// mayRename tells whether a name that was not found may stand for another one:
// not when it lies in one of the cluster's domains.
func (t *Table) mayRename(what outcome, at *entry) bool {
	return len(t.renames) > 0 && (what == outside || int(at.zone) >= len(t.source.domains))
}

// renamed puts another suffix to a query's name that ends in one of renames.
func (t *Table) renamed(q *query) bool {
	for i := range t.renames {
		r := &t.renames[i]
		at := q.nameLen - len(r.from)
		if at < 0 || string(q.name[at:q.nameLen]) != r.from || !startsLabel(q.name[:], at) {
			continue
		}
		if at+len(r.to) > maxName { // too long to exist, but it is not for an upstream either
			at = copy(q.name[:], "\x01\x00")
		}
		copy(q.name[at:], r.to)
		q.nameLen = at + len(r.to)
		q.apexLen = len(r.from)
		return true
	}
	return false
}

// startsLabel tells whether a label begins at an offset of a name.
func startsLabel(name []byte, at int) bool {
	i := 0
	for i < at {
		i += 1 + int(name[i])
	}
	return i == at
}

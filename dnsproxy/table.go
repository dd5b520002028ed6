package dnsproxy

import (
	"bytes"
	"hash/maphash"
)

// Table holds the cluster's names with their answers as they go on the wire.
// It never changes once made; the proxy swaps whole tables. Everything lies in
// a few slices without pointers, so that the garbage collector has nothing to
// scan however many names there are.
type Table struct {
	seed maphash.Seed
	// slots is a hash table with open addressing: the hash's upper half and
	// the entry's index plus one; zero is free. Its length is a power of two.
	slots   []uint64
	entries []entry
	sets    []recordSet
	records []record
	zones   []zone
	arena   []byte // names and record bodies

	revision  uint64
	published map[string]bool // services whose VIP names are in it, by service and protocol
}

// entry is a name: one with records, or an empty one between them (RFC 8020's
// empty non-terminal, which exists and has no data).
type entry struct {
	name     uint32 // offset in the arena
	nameLen  uint8
	outcome  outcome // of following the CNAME
	zone     uint32
	wildcard uint32 // index+1 of the entry of "*" below it
	firstSet uint32
	sets     uint32
	target   uint32 // entry or zone that the CNAME leads to, by outcome
}

// recordSet is the records of one type at one name.
type recordSet struct {
	rtype uint16
	count uint16
	first uint32
}

// record is one record: type, class, TTL, length and data, in the arena.
type record struct {
	body    uint32
	bodyLen uint16
	// target is the offset of the target's name within the body, and extra the
	// bodies of the target's address records, for the additional section.
	target   uint16
	extra    uint32
	extraLen uint16
}

// zone is a name that we are authoritative for, with all below it.
type zone struct {
	name    uint32
	nameLen uint8
	soa     uint32 // body of its SOA record
	soaLen  uint16
}

// outcome says where a name leads.
type outcome uint8

const (
	outside outcome = iota // not in a zone of ours
	found                  // an entry
	missing                // in a zone, but the name does not exist
)

// Len is the number of names that have records.
func (t *Table) Len() int {
	n := 0
	for i := range t.entries {
		if t.entries[i].sets > 0 {
			n++
		}
	}
	return n
}

// Revision of the snapshot that the table was made of.
func (t *Table) Revision() uint64 { return t.revision }

// locate finds the entry that answers for a name, which is in lower case on the
// wire: its own, or the wildcard's at its closest encloser (RFC 4592). For a
// missing name the index is that of its zone.
func (t *Table) locate(name []byte) (outcome, uint32) {
	if i, ok := t.find(name); ok {
		return found, i
	}
	for name[0] != 0 {
		name = name[1+name[0]:]
		i, ok := t.find(name)
		if !ok {
			continue
		}
		if w := t.entries[i].wildcard; w != 0 {
			return found, w - 1
		}
		return missing, t.entries[i].zone
	}
	return outside, 0
}

func (t *Table) find(name []byte) (uint32, bool) {
	hash := maphash.Bytes(t.seed, name)
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		slot := t.slots[i]
		if slot == 0 {
			return 0, false
		}
		if uint32(slot>>32) != uint32(hash>>32) {
			continue
		}
		e := &t.entries[uint32(slot)-1]
		if int(e.nameLen) == len(name) && bytes.Equal(t.arena[e.name:e.name+uint32(e.nameLen)], name) {
			return uint32(slot) - 1, true
		}
	}
}

func (t *Table) set(e *entry, rtype uint16) *recordSet {
	for i := e.firstSet; i < e.firstSet+e.sets; i++ {
		if t.sets[i].rtype == rtype {
			return &t.sets[i]
		}
	}
	return nil
}

func (t *Table) body(r *record) []byte { return t.arena[r.body : r.body+uint32(r.bodyLen)] }

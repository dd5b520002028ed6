package dnsproxy

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"unsafe"

	"github.com/miekg/dns"
)

// shard is the names of which the hashes begin alike: few, so that a change
// costs little. It has no pointers inside, so that the garbage collector has
// nothing to scan however many names there are.
type shard struct {
	// data is a hash table with open addressing, of mask+1 slots of 32 bits each,
	// and then the entries, one behind the other. A slot has some bits of the
	// hash and the entry's place in data; zero is free.
	data []uint64
	mask uint32
}

const (
	placeBits = 22 // of a slot: the entry's place, in words
	placeMask = 1<<placeBits - 1
)

func emptyShard() shard { return shard{data: make([]uint64, 1), mask: 1} }

// slotsIn is how many words the slots take.
func (s *shard) slotsIn() int { return int(s.mask+1) / 2 }

func (s *shard) slots() []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(&s.data[0])), s.mask+1)
}

// tagOf is the part of a hash that a slot has.
func tagOf(hash uint64) uint32 { return uint32(hash>>20) &^ placeMask }

func (s *shard) find(name []byte, hash uint64) *entry {
	slots, tag := s.slots(), tagOf(hash)
	for i := uint32(hash) & s.mask; ; i = (i + 1) & s.mask {
		slot := slots[i]
		if slot == 0 {
			return nil
		}
		if (slot^tag)&^placeMask != 0 {
			continue
		}
		if e := s.entry(int(slot & placeMask)); string(e.name()) == string(name) {
			return e
		}
	}
}

func (s *shard) entry(place int) *entry { return (*entry)(unsafe.Pointer(&s.data[place])) }

// all gives the entries.
func (s *shard) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for at := s.slotsIn(); at < len(s.data); {
			e := s.entry(at)
			if !yield(e) {
				return
			}
			at += int(e.size / 8)
		}
	}
}

// rebuild makes a shard of an old one's entries, less those for which drop and
// those that drafts replace, and of drafts.
func (n *names) rebuild(seed maphash.Seed, old *shard, drop func(hash uint64) bool, drafts []*draft) shard {
	kept, hashes := make([]*entry, 0, 2*fullShard), make([]uint64, 0, 2*fullShard)
	size := 0
	for e := range old.all() {
		hash := maphash.Bytes(seed, e.name())
		if drop != nil && drop(hash) || replaced(e, drafts) {
			continue
		}
		kept, hashes = append(kept, e), append(hashes, hash)
		size += int(e.size / 8)
	}
	for _, d := range drafts {
		if d.exists() {
			hashes = append(hashes, maphash.String(seed, d.name))
			size += int(d.size() / 8)
		}
	}
	// At most three quarters are taken, so that a miss ends soon: mostly within
	// one cache line.
	mask := uint32(1)<<max(1, bits.Len(uint(len(hashes)+len(hashes)/3))) - 1
	s := shard{mask: mask}
	s.data = make([]uint64, s.slotsIn()+size)
	at := s.slotsIn()
	for i, e := range kept {
		copy(s.data[at:], unsafe.Slice((*uint64)(unsafe.Pointer(e)), e.size/8))
		s.enter(hashes[i], at)
		at += int(e.size / 8)
	}
	hashes = hashes[len(kept):]
	for _, d := range drafts {
		if d.exists() {
			e := s.entry(at)
			e.zone, e.apexLen = n.zoneOf(d.name)
			d.write(e)
			s.enter(hashes[0], at)
			hashes, at = hashes[1:], at+int(e.size/8)
		}
	}
	return s
}

func replaced(e *entry, drafts []*draft) bool {
	for _, d := range drafts {
		if d.before == e {
			return true
		}
	}
	return false
}

// enter puts an entry into the slots.
func (s *shard) enter(hash uint64, place int) {
	slots := s.slots()
	i := uint32(hash) & s.mask
	for slots[i] != 0 {
		i = (i + 1) & s.mask
	}
	slots[i] = tagOf(hash) | uint32(place)
}

// size of the draft's entry.
func (d *draft) size() uint32 {
	size := entrySize + (uint32(len(d.name))+3)&^3 + uint32(len(d.sets))*setSize
	for i := range d.sets {
		for j := range d.sets[i].records {
			size += recordSize + uint32(len(d.sets[i].records[j].body))
		}
	}
	return (size + 7) &^ 7
}

// write fills an entry that has room for the draft.
func (d *draft) write(e *entry) {
	e.size, e.children, e.wildcard = d.size(), d.children, d.wildcard
	e.sets, e.shown, e.nameLen = uint16(len(d.sets)), uint16(d.shown), uint8(len(d.name))
	for i := range d.sets {
		e.records += uint32(len(d.sets[i].records))
	}
	copy(e.name(), d.name)
	sets, records, first := e.allSets(), e.allRecords(), uint32(0)
	body := e.setsAt() + uint32(e.sets)*setSize + e.records*recordSize
	for i := range d.sets {
		s := &d.sets[i]
		sets[i] = recordSet{rtype: s.rtype, rank: s.rank, owner: s.owner, first: first, shown: uint32(s.shown), count: uint32(len(s.records))}
		targets := newTargets(s)
		for j := range s.records {
			r := &s.records[j]
			records[first] = record{body: body, bodyLen: uint16(len(r.body)), claims: r.claims, rank: r.rank, target: targets.offset(r.body)}
			copy(e.body(&records[first]), r.body)
			first, body = first+1, body+uint32(len(r.body))
		}
	}
}

// targets tells which records of a set name a target first: its addresses go
// into a message once.
type targets struct {
	at   int // where the target begins in a body; 0: there is none
	seen map[string]bool
}

func newTargets(s *draftSet) targets {
	t := targets{}
	switch s.rtype {
	case dns.TypeSRV:
		t.at = 16
	case dns.TypeNS:
		t.at = 10
	}
	if t.at > 0 && len(s.records) > 1 {
		t.seen = make(map[string]bool, len(s.records))
	}
	return t
}

func (t targets) offset(body string) uint8 {
	if t.at == 0 || t.seen[body[t.at:]] {
		return 0
	}
	if t.seen != nil {
		t.seen[body[t.at:]] = true
	}
	return uint8(t.at)
}

package dnsproxy

import "unsafe"

// entry is a name: one with records, or an empty one between them (RFC 8020's
// empty non-terminal, which exists and has no data). All of it lies together in
// its shard, so that an answer reads few lines of memory:
//
//	entry | name | sets | records | their bodies
//
// Offsets are within it, so it can be copied as it is.
type entry struct {
	size     uint32 // of all, in bytes; a multiple of 8
	children uint32 // names one label longer
	records  uint32
	sets     uint16 // all, those that are shown first
	shown    uint16
	nameLen  uint8
	zone     uint8
	apexLen  uint8 // bytes of the zone's name, which ends this one
	wildcard bool  // there is a "*" below it
}

// recordSet is the records of one type at one name from one owner.
type recordSet struct {
	first uint32 // of the entry's records
	owner uint32
	shown uint32 // records that are answered
	count uint32 // all
	rtype uint16 // 0: the name exists, whatever else it has
	rank  uint8
}

// record is one record: its body is type, class, TTL, length and data.
type record struct {
	body    uint32 // where it is in the entry
	claims  uint32 // how many want it: two tasks on one node want one address
	bodyLen uint16
	// target is the offset of a target's name within the body, of which the
	// addresses go into the additional section; 0 for none, and for all but the
	// first record of a set that have the same.
	target uint8
	rank   uint8
}

const (
	entrySize  = uint32(unsafe.Sizeof(entry{}))
	setSize    = uint32(unsafe.Sizeof(recordSet{}))
	recordSize = uint32(unsafe.Sizeof(record{}))
)

// setsAt is where an entry's sets are.
func (e *entry) setsAt() uint32 { return entrySize + (uint32(e.nameLen)+3)&^3 }

// at points to something in the entry, which must not be empty: behind the last
// one there may be nothing of ours, and the garbage collector minds.
func (e *entry) at(offset uint32) unsafe.Pointer { return unsafe.Add(unsafe.Pointer(e), offset) }

func (e *entry) name() []byte { return unsafe.Slice((*byte)(e.at(entrySize)), e.nameLen) }

// allSets of the entry; shownSets are those that are answered.
func (e *entry) allSets() []recordSet {
	if e.sets == 0 {
		return nil
	}
	return unsafe.Slice((*recordSet)(e.at(e.setsAt())), e.sets)
}

func (e *entry) shownSets() []recordSet { return e.allSets()[:e.shown] }

func (e *entry) allRecords() []record {
	if e.records == 0 {
		return nil
	}
	return unsafe.Slice((*record)(e.at(e.setsAt()+uint32(e.sets)*setSize)), e.records)
}

// shownRecords are those of a set that are answered.
func (e *entry) shownRecords(s *recordSet) []record {
	return e.allRecords()[s.first : s.first+s.shown]
}

func (e *entry) body(r *record) []byte {
	if r.bodyLen == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(e.at(r.body)), r.bodyLen)
}

// set that answers a type; nil when there is none.
func (e *entry) set(rtype uint16) *recordSet {
	sets := e.shownSets()
	for i := range sets {
		if sets[i].rtype == rtype {
			return &sets[i]
		}
	}
	return nil
}

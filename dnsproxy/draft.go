package dnsproxy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/miekg/dns"
)

// draft is a name that is about to change: what the table has of it, and then
// what it shall have.
type draft struct {
	name     string
	before   *entry // nil: it did not exist
	sets     []draftSet
	shown    int // sets that are answered, the first ones
	children uint32
	wildcard bool
	counted  bool // among its parent's children
	clash    bool // something derived is hidden by another
}

type draftSet struct {
	rtype   uint16
	rank    uint8
	owner   uint32
	shown   int
	records []draftRecord // in order of rank and body
}

type draftRecord struct {
	body   string
	claims uint32
	rank   uint8
}

// draftOf reads a name out of the table. Its texts lie in the shard,
// which nobody changes any more.
func (t *Table) draftOf(name string) *draft {
	d := &draft{name: name, before: t.find([]byte(name))}
	e := d.before
	if e == nil {
		return d
	}
	d.name, d.children, d.wildcard, d.counted, d.shown = text(e.name()), e.children, e.wildcard, true, int(e.shown)
	sets, records := e.allSets(), e.allRecords()
	d.sets = make([]draftSet, len(sets))
	for i := range sets {
		set, out := &sets[i], &d.sets[i]
		*out = draftSet{rtype: set.rtype, rank: set.rank, owner: set.owner, shown: int(set.shown), records: make([]draftRecord, set.count, set.count+1)}
		for j := range out.records {
			r := &records[set.first+uint32(j)]
			out.records[j] = draftRecord{text(e.body(r)), r.claims, r.rank}
		}
	}
	return d
}

func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func (d *draft) exists() bool { return len(d.sets) > 0 || d.children > 0 }

func (s *draftSet) find(c *claim) (int, bool) {
	return slices.BinarySearchFunc(s.records, c, func(r draftRecord, c *claim) int {
		return cmp.Or(cmp.Compare(r.rank, c.rankOfRecord()), strings.Compare(r.body, c.body))
	})
}

// rankOfRecord orders the PTR records of an address, of which one is answered.
func (c *claim) rankOfRecord() uint8 {
	if c.rtype == dns.TypePTR {
		return c.rank
	}
	return 0
}

// rankOfSet is the rank of a set but for those of addresses, who have all ranks.
func (c *claim) rankOfSet() uint8 {
	if c.rtype == dns.TypePTR {
		return 0
	}
	return c.rank
}

// remove takes one claim away. It tells whether it was there.
func (d *draft) remove(c *claim) bool {
	for i := range d.sets {
		s := &d.sets[i]
		if s.rtype != c.rtype || s.owner != c.owner {
			continue
		}
		at, ok := s.find(c)
		if !ok {
			return false
		}
		if s.records[at].claims--; s.records[at].claims > 0 {
			return true
		}
		if s.records = slices.Delete(s.records, at, at+1); len(s.records) == 0 {
			d.sets = slices.Delete(d.sets, i, i+1)
		}
		return true
	}
	return false
}

// conflict of a document's claim with another document's records.
type conflict struct {
	claim
	other draftSet
}

// put adds a claim. A document's that cannot stand beside another's is given
// back instead.
func (d *draft) put(c *claim) *conflict {
	var mine *draftSet
	for i := range d.sets {
		s := &d.sets[i]
		if s.owner == c.owner && s.rtype == c.rtype {
			mine = s
		}
		if c.owner&derived != 0 || s.owner&derived != 0 || s.rtype == 0 || c.rtype == 0 {
			continue
		}
		isAlias := s.rtype == dns.TypeCNAME || c.rtype == dns.TypeCNAME // RFC 2181, 10.1: it stands alone
		isSame := s.rtype == c.rtype
		if isSame && s.owner != c.owner || isAlias && (!isSame || s.records[0].body != c.body) {
			return &conflict{*c, *s}
		}
	}
	if mine == nil {
		d.sets = append(d.sets, draftSet{rtype: c.rtype, rank: c.rankOfSet(), owner: c.owner})
		mine = &d.sets[len(d.sets)-1]
	}
	at, ok := mine.find(c)
	if !ok {
		mine.records = slices.Insert(mine.records, at, draftRecord{body: c.body, rank: c.rankOfRecord()})
	}
	mine.records[at].claims++
	return nil
}

// text of a conflict; owner is whose claim it is, other who has the name.
func (c *conflict) error(owner, other string) error {
	name, rtype := readable(c.name), dns.TypeToString[c.other.rtype]
	if c.rtype != c.other.rtype {
		return fmt.Errorf("%s: a CNAME has its name for itself, but %s has %s records of %s too", owner, name, rtype, other)
	}
	return fmt.Errorf("%s: the name %s has %s records of %s already", owner, name, rtype, other)
}

// arrange decides what is answered, and brings it to the front. Of what is
// derived, a document hides its type, or all if it is a CNAME; and of several,
// the one of the lowest rank and owner is answered.
func (d *draft) arrange() {
	slices.SortFunc(d.sets, func(a, b draftSet) int {
		return cmp.Or(cmp.Compare(a.rtype, b.rtype), cmp.Compare(a.owner&derived, b.owner&derived), cmp.Compare(a.rank, b.rank), cmp.Compare(a.owner, b.owner))
	})
	alias := slices.ContainsFunc(d.sets, func(s draftSet) bool { return s.rtype == dns.TypeCNAME })
	last := uint16(0)
	d.clash, d.shown = false, 0
	for i := range d.sets {
		s := &d.sets[i]
		s.shown = 0
		switch {
		case s.rtype == 0:
		case s.rtype == last || alias && s.rtype != dns.TypeCNAME:
			d.clash = d.clash || s.rank <= rankShared
		case s.rtype == dns.TypePTR:
			s.shown = 1
		default:
			s.shown = len(s.records)
		}
		if s.shown > 0 {
			last = s.rtype
			d.shown++
		}
	}
	slices.SortStableFunc(d.sets, func(a, b draftSet) int { return cmp.Compare(min(b.shown, 1), min(a.shown, 1)) })
}

// answersAsBefore tells whether an arranged draft answers what the table did.
func (d *draft) answersAsBefore() bool {
	e := d.before
	if e == nil || !d.exists() {
		return (e != nil) == d.exists()
	}
	if int(e.shown) != d.shown {
		return false
	}
	sets := e.shownSets()
	for i := range sets {
		set := &d.sets[i]
		if sets[i].rtype != set.rtype || int(sets[i].shown) != set.shown {
			return false
		}
		records := e.shownRecords(&sets[i])
		for j := range records {
			if text(e.body(&records[j])) != set.records[j].body {
				return false
			}
		}
	}
	return true
}

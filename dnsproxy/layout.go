package dnsproxy

import (
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// maxChain is how many CNAMEs an answer may follow.
const maxChain = 8

// layOut makes the immutable table: the names sorted, their records as wire
// bytes in one arena, what leads where looked up once and for all.
func (b *builder) layOut(soa func(domain string) string) (*Table, error) {
	l := &layout{builder: b, table: &Table{seed: maphash.MakeSeed()}, soa: soa, index: map[string]uint32{}, zones: map[string]uint32{}, spans: map[string]uint32{}}
	names := slices.Sorted(maps.Keys(b.names))
	l.table.entries = make([]entry, len(names))
	for i, name := range names {
		l.index[name] = uint32(i)
	}
	l.hash(names)
	for i, name := range names {
		l.entry(&l.table.entries[i], name)
	}
	for _, name := range names {
		if err := l.link(name); err != nil {
			return nil, err
		}
	}
	return l.table, l.checkChains(names)
}

// layout is the state of layOut.
type layout struct {
	*builder
	table *Table
	soa   func(domain string) string
	index map[string]uint32 // entries by name
	zones map[string]uint32 // zones by name
	spans map[string]uint32 // what the arena holds already: offset by content
}

func (l *layout) put(s string) uint32 {
	at, ok := l.spans[s]
	if !ok {
		at = uint32(len(l.table.arena))
		l.table.arena = append(l.table.arena, s...)
		l.spans[s] = at
	}
	return at
}

// hash fills the slots, at most half of them, so that a miss ends soon.
func (l *layout) hash(names []string) {
	size := 8
	for size < 2*len(names) {
		size *= 2
	}
	l.table.slots = make([]uint64, size)
	for i, name := range names {
		h := maphash.String(l.table.seed, name)
		at := h & uint64(size-1)
		for l.table.slots[at] != 0 {
			at = (at + 1) & uint64(size-1)
		}
		l.table.slots[at] = h>>32<<32 | uint64(i+1)
	}
}

func (l *layout) entry(e *entry, name string) {
	e.name, e.nameLen, e.zone = l.put(name), uint8(len(name)), l.zoneOf(name)
	if w, ok := l.index["\x01*"+name]; ok {
		e.wildcard = w + 1
	}
	e.firstSet = uint32(len(l.table.sets))
	for _, s := range l.names[name].sets {
		if len(s.records) == 0 {
			continue
		}
		l.table.sets = append(l.table.sets, recordSet{rtype: s.rtype, count: uint16(len(s.records)), first: uint32(len(l.table.records))})
		e.sets++
		for _, r := range s.records {
			l.table.records = append(l.table.records, record{body: l.put(r.body), bodyLen: uint16(len(r.body))})
		}
	}
}

// zoneOf gives the index of the zone that a name lies in.
func (l *layout) zoneOf(name string) uint32 {
	apex := name
	for !l.isApex(apex) {
		apex = parent(apex)
	}
	if z, ok := l.zones[apex]; ok {
		return z
	}
	domain := apex
	if isReverse(apex) {
		domain = l.domains[0]
	}
	soa := recordBody(dns.TypeSOA, DefaultTTL, l.soa(domain))
	z := uint32(len(l.table.zones))
	l.table.zones = append(l.table.zones, zone{name: l.put(apex), nameLen: uint8(len(apex)), soa: l.put(soa), soaLen: uint16(len(soa))})
	l.zones[apex] = z
	return z
}

// link resolves the targets of a name's records.
func (l *layout) link(name string) error {
	e := &l.table.entries[l.index[name]]
	at := int(e.firstSet)
	for _, s := range l.names[name].sets {
		if len(s.records) == 0 {
			continue
		}
		if s.rtype == dns.TypeCNAME {
			e.outcome, e.target = l.table.locate([]byte(s.records[0].target))
		}
		seen := map[string]bool{}
		for i, r := range s.records {
			if s.rtype == dns.TypeCNAME || r.target == "" || seen[r.target] {
				continue // additional records once per message, at the target's first mention
			}
			seen[r.target] = true
			rec := &l.table.records[int(l.table.sets[at].first)+i]
			rec.target = uint16(len(r.body) - len(r.target))
			extra := l.addresses(r.target)
			if len(extra) > 0xFFFF {
				return fmt.Errorf("%s: %s has more addresses than a message holds", s.owner, readable(r.target))
			}
			rec.extra, rec.extraLen = l.put(extra), uint16(len(extra))
		}
		at++
	}
	return nil
}

// addresses are the bodies of a name's address records.
func (l *layout) addresses(name string) string {
	what, i := l.table.locate([]byte(name))
	if what != found {
		return ""
	}
	var b strings.Builder
	e := &l.table.entries[i]
	for _, rtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if set := l.table.set(e, rtype); set != nil {
			for r := set.first; r < set.first+uint32(set.count); r++ {
				b.Write(l.table.body(&l.table.records[r]))
			}
		}
	}
	return b.String()
}

// checkChains refuses CNAMEs in a circle and chains that no client would follow.
func (l *layout) checkChains(names []string) error {
	t := l.table
	for _, name := range names {
		e, steps := &t.entries[l.index[name]], 0
		for e.outcome == found && e.sets > 0 && t.sets[e.firstSet].rtype == dns.TypeCNAME {
			if steps++; steps > maxChain {
				return fmt.Errorf("%s: the CNAME at %s leads over more than %d others, or in a circle", l.names[name].sets[0].owner, readable(name), maxChain)
			}
			e = &t.entries[e.target]
		}
	}
	return nil
}

package dnsproxy

import (
	"bytes"
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/miekg/dns"
)

// Direct is a name of which questions for addresses can be answered without the
// proxy, by what is here alone. The answer is the same, byte for byte.
type Direct struct {
	Name    string // on the wire, in lower case
	A, AAAA DirectSet
	// Zone is the index of the name's zone in DirectZones, and ApexLength how many
	// bytes of Name are its name.
	Zone, ApexLength int
}

// DirectSet is the addresses of one type that a name has. Without any, the answer
// has the zone's SOA record.
type DirectSet struct {
	TTL uint32 // seconds
	// Addresses of 4 or 16 bytes each, of which an answer begins with a random one
	// and goes on in this order.
	Addresses []byte
	// Elsewhere: the records differ in more than their addresses.
	Elsewhere bool
}

// DirectZones are the bodies of the zones' SOA records: type, class, TTL, length
// and data.
func (t *Table) DirectZones() [][]byte {
	all := make([][]byte, len(t.zones))
	for i := range t.zones {
		all[i] = t.zones[i].soa
	}
	return all
}

// Direct gives every name with addresses. Names that stand for others by a
// CNAME, a wildcard or another suffix are none.
func (t *Table) Direct() iter.Seq[Direct] { return t.DirectPart(0, 1) }

// DirectPart gives those of one of so many parts; part is from 0 to parts-1.
func (t *Table) DirectPart(part, parts int) iter.Seq[Direct] {
	first, end := uint64(t.shards)*uint64(part)/uint64(parts), uint64(t.shards)*uint64(part+1)/uint64(parts)
	return func(yield func(Direct) bool) {
		for i := first; i < end; i++ {
			for e := range t.shard(uint32(i)).all() {
				if d, ok := directOf(e); ok && !yield(d) {
					return
				}
			}
		}
	}
}

// FindDirect gives one of them by its name on the wire, in lower case.
func (t *Table) FindDirect(name string) (Direct, bool) {
	if !isWireName(name) {
		return Direct{}, false
	}
	e := t.find([]byte(name))
	if e == nil {
		return Direct{}, false
	}
	return directOf(e)
}

// isWireName tells whether labels lead exactly to the end.
func isWireName(name string) bool {
	for len(name) > 0 && name[0] > 0 && name[0] <= maxLabel && 1+int(name[0]) < len(name) {
		name = name[1+int(name[0]):]
	}
	return name == "\x00"
}

func directOf(e *entry) (d Direct, ok bool) {
	if e.shown == 0 || e.shownSets()[0].rtype == dns.TypeCNAME {
		return d, false
	}
	a, aaaa := e.set(dns.TypeA), e.set(dns.TypeAAAA)
	if a == nil && aaaa == nil {
		return d, false
	}
	d = Direct{Name: string(e.name()), Zone: int(e.zone), ApexLength: int(e.apexLen)}
	d.A, d.AAAA = directSet(e, a, 4), directSet(e, aaaa, 16)
	return d, true
}

// directSet reads the records' bodies: type, class, TTL, length, data.
func directSet(e *entry, set *recordSet, size int) (d DirectSet) {
	if set == nil {
		return d
	}
	records := e.shownRecords(set)
	for i := range records {
		body := e.body(&records[i])
		if len(body) != 10+size {
			return DirectSet{Elsewhere: true}
		}
		ttl := binary.BigEndian.Uint32(body[4:])
		if i > 0 && ttl != d.TTL {
			return DirectSet{Elsewhere: true}
		}
		d.TTL, d.Addresses = ttl, append(d.Addresses, body[10:]...)
	}
	return d
}

// DirectChange is what differs between two tables.
type DirectChange struct {
	// Gone are names that had addresses and have others or none.
	Gone []string
	// Changed are those that have new ones.
	Changed []Direct
}

// DirectSince tells what is different from an earlier table. It costs what has
// changed, where one table was made of the other.
func (t *Table) DirectSince(before *Table) (c DirectChange) {
	if before == nil || before.seed != t.seed {
		return t.directOfAll(before)
	}
	if before.shards != t.shards {
		return t.directOfAll(before)
	}
	for g := range t.groups {
		if t.groups[g] == before.groups[g] {
			continue
		}
		for i := range t.groups[g] {
			old, now := &before.groups[g][i], &t.groups[g][i]
			if unsafe.SliceData(old.data) != unsafe.SliceData(now.data) {
				c.compare(old.all(), before, t)
				c.add(now.all(), before)
			}
		}
	}
	return c
}

// directOfAll compares all names.
func (t *Table) directOfAll(before *Table) (c DirectChange) {
	if before != nil {
		c.compare(before.all(), before, t)
	} else {
		before = &Table{}
	}
	c.add(t.all(), before)
	return c
}

// compare collects the old entries that are not the same in the new table.
func (c *DirectChange) compare(old iter.Seq[*entry], before, now *Table) {
	for e := range old {
		was, ok := directOf(e)
		if !ok {
			continue
		}
		if is, ok := now.FindDirect(was.Name); !ok || !is.equal(was) {
			c.Gone = append(c.Gone, was.Name)
		}
	}
}

// add collects the new entries that were not the same in the old table.
func (c *DirectChange) add(now iter.Seq[*entry], before *Table) {
	for e := range now {
		is, ok := directOf(e)
		if !ok {
			continue
		}
		if before.shards > 0 {
			if was, ok := before.FindDirect(is.Name); ok && was.equal(is) {
				continue
			}
		}
		c.Changed = append(c.Changed, is)
	}
}

func (d Direct) equal(o Direct) bool {
	return d.Name == o.Name && d.Zone == o.Zone && d.ApexLength == o.ApexLength && d.A.equal(o.A) && d.AAAA.equal(o.AAAA)
}

func (d DirectSet) equal(o DirectSet) bool {
	return d.TTL == o.TTL && d.Elsewhere == o.Elsewhere && bytes.Equal(d.Addresses, o.Addresses)
}

// DirectFlags gives the flags of every answer, and whether the proxy lets anybody
// ask for every name of its table and wants to see no query: only then somebody
// else may answer for it.
func (p *Proxy) DirectFlags() (flags uint16, ok bool) {
	r, t := p.forward.routes.Load(), p.table.Load()
	if t == nil || p.tap != nil {
		return 0, false
	}
	for name, allowed := range r.access {
		if !isOpen(allowed) && t.touches(name) {
			return 0, false
		}
	}
	return r.flags, true
}

// touches tells whether a zone has names of the table's.
func (t *Table) touches(name string) bool {
	return slices.ContainsFunc(t.zones, func(z zone) bool { return isBelow(z.name, name) || isBelow(name, z.name) })
}

// isBelow tells whether a wire name is another or below it.
func isBelow(name, zone string) bool {
	for len(name) > len(zone) {
		name = parent(name)
	}
	return name == zone
}

// isOpen tells whether the prefixes are everybody.
func isOpen(prefixes []netip.Prefix) bool {
	var v4, v6 bool
	for _, p := range prefixes {
		v4, v6 = v4 || p.Bits() == 0 && p.Addr().Is4(), v6 || p.Bits() == 0 && !p.Addr().Is4()
	}
	return v4 && v6
}

package dnsproxy

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const (
	// fullShard is how many names a shard has on average before all are split.
	fullShard = 16
	// maxEntry bounds what one name has, in bytes; a message has 65,535.
	maxEntry = 4 << 20
	// maxChain is how many CNAMEs an answer may follow.
	maxChain = 8
)

// work is one change on its way into a table.
type work struct {
	*names
	base   *Table
	drafts map[string]*draft
	order  []*draft // those of drafts, in the order that they came
	errors []error
}

// apply makes the next table of claims that go and come. It wants mu held.
func (n *names) apply(removed, added []claim) (*Table, error) {
	w := &work{names: n, base: n.current, drafts: make(map[string]*draft, len(removed)+len(added))}
	for i := range removed {
		if !w.draft(removed[i].name).remove(&removed[i]) {
			return nil, fmt.Errorf("remove a record of %s: it is not there", readable(removed[i].name))
		}
	}
	for i := range added {
		if c := w.draft(added[i].name).put(&added[i]); c != nil {
			w.errors = append(w.errors, c.error(n.ownerName(c.owner), n.ownerName(c.other.owner)))
		}
	}
	if err := errors.Join(w.errors...); err != nil {
		return nil, err
	}
	w.settle()
	for _, d := range w.order {
		if d.size() > maxEntry {
			return nil, fmt.Errorf("%s: the records of %s take %d bytes, at most %d have room", n.ownerName(d.sets[0].owner), readable(d.name), d.size(), maxEntry)
		}
	}
	t := w.table()
	if err := w.checkChains(t); err != nil {
		return nil, err
	}
	n.current = t
	return t, nil
}

func (w *work) draft(name string) *draft {
	d := w.drafts[name]
	if d == nil {
		d = w.base.draftOf(name)
		w.drafts[d.name] = d
		w.order = append(w.order, d)
	}
	return d
}

// settle makes the empty names above others exist, up to their zone's apex, and
// decides what each name answers.
func (w *work) settle() {
	for i := 0; i < len(w.order); i++ { // it grows meanwhile
		w.tellParent(w.order[i])
	}
	for _, d := range w.order {
		d.arrange()
		if d.clash {
			w.clashes[strings.Clone(d.name)] = true
		} else if len(w.clashes) > 0 {
			delete(w.clashes, d.name)
		}
	}
}

// tellParent counts a name that came or went with its parent, which may come or
// go by that.
func (w *work) tellParent(d *draft) {
	for d.exists() != d.counted && !w.isApex(d.name) {
		p := w.draft(parent(d.name))
		isStar := d.name[:2] == "\x01*"
		if d.counted = !d.counted; d.counted {
			p.children++
			p.wildcard = p.wildcard || isStar
		} else {
			p.children--
			p.wildcard = p.wildcard && !isStar
		}
		d = p
	}
}

// table puts the drafts into the shards that they belong to.
func (w *work) table() *Table {
	base := w.base
	t := &Table{
		seed: base.seed, groups: slices.Clone(base.groups), shards: base.shards, shift: base.shift, renames: w.renames, names: base.names, entries: base.entries,
		serial: base.serial, revision: base.revision, zones: base.zones, source: w.names,
	}
	isSame := true
	changed := map[uint32][]*draft{}
	for _, d := range w.order {
		isSame = isSame && d.answersAsBefore()
		i := uint32(maphash.String(t.seed, d.name) >> t.shift)
		changed[i] = append(changed[i], d)
		t.count(d)
	}
	for i, drafts := range changed {
		if at := i / groupSize; t.groups[at] == base.groups[at] {
			copied := *base.groups[at]
			t.groups[at] = &copied
		}
		*t.shard(i) = w.rebuild(t.seed, base.shard(i), nil, drafts)
	}
	for t.entries > fullShard*int(t.shards) {
		t.split()
	}
	if !isSame {
		t.serial++
	}
	return t
}

// count keeps the numbers of names.
func (t *Table) count(d *draft) {
	if e := d.before; e != nil {
		t.entries--
		if e.shown > 0 {
			t.names--
		}
	}
	if d.exists() {
		t.entries++
		if d.shown > 0 {
			t.names++
		}
	}
}

// split doubles the shards.
func (t *Table) split() {
	old := *t
	t.setShards(2 * old.shards)
	for i := range t.shards {
		*t.shard(i) = t.source.rebuild(t.seed, old.shard(i/2), func(hash uint64) bool { return uint32(hash>>t.shift) != i }, nil)
	}
}

// finish gives a table its revision and its SOA records. before is the serial
// of the table before it, or 0; least is what a serial begins with.
func (t *Table) finish(revision uint64, before, least uint32) {
	t.revision = revision
	isSame := t.serial == before && t.zones != nil
	switch {
	case before == 0:
		t.serial = max(least, 1)
	case !isSame:
		t.serial = max(before+1, least)
	}
	if isSame {
		return
	}
	t.zones = nil
	for _, apex := range t.source.apexes {
		t.zones = append(t.zones, zone{name: apex, soa: []byte(recordBody(dns.TypeSOA, DefaultTTL, soa(apex, t.serial)))})
	}
}

// checkChains refuses CNAMEs in a circle and chains that no client would follow.
// A new circle goes through a name that has changed.
func (w *work) checkChains(t *Table) error {
	for _, d := range w.order {
		if d.shown == 0 || d.sets[0].rtype != dns.TypeCNAME {
			continue
		}
		steps := 0
		for target := d.sets[0].records[0].body[10:]; ; steps++ {
			what, at := t.locate([]byte(target))
			if what != found || at.shown == 0 {
				break
			}
			set := &at.shownSets()[0]
			if set.rtype != dns.TypeCNAME {
				break
			}
			if steps == maxChain {
				return fmt.Errorf("%s: the CNAME at %s leads over more than %d others, or in a circle", w.ownerName(d.sets[0].owner), readable(d.name), maxChain)
			}
			target = text(at.body(&at.shownRecords(set)[0]))[10:]
		}
	}
	return nil
}

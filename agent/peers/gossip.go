package peers

import (
	"fmt"
	"time"
)

// learn takes over what is said of a node, and tells whether it was news. What
// is said against this node itself is refuted. Guarded by mu.
func (d *Detector) learn(e entry, now time.Time) bool {
	if e.node == d.self {
		if e.rank == alive && e.incarnation <= d.own || e.rank != alive && e.incarnation < d.own {
			return false
		}
		// One that said more of us than we do knew us before we started.
		d.own, d.stale = e.incarnation, true
		if e.rank != alive {
			d.own++
			d.log.Warn("others took this node for gone; telling them that it is not", "health", e.rank.health())
			d.metrics.refuted.Inc()
			d.tellAll(entry{d.self, d.own, alive}, now)
		}
		return true
	}
	m := d.members[e.node]
	if m == nil || m.known && !e.newer(m.entry) {
		return false
	}
	d.set(m, e, now)
	return true
}

// set makes the entry what is known of the member. Guarded by mu.
func (d *Detector) set(m *member, e entry, now time.Time) {
	before, known := m.entry.rank, m.known
	m.entry, m.known, d.stale = e, true, true
	if e.rank == before && known {
		return
	}
	if e.rank == suspect {
		m.since = now
	}
	if e.rank == alive && before != alive {
		m.evidence, m.refused = now, time.Time{}
	}
	if e.rank == dead != (before == dead) {
		d.choose()
	}
	if known || e.rank != alive {
		d.log.Info("node's health changed", "peer", m.name, "health", e.rank.health(), "incarnation", e.incarnation)
	}
	d.metrics.changes.WithLabelValues(string(e.rank.health())).Inc()
	d.news = append(d.news, change{m.name, e.rank.health()})
}

// judge is a verdict of this node's own: all are told. Guarded by mu.
func (d *Detector) judge(m *member, r rank, now time.Time) {
	e := entry{m.name, m.entry.incarnation, r}
	if !e.newer(m.entry) {
		// Back to life: whoever has reached a node speaks for it, as its agent may
		// not be there to do so.
		e.incarnation++
	}
	d.set(m, e, now)
	d.tellAll(e, now)
}

// tellAll has every member told. Guarded by mu.
func (d *Detector) tellAll(e entry, now time.Time) {
	for _, m := range d.members {
		m.tell(e, now)
	}
}

// sync has a member told all that this node knows beyond the ordinary. Guarded
// by mu.
func (d *Detector) sync(m *member, now time.Time) {
	m.synced = now
	if d.own > 0 {
		m.tell(entry{d.self, d.own, alive}, now)
	}
	for _, o := range d.members {
		if o.known && o.entry.notable() {
			m.tell(o.entry, now)
		}
	}
}

// notable entries are those that a node which starts now does not assume.
func (e entry) notable() bool { return e.incarnation > 0 || e.rank != alive }

// digest of all notable entries: two nodes with the same know the same. Guarded
// by mu.
func (d *Detector) digest() uint64 {
	if !d.stale {
		return d.sum
	}
	d.sum, d.stale = 0, false
	if own := (entry{d.self, d.own, alive}); own.notable() {
		d.sum ^= own.hash()
	}
	for _, m := range d.members {
		if m.known && m.entry.notable() {
			d.sum ^= m.entry.hash()
		}
	}
	return d.sum
}

func (e entry) hash() uint64 { return place(fmt.Sprintf("%s %d %d", e.node, e.incarnation, e.rank)) }

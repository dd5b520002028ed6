package peers

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"
)

// The times of detection: DESIGN.md says why. A node without power is suspect
// after suspectAfter and dead after deadAfter more.
const (
	tick          = 25 * time.Millisecond
	pingEvery     = 100 * time.Millisecond
	pingDeadEvery = time.Second
	// quiet is how long an agent may be silent before its kernel is asked.
	quiet       = 150 * time.Millisecond
	probeEvery  = 100 * time.Millisecond
	probeWithin = 120 * time.Millisecond
	// suspectAfter is how long neither agent nor kernel has answered.
	suspectAfter = 320 * time.Millisecond
	deadAfter    = 230 * time.Millisecond
	askEvery     = 110 * time.Millisecond
	askOf        = 3 // others
	// heardLately is how old the word of a node may be to speak for it, and
	// aroundLately to tell that this node is not cut off itself.
	heardLately  = 250 * time.Millisecond
	aroundLately = 150 * time.Millisecond
	// What is told is told again until it is acknowledged or old.
	tellAgain = 60 * time.Millisecond
	tellFor   = 2 * time.Second
	syncEvery = 500 * time.Millisecond
	// lateness of this node's own clock work that is forgiven to the others.
	lateness = 50 * time.Millisecond
)

// datagram is on its way out.
type datagram struct {
	to   netip.AddrPort
	data []byte
}

// watch judges the members at every tick.
func (d *Detector) watch(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := time.Now()
		d.mu.Lock()
		if late := now.Sub(last) - tick; late > lateness {
			d.forgive(late, now)
		}
		last = now
		var out []datagram
		for _, m := range d.members {
			out = append(out, d.attend(ctx, m, now)...)
		}
		d.release(out)
	}
}

// release unlocks, sends, and tells of changes.
func (d *Detector) release(out []datagram) {
	news := d.news
	d.news = nil
	d.mu.Unlock()
	for _, o := range out {
		// A packet that the network does not take is as one that it loses.
		_, _ = d.conn.WriteToUDPAddrPort(o.data, o.to)
	}
	for _, n := range news {
		d.changed(n.node, n.health)
	}
}

// forgive gives the others the time that this node itself was not running: it
// could not have heard them. Guarded by mu.
func (d *Detector) forgive(late time.Duration, now time.Time) {
	d.metrics.late.Inc()
	for _, m := range d.members {
		m.evidence = earlier(m.evidence.Add(late), now)
		if m.entry.rank == suspect {
			m.since = earlier(m.since.Add(late), now)
		}
	}
}

// attend does what is due for one member. Guarded by mu.
func (d *Detector) attend(ctx context.Context, m *member, now time.Time) (out []datagram) {
	if now.After(m.pendingUntil) {
		clear(m.pending)
	}
	pause := pingEvery
	switch {
	case len(m.pending) > 0:
		pause = tellAgain
	case !m.watched:
		return nil
	case m.entry.rank == dead:
		pause = pingDeadEvery
	}
	if now.Sub(m.pinged) >= pause {
		out = append(out, d.pingOf(m, now))
	}
	if !m.watched {
		return out
	}
	if now.Sub(m.heard) > quiet && !m.probing && now.Sub(m.probed) >= max(probeEvery, pause) {
		m.probing, m.probed = true, now
		go d.probeMember(ctx, m, m.address.Addr())
	}
	last := latest(m.evidence, m.indirect)
	switch m.entry.rank {
	case alive:
		switch {
		case !m.refused.After(m.evidence):
		case now.Sub(last) > suspectAfter && m.refused.After(last) && !d.cutOff(m, now):
			d.judge(m, suspect, now)
		case now.Sub(m.asked) >= askEvery:
			out = append(out, d.ask(m, now)...)
		}
	case suspect:
		switch {
		case last.After(m.since):
			d.judge(m, alive, now)
		case now.Sub(m.since) >= deadAfter && now.Sub(last) > suspectAfter && m.refused.After(m.since) && !d.cutOff(m, now):
			d.judge(m, dead, now)
		case now.Sub(m.asked) >= askEvery:
			out = append(out, d.ask(m, now)...)
		}
	}
	return out
}

// pingOf makes a ping with what the member is to be told. Guarded by mu.
func (d *Detector) pingOf(m *member, now time.Time) datagram {
	m.pinged = now
	entries := m.next()
	nonce := rand.Uint64() | 1
	m.ping(nonce, entries)
	d.metrics.pings.Inc()
	return d.packetTo(m, packet{kind: kindPing, nonce: nonce, entries: entries}, m.address)
}

// packetTo completes a packet. What is known of the receiver itself goes with
// each, so that it can refute it. Guarded by mu.
func (d *Detector) packetTo(m *member, p packet, to netip.AddrPort) datagram {
	d.sequence++
	p.from, p.session, p.sequence, p.digest = d.self, d.session, d.sequence, d.digest()
	if p.receiver == 0 {
		p.receiver = m.replayed.session
	}
	if m.known && m.entry.notable() {
		p.entries = append(p.entries[:len(p.entries):len(p.entries)], m.entry)
	}
	return datagram{to, p.encode(nil, d.key)}
}

// ask has others try whether they reach the member. Guarded by mu.
func (d *Detector) ask(m *member, now time.Time) (out []datagram) {
	m.asked = now
	for _, o := range d.members { // the order of a map is random enough
		if o == m || o.entry.rank != alive || o.replayed.session == 0 || now.Sub(o.evidence) > heardLately {
			continue
		}
		out = append(out, d.packetTo(o, packet{kind: kindAsk, node: m.name}, o.address))
		if len(out) == askOf {
			break
		}
	}
	return out
}

// cutOff tells whether it is this node that nobody is heard of at, the member
// aside. With only two nodes there is no telling, and the other is to blame.
// Guarded by mu.
func (d *Detector) cutOff(m *member, now time.Time) bool {
	if now.Sub(d.vouched) < suspectAfter {
		return false
	}
	others := false
	for _, o := range d.members {
		if o == m || o.entry.rank == dead {
			continue
		}
		if now.Sub(o.evidence) < aroundLately {
			return false
		}
		others = true
	}
	return others
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

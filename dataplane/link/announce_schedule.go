package link

import (
	"context"
	"net/netip"
	"time"
)

// schedule says when an address is announced. Run alone changes it.
type schedule struct {
	taken    time.Time // when Set brought the address
	next     time.Time
	round    int       // announcements so far
	reported time.Time // when a conflict was last reported
}

// After a take-over an address is announced three times, since one frame may be
// lost; then every Refresh, for hosts that came or were cut off in between.
var takeOver = []time.Duration{250 * time.Millisecond, 750 * time.Millisecond}

// No more than burst addresses are announced at a time, with a pause between
// bursts: a take-over of thousands must not fill the queues of switches.
const (
	burst = 64
	pause = 5 * time.Millisecond
)

// grace is how long an election may take: within it two nodes may answer for
// one address, which is no conflict.
const grace = 500 * time.Millisecond

// tellAgain is how often a conflict that lasts is reported.
const tellAgain = 10 * time.Second

// portInterval is how often the interface itself is looked at.
const portInterval = time.Second

// keepAnnounced sends announcements when they are due, and judges claims.
func (a *Announcer) keepAnnounced(ctx context.Context) error {
	port, err := a.arp.port(a.o.Interface, a.index)
	if err != nil {
		return err
	}
	pending := map[netip.Addr]suspicion{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	looked := time.Now()
	var repeated time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case claim := <-a.claims:
			a.suspect(pending, claim)
		case <-a.wake:
		case <-timer.C:
		}
		now, owned := time.Now(), *a.owned.Load()
		a.quiet.mark(now)
		if now.Sub(looked) >= portInterval {
			before := port
			looked = now
			if port, err = a.arp.port(a.o.Interface, a.index); err != nil {
				return err
			}
			if port.Ready && port != before {
				restart(owned, now)
			}
		}
		if now.Sub(repeated) >= time.Second && a.again.Swap(false) {
			repeated = now
			restart(owned, now)
		}
		judge(owned, pending, now)
		wait := beatInterval
		if port.Ready && !a.quiet.silent(now) {
			wait = min(wait, a.announceDue(owned, port.MAC, now))
		}
		timer.Reset(wait)
	}
}

// restart announces everything as after a take-over: the interface has a
// carrier again, so perhaps another switch, or a new Ethernet address.
func restart(owned map[netip.Addr]*schedule, now time.Time) {
	for _, s := range owned {
		s.next, s.round = now, 0
	}
}

// announceDue announces what is due and returns the time until more is.
func (a *Announcer) announceDue(owned map[netip.Addr]*schedule, mac MAC, now time.Time) time.Duration {
	list, _ := due(owned, now, burst)
	for _, addr := range list {
		s := owned[addr]
		a.announce(addr, mac, s)
		s.round++
		s.next = now.Add(a.o.Refresh)
		if s.round <= len(takeOver) {
			s.next = now.Add(takeOver[s.round-1])
		}
	}
	_, next := due(owned, now, burst)
	if next.IsZero() {
		return portInterval
	}
	return max(time.Until(next), pause)
}

// announce sends the announcements of one address. With every one but the
// first two goes a probe: a foreign host that has the address answers it,
// while its answers to others never come by here.
func (a *Announcer) announce(addr netip.Addr, mac MAC, s *schedule) {
	a.announced.Add(1)
	if addr.Is4() {
		a.send(arpAnnouncements(addr, mac)...)
		if s.round >= 2 {
			a.send(arpProbe(addr, mac))
		}
		return
	}
	a.send(ndpAnnouncement(addr, mac))
	if s.round >= 2 {
		a.send(ndpProbe(addr, mac))
	}
}

// suspicion is a first claim that may yet turn out to be of a node that is
// giving the address up.
type suspicion struct {
	since time.Time
	asked bool
}

// suspect takes note of a claim, and reports it when the claimer has had time
// to give up and was asked once more.
func (a *Announcer) suspect(pending map[netip.Addr]suspicion, claim Conflict) {
	s := (*a.owned.Load())[claim.Address]
	if s == nil || claim.At.Sub(s.taken) < grace {
		return
	}
	p, known := pending[claim.Address]
	if !known {
		pending[claim.Address] = suspicion{since: claim.At}
		return
	}
	if !p.asked || claim.At.Sub(p.since) < grace {
		return
	}
	delete(pending, claim.Address)
	a.mu.Lock()
	a.conflicts[claim.Address] = claim
	a.mu.Unlock()
	if claim.At.Sub(s.reported) < tellAgain {
		return
	}
	s.reported = claim.At
	a.o.Log.Warn("virtual address in use elsewhere", "address", claim.Address, "mac", claim.MAC.String(), "interface", a.o.Interface)
	if a.o.Conflict != nil {
		a.o.Conflict(claim)
	}
}

// judge asks once more after those addresses whose grace is over, with the
// announcement that RFC 5227 section 2.4 defends an address by; who has given
// up does not answer.
func judge(owned map[netip.Addr]*schedule, pending map[netip.Addr]suspicion, now time.Time) {
	for addr, p := range pending {
		s := owned[addr]
		switch {
		case s == nil || now.Sub(p.since) > 4*grace:
			delete(pending, addr)
		case !p.asked && now.Sub(p.since) >= grace:
			s.next, s.round = now, max(s.round, 2)
			pending[addr] = suspicion{p.since, true}
		}
	}
}

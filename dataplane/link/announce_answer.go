package link

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// tooOld is when a request is answered no more. A process that was stopped
// finds old requests in its socket when it goes on, and another node may have
// taken over meanwhile; who still wants an answer asks again.
const tooOld = 500 * time.Millisecond

// answer hands the frames of a socket to take until ctx ends.
func (a *Announcer) answer(ctx context.Context, s *packetSocket, take func(frame []byte, at time.Time)) error {
	buffer := make([]byte, 2048)
	for {
		frame, at, err := s.receive(buffer)
		switch {
		case ctx.Err() != nil || errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, unix.ENETDOWN): // told once for every time the interface goes down
			continue
		case errors.Is(err, unix.ENOBUFS):
			continue
		case err != nil:
			return err
		}
		if now := time.Now(); now.Sub(at) > tooOld || a.quiet.silent(now) {
			a.stale.Add(1)
			continue
		}
		take(frame, at)
	}
}

// self is the Ethernet address to answer with.
func (a *Announcer) self() (MAC, bool) {
	p, err := a.arp.port(a.o.Interface, a.index)
	return p.MAC, err == nil
}

func (a *Announcer) owns(addr netip.Addr) bool { return (*a.owned.Load())[addr] != nil }

func (a *Announcer) answerARP(frame []byte, at time.Time) {
	p, ok := parseARP(frame)
	if !ok || !a.owns(p.Sender) && !a.owns(p.Target) {
		return
	}
	mac, ok := a.self()
	switch {
	case !ok || p.SenderMAC == mac: // a loop of the segment brought our own frame back
	case a.owns(p.Sender):
		a.claim(Conflict{p.Sender, p.SenderMAC, at})
	case p.Operation == arpRequest:
		a.send(arpAnswer(p, mac))
		a.answered.Add(1)
	}
}

func (a *Announcer) answerNDP(frame []byte, at time.Time) {
	m, ok := parseNDP(frame)
	if !ok || !a.owns(m.Target) && !a.owns(m.Source) {
		return
	}
	source := MAC(frame[6:12])
	mac, ok := a.self()
	switch {
	case !ok || source == mac:
	case m.Type == ndpSolicitation && a.owns(m.Source):
		a.claim(Conflict{m.Source, source, at})
	case m.Type == ndpSolicitation && a.owns(m.Target):
		a.send(ndpAnswer(m, source, mac))
		a.answered.Add(1)
	case m.Type == ndpAdvertisement && a.owns(m.Target) && (!m.HasLink || m.Link != mac):
		if m.HasLink {
			source = m.Link
		}
		a.claim(Conflict{m.Target, source, at})
	}
}

// claim hands a foreign claim on. When many wait already, it is one more of
// them and only counted.
func (a *Announcer) claim(c Conflict) {
	a.claimed.Add(1)
	select {
	case a.claims <- c:
	default:
	}
}

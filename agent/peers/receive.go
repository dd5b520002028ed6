package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// receive takes packets in until the socket is closed.
func (d *Detector) receive(ctx context.Context) error {
	buffer := make([]byte, 2*maxPacket)
	for {
		n, from, err := d.conn.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive from peers: %w", err)
		}
		p, err := decode(buffer[:n], d.key)
		if err != nil {
			d.metrics.refused.WithLabelValues(reasonOf(err)).Inc()
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		d.mu.Lock()
		d.release(d.take(ctx, p, from, time.Now()))
	}
}

func reasonOf(err error) string {
	switch {
	case errors.Is(err, errForged):
		return "forged"
	case errors.Is(err, errOther):
		return "other"
	default:
		return "short"
	}
}

// take does what a packet asks for. Guarded by mu.
func (d *Detector) take(ctx context.Context, p *packet, from netip.AddrPort, now time.Time) (out []datagram) {
	m := d.members[p.from]
	if m == nil {
		d.metrics.refused.WithLabelValues("stranger").Inc()
		return nil
	}
	// A ping is answered whatever it says of our session: that is how the other
	// learns it.
	answer := func() []datagram {
		if p.kind != kindPing {
			return nil
		}
		return []datagram{d.packetTo(m, packet{kind: kindAck, nonce: p.nonce, receiver: p.session}, from)}
	}
	carried := m.carried[p.nonce]
	fresh := p.receiver == d.session
	if p.kind == kindAck {
		fresh = fresh && m.acked(p.nonce)
	}
	// What went out for another session of the member was not believed.
	believed := p.session == m.replayed.session
	if !fresh || !m.replayed.fresh(p) {
		if p.kind != kindPing || p.receiver != 0 && p.receiver == d.session {
			d.metrics.refused.WithLabelValues("replayed").Inc()
		}
		return answer()
	}
	d.heard(m, now)
	for _, e := range p.entries {
		d.learn(e, now)
	}
	if p.kind == kindAck && believed {
		m.arrived(carried)
	}
	if p.digest != d.digest() && now.Sub(m.synced) >= syncEvery {
		d.sync(m, now)
	}
	switch p.kind {
	case kindAsk:
		return d.answerAsk(ctx, m, p.node, from, now)
	case kindAnswer:
		if about := d.members[p.node]; about != nil && p.reached {
			about.indirect = now
		}
	}
	return answer()
}

// heard notes that the member's agent has just spoken. Guarded by mu.
func (d *Detector) heard(m *member, now time.Time) {
	m.heard, m.evidence = now, now
	d.present(m, now)
}

// present corrects what is known of a member that is there. Guarded by mu.
func (d *Detector) present(m *member, now time.Time) {
	switch {
	case !m.known:
		d.set(m, entry{m.name, 0, alive}, now)
	case m.entry.rank != alive:
		d.judge(m, alive, now)
	}
}

// answerAsk tells another node whether this one reaches a third. Guarded by mu.
func (d *Detector) answerAsk(ctx context.Context, m *member, node string, to netip.AddrPort, now time.Time) []datagram {
	about := d.members[node]
	if about == nil {
		return nil
	}
	if now.Sub(about.heard) < heardLately {
		return []datagram{d.packetTo(m, packet{kind: kindAnswer, node: node, reached: true}, to)}
	}
	address := about.address.Addr()
	go func() {
		if d.probe(ctx, address, probeWithin) != Reached {
			return // silence says the same
		}
		d.mu.Lock()
		d.release([]datagram{d.packetTo(m, packet{kind: kindAnswer, node: node, reached: true}, to)})
	}()
	return nil
}

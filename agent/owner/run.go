package owner

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// Why a node takes no part.
const (
	notReady   = "not ready to serve the addresses"
	noGroup    = "the group has no addresses"
	linkDown   = "the interface is down"
	noAddress4 = "the interface has no IPv4 address"
	noAddress6 = "the interface has no link-local IPv6 address that is checked for duplicates"
	mute       = "advertisements cannot be sent"
	stopped    = "stopped"
)

// lookAgain is how often the interface's own address is looked up.
const lookAgain = 5 * time.Second

// election is the loop's own memory.
type election struct {
	*Elector
	state  State
	self   netip.Addr
	looked time.Time
	wanted []netip.Addr
	failed int // advertisements in a row that could not be sent
}

// tooMuted is how many failures in a row end an ownership: the others have
// heard nothing for as long as makes them take over.
const tooMuted = 3

func (e *Elector) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	received := make(chan datagram, 16)
	group.Go(func() error { return e.listen(ctx, received) })
	group.Go(func() error {
		defer e.link.close()
		return (&election{Elector: e}).take(ctx, received)
	})
	return group.Wait()
}

// listen hands over what arrives, until the socket is closed.
func (e *Elector) listen(ctx context.Context, received chan<- datagram) error {
	buffer := make([]byte, 2048)
	for {
		d, err := e.link.receive(buffer)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if transient(err) {
			continue
		}
		if err != nil {
			return err
		}
		select {
		case received <- d:
		case <-ctx.Done():
			return nil
		}
	}
}

func (e *election) take(ctx context.Context, received <-chan datagram) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer func() { // also when the interface has failed
		e.step(Stop{})
		e.note(stopped)
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-received:
			e.hear(d)
		case <-e.wake:
		case <-timer.C:
		}
		// What has arrived comes before what is due: after a standstill the
		// packets tell that another node has taken over.
		for more := true; more; {
			select {
			case d := <-received:
				e.hear(d)
			default:
				more = false
			}
		}
		reason, err := e.fit()
		if err != nil {
			return err
		}
		if reason == "" {
			e.step(Start{})
			e.step(Tick{})
		} else {
			e.step(Stop{})
		}
		if e.failed > 0 && e.state.Role != Owner {
			reason = mute
		}
		e.note(reason)
		wait := e.o.Interval
		if e.state.Role != Idle {
			wait = min(wait, max(time.Until(e.state.Deadline), 0))
		}
		timer.Reset(wait)
	}
}

// fit tells why this node can take no part now; empty when it can.
func (e *election) fit() (string, error) {
	e.mu.Lock()
	ready, changed := e.ready, !slices.Equal(e.wanted, e.addresses)
	e.wanted = e.addresses
	e.mu.Unlock()
	up, err := e.link.up()
	switch {
	case err != nil:
		return "", err
	case !ready:
		return notReady, nil
	case len(e.wanted) == 0:
		return noGroup, nil
	case !up:
		return linkDown, nil
	}
	if now := time.Now(); changed || !e.self.IsValid() || now.Sub(e.looked) > lookAgain {
		e.self, e.looked = e.link.primary(e.wanted), now
	}
	if !e.self.IsValid() && e.o.Family == IPv4 {
		return noAddress4, nil
	} else if !e.self.IsValid() {
		return noAddress6, nil
	}
	return "", nil
}

// hear judges a packet and takes the step it asks for.
func (e *election) hear(d datagram) {
	p, fault := decode(d.payload, d.source, d.destination)
	switch {
	case d.ttl != hops:
		fault = BadTTL
	case fault == "" && p.VRID != e.o.VRID:
		fault = OtherGroup
	case fault == "" && d.source == e.self:
		fault = OwnPacket
	}
	told := e.wanted[:min(len(e.wanted), maxAddresses)]
	e.mu.Lock()
	if fault != "" {
		e.status.Counters.Ignored[fault]++
	} else {
		e.status.Counters.Received++
		if p.Interval != e.o.Interval || p.Priority != 0 && !slices.Equal(p.Addresses, told) {
			e.status.Counters.Mismatched++
		}
	}
	e.mu.Unlock()
	if fault == "" {
		e.step(Advert{From: d.source, Priority: p.Priority, Interval: p.Interval})
	}
}

// step takes one step and does what it asks for. Who ceases to be the owner
// says so first to its own node, then to the others; who becomes it, the other
// way round, and not when the others cannot be told: a node whose packets do
// not get out serves nobody.
func (e *election) step(event Event) {
	config := Config{Priority: e.o.Priority, Interval: e.o.Interval, Preempt: e.o.Preempt, Address: e.self}
	before := e.state.Role
	var do Actions
	e.state, do = Step(config, e.state, event, time.Now())
	if before == Owner && e.state.Role != Owner {
		e.tell(false)
	}
	if do.Advertise {
		e.advertise(do.Priority)
	}
	if e.state.Role == Owner && e.failed > 0 && (before != Owner || e.failed >= tooMuted) {
		e.state = State{}
		if before == Owner {
			e.tell(false)
		}
		return
	}
	if before != Owner && e.state.Role == Owner {
		e.tell(true)
	}
	if do.Announce && e.o.OnRival != nil {
		e.o.OnRival()
	}
}

func (e *election) tell(owner bool) {
	e.o.Log.Info("ownership changed", "group", e.o.VRID, "family", uint8(e.o.Family), "interface", e.o.Interface, "owner", owner)
	if e.o.OnChange != nil {
		e.o.OnChange(owner)
	}
}

func (e *election) advertise(priority uint8) {
	p := packet{VRID: e.o.VRID, Priority: priority, Interval: e.o.Interval, Addresses: e.wanted}
	err := e.link.send(p.encode(e.self, e.link.group), e.self)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.failed++
		e.status.Counters.Failed++
		e.o.Log.Debug("advertisement not sent", "group", e.o.VRID, "interface", e.o.Interface, "error", err)
		return
	}
	e.failed = 0
	e.status.Counters.Sent++
}

// note takes down the state for State.
func (e *election) note(reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := &e.status; s.Role != e.state.Role {
		s.Role, s.Since = e.state.Role, time.Now()
		if s.Role == Owner {
			s.Counters.TakeOvers++
		}
	}
	e.status.Owner, e.status.Reason = e.state.Owner, reason
}

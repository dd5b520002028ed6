package owner

import (
	"net/netip"
	"time"
)

// Role of a node in a group; in the words of RFC 9568 Initialize, Backup and
// Active.
type Role uint8

// The roles.
const (
	Idle    Role = iota // takes no part
	Standby             // would take over
	Owner
)

func (r Role) String() string { return [...]string{"idle", "standby", "owner"}[r] }

// MarshalText implements encoding.TextMarshaler.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Config is what Step knows of this node.
type Config struct {
	Priority uint8
	Interval time.Duration
	Preempt  bool
	Address  netip.Addr // its own on the segment; decides between equal priorities
}

// State of the election as this node sees it.
type State struct {
	Role Role
	// Deadline is when Tick is due: for the owner's next advertisement, or for
	// the take-over from a silent owner.
	Deadline time.Time
	// OwnerInterval is the interval that the present owner advertises.
	OwnerInterval time.Duration
	// Owner is where its last advertisement came from; invalid when none did.
	Owner netip.Addr
}

// Event is what happens to a node: Start, Stop, Tick or Advert.
type Event interface{ event() }

type (
	// Start: this node may own the group from now on.
	Start struct{}
	// Stop: it may not any more.
	Stop struct{}
	// Tick: time has passed.
	Tick struct{}
	// Advert: another node has advertised that it is the owner or, with
	// priority 0, that it ceases to be it.
	Advert struct {
		From     netip.Addr
		Priority uint8
		Interval time.Duration
	}
)

func (Start) event()  {}
func (Stop) event()   {}
func (Tick) event()   {}
func (Advert) event() {}

// Actions are what a step asks for.
type Actions struct {
	// Advertise the priority to the other nodes.
	Advertise bool
	Priority  uint8
	// Announce the addresses again: another node has owned them, too, and
	// clients may have them there.
	Announce bool
}

// skew spreads the take-overs of standbys: the higher the priority, the sooner.
func skew(c Config, interval time.Duration) time.Duration {
	return time.Duration(256-int(c.Priority)) * interval / 256
}

// ownerDown is how long an owner is silent before this node takes over.
func ownerDown(c Config, interval time.Duration) time.Duration {
	return 3*interval + skew(c, interval)
}

// Step is the state machine of RFC 9568 section 6.4, without priority 255. It
// departs from it once: an owner that has missed its deadline for so long that
// another node may have taken over, because its process was stopped or starved,
// stands back and listens before it says anything.
func Step(c Config, s State, e Event, now time.Time) (State, Actions) {
	if _, ends := e.(Stop); !ends && s.Role == Owner && now.Sub(s.Deadline) > 2*c.Interval {
		s = standBy(c, c.Interval, netip.Addr{}, now)
	}
	switch e := e.(type) {
	case Start:
		if s.Role == Idle {
			return standBy(c, c.Interval, netip.Addr{}, now), Actions{}
		}
	case Stop:
		resign := s.Role == Owner
		return State{}, Actions{Advertise: resign}
	case Tick:
		return tick(c, s, now)
	case Advert:
		switch s.Role {
		case Standby:
			return heardByStandby(c, s, e, now), Actions{}
		case Owner:
			return heardByOwner(c, e, now)
		}
	}
	return s, Actions{}
}

func standBy(c Config, interval time.Duration, owner netip.Addr, now time.Time) State {
	return State{Role: Standby, Deadline: now.Add(ownerDown(c, interval)), OwnerInterval: interval, Owner: owner}
}

func own(c Config, now time.Time) (State, Actions) {
	s := State{Role: Owner, Deadline: now.Add(c.Interval), OwnerInterval: c.Interval, Owner: c.Address}
	return s, Actions{Advertise: true, Priority: c.Priority}
}

func tick(c Config, s State, now time.Time) (State, Actions) {
	if s.Role == Idle || now.Before(s.Deadline) {
		return s, Actions{}
	}
	return own(c, now)
}

func heardByStandby(c Config, s State, a Advert, now time.Time) State {
	switch {
	case a.Priority == 0:
		s.Deadline, s.Owner = now.Add(skew(c, s.OwnerInterval)), netip.Addr{}
		return s
	case c.Preempt && a.Priority < c.Priority:
		s.Owner = a.From // for people; it is outranked when the deadline comes
		return s
	}
	return standBy(c, a.Interval, a.From, now)
}

func heardByOwner(c Config, a Advert, now time.Time) (State, Actions) {
	outranked := a.Priority > c.Priority || a.Priority == c.Priority && a.From.Compare(c.Address) > 0
	if a.Priority != 0 && outranked {
		return standBy(c, a.Interval, a.From, now), Actions{}
	}
	// The other one learns at once that it is not alone, and so do switches
	// between, after a partition has healed.
	s, do := own(c, now)
	do.Announce = a.Priority != 0
	return s, do
}

// Package owner elects, among the edge nodes on one segment, the one that a
// group of virtual addresses is at, and tells when this node becomes or ceases
// to be it. It speaks VRRP version 3 (RFC 9568) and neither announces addresses
// (that is dataplane/link's Announcer) nor touches the kernel's tables. A Hook
// tells routing daemons which virtual addresses this node serves. The agent
// runs both on edge nodes.
//
// VRRP's virtual MAC is not used: the owner answers with the MAC of its own
// interface and moves the clients' caches by announcements. A virtual MAC would
// need a macvlan on the edge interface, past which the packet program would
// have to send, and a switch that lets a port speak with two addresses, which
// clouds and port security forbid. What it buys, caches that stay as they are,
// a few announcements do as well within milliseconds.
package owner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Limits and defaults of Options.
const (
	DefaultInterval = 200 * time.Millisecond
	MinInterval     = 10 * time.Millisecond
	MaxInterval     = 40 * time.Second
	// MaxPriority is the highest of a node. 255 is for a router that bears the
	// virtual address as its own, which no Weir node does.
	MaxPriority = 254
)

// Family is the IP version that the routers speak with each other and that the
// addresses are of. RFC 9568 elects separately for each.
type Family uint8

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Options configure an Elector.
type Options struct {
	// Interface by name, on the segment of the clients and of the other nodes.
	Interface string
	Family    Family
	// VRID tells groups on one segment apart, also from groups of other VRRP
	// routers there; 1 to 255, the same on all nodes of the group.
	VRID uint8
	// Priority is 1 to MaxPriority; of the nodes that are ready, the one with
	// the highest is the owner, at equal ones that with the highest address.
	// See PriorityOf.
	Priority uint8
	// Interval between advertisements; DefaultInterval when zero, MinInterval to
	// MaxInterval in steps of 10 ms. A silent owner is replaced after three to
	// four intervals.
	Interval time.Duration
	// Preempt makes this node take over from a ready owner of lower priority.
	// Without it an owner stays until it fails.
	Preempt bool
	// OnChange is called from Run with true when this node has become the
	// owner, with false when it ceases to be it, the latter before any other
	// node can know. It must not block. May be nil.
	OnChange func(owner bool)
	// OnRival is called from Run when this node is the owner and has heard of
	// another one, as after a partition. That one gives way, but clients may
	// have the addresses there: they must be announced again. It must not block.
	// May be nil.
	OnRival func()
	// Log may be nil.
	Log *slog.Logger
}

// Validate names the first field with a wrong value.
func (o Options) Validate() error {
	switch {
	case o.Interface == "":
		return errors.New("interface is missing")
	case o.Family != IPv4 && o.Family != IPv6:
		return fmt.Errorf("family %d is neither 4 nor 6", o.Family)
	case o.VRID == 0:
		return errors.New("vrid 0 is not within 1 to 255")
	case o.Priority < 1 || o.Priority > MaxPriority:
		return fmt.Errorf("priority %d is not within 1 to %d", o.Priority, MaxPriority)
	case o.Interval != 0 && (o.Interval < MinInterval || o.Interval > MaxInterval || o.Interval%centisecond != 0):
		return fmt.Errorf("interval %s is not within %s to %s in steps of %s", o.Interval, MinInterval, MaxInterval, centisecond)
	}
	return nil
}

// Elector takes part in the election of one group.
type Elector struct {
	o    Options
	link *segment
	wake chan struct{}

	mu        sync.Mutex // guards what follows
	ready     bool
	addresses []netip.Addr
	status    Status
}

// Status is what an Elector knows.
type Status struct {
	Role Role
	// Since when it has been in this role.
	Since time.Time
	// Owner is the address of the node that owns the group: this one's where it
	// is the owner, invalid where none is known.
	Owner netip.Addr
	// Reason says why this node takes no part; empty where it does.
	Reason   string
	Counters Counters
}

// Counters count since the Elector was made.
type Counters struct {
	Sent, Received uint64 // advertisements
	// Ignored are packets that were no advertisement for this group, by why.
	Ignored map[Fault]uint64
	// Mismatched are advertisements with another interval or other addresses
	// than here; they are taken all the same.
	Mismatched uint64
	Failed     uint64 // advertisements that could not be sent
	TakeOvers  uint64 // times this node became the owner
}

// New opens its sockets on the interface. It takes part in nothing before Run
// and Ready, and does not own a group without addresses.
func New(o Options) (*Elector, error) {
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("make elector: %w", err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	link, err := openSegment(o.Interface, o.Family)
	if err != nil {
		return nil, fmt.Errorf("make elector on %s: %w", o.Interface, err)
	}
	e := &Elector{o: o, link: link, wake: make(chan struct{}, 1)}
	e.status = Status{Since: time.Now(), Reason: notReady, Counters: Counters{Ignored: map[Fault]uint64{}}}
	return e, nil
}

// Ready says whether this node could serve the group: its packet program holds
// the services and it has a way to their backends. A node that is not ready
// neither owns nor stands by.
func (e *Elector) Ready(ready bool) {
	e.mu.Lock()
	e.ready = ready
	e.mu.Unlock()
	e.poke()
}

// SetAddresses says what the group's addresses are; they are told to the other
// nodes, which only compare them. It fails on one of the other family.
func (e *Elector) SetAddresses(addresses []netip.Addr) error {
	list := make([]netip.Addr, 0, len(addresses))
	for _, a := range addresses {
		a = a.Unmap()
		if a.Is4() != (e.o.Family == IPv4) {
			return fmt.Errorf("set addresses of group %d: %s is not IPv%d", e.o.VRID, a, e.o.Family)
		}
		list = append(list, a)
	}
	slices.SortFunc(list, netip.Addr.Compare)
	e.mu.Lock()
	e.addresses = slices.Compact(list)
	e.mu.Unlock()
	e.poke()
	return nil
}

func (e *Elector) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// State is read at any time.
func (e *Elector) State() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.status
	ignored := make(map[Fault]uint64, len(s.Counters.Ignored))
	for f, n := range s.Counters.Ignored {
		ignored[f] = n
	}
	s.Counters.Ignored = ignored
	return s
}

// Run takes part until ctx ends, and then hands the group over to the next
// node at once. It fails when the interface is gone: make a new Elector then.
func (e *Elector) Run(ctx context.Context) error {
	if err := e.run(ctx); err != nil {
		return fmt.Errorf("elect owner of group %d on %s: %w", e.o.VRID, e.o.Interface, err)
	}
	return nil
}

// Close lets go of the sockets of an Elector that does not Run.
func (e *Elector) Close() error { return e.link.close() }

package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// AnnounceOptions configure an Announcer.
type AnnounceOptions struct {
	// Interface is the name of an Ethernet interface on the clients' segment.
	Interface string
	// Refresh is how often every address is announced again; 10 s when zero.
	Refresh time.Duration
	// Conflict is called, from Run, when another host is seen to use an address
	// that is announced here; at most every 10 s for one address. It must not
	// block. May be nil.
	Conflict func(Conflict)
	// Log may be nil.
	Log *slog.Logger
}

// Conflict is a foreign host that uses a virtual address.
type Conflict struct {
	Address netip.Addr
	MAC     MAC       // of the foreign host
	At      time.Time // when it was seen last
}

// Announcer makes an interface the place of virtual addresses on its segment:
// it tells all hosts, and answers those who ask. The addresses are put on no
// interface, so nothing else of the node listens there or sends from them.
type Announcer struct {
	o        AnnounceOptions
	index    int
	arp, ndp *packetSocket
	// owned is replaced whole, so that answers need no lock. Its schedules are
	// read and written by Run alone.
	owned  atomic.Pointer[map[netip.Addr]*schedule]
	wake   chan struct{}
	claims chan Conflict
	quiet  standstill
	again  atomic.Bool // Repeat was called

	mu        sync.Mutex // guards what follows, and Set against Set
	groups    groups
	closed    bool
	conflicts map[netip.Addr]Conflict

	announced, answered, stale, failed, claimed atomic.Uint64
}

// AnnounceCounters count since the Announcer was made.
type AnnounceCounters struct {
	Announced uint64 // announcements of one address
	Answered  uint64 // requests and solicitations
	Stale     uint64 // of them not answered because they had waited too long
	Claims    uint64 // frames in which another host claimed an address
	Failed    uint64 // frames that could not be sent
}

// NewAnnouncer opens its sockets on the interface. It announces nothing before
// Set and does nothing outside of Run.
func NewAnnouncer(o AnnounceOptions) (*Announcer, error) {
	if o.Refresh == 0 {
		o.Refresh = 10 * time.Second
	}
	if o.Refresh < time.Second {
		return nil, fmt.Errorf("make announcer: refresh %s is shorter than 1s", o.Refresh)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	index, err := ethernet(o.Interface)
	if err != nil {
		return nil, fmt.Errorf("make announcer: %w", err)
	}
	a := &Announcer{
		o: o, index: index, wake: make(chan struct{}, 1), claims: make(chan Conflict, 64),
		groups: groups{iface: index, members: map[netip.Addr]int{}}, conflicts: map[netip.Addr]Conflict{},
	}
	a.quiet.epoch = time.Now()
	a.owned.Store(&map[netip.Addr]*schedule{})
	if a.arp, err = openPacket(index, etherARP, arpFilter); err != nil {
		return nil, fmt.Errorf("make announcer on %s: %w", o.Interface, err)
	}
	if a.ndp, err = openPacket(index, etherIPv6, ndpFilter); err != nil {
		a.arp.close()
		return nil, fmt.Errorf("make announcer on %s: %w", o.Interface, err)
	}
	return a, nil
}

// Set makes the addresses, and none other, the ones that are announced and
// answered for. When it returns, no request for another one is answered any
// more. New ones are announced at once, and again after 250 ms and 1 s. It does
// not block, and after Run has ended it does nothing. The error says which
// multicast groups could not be joined: IPv6 hosts may then not find the
// address before the next announcement.
func (a *Announcer) Set(addresses []netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	old, now := *a.owned.Load(), time.Now()
	owned := make(map[netip.Addr]*schedule, len(addresses))
	for _, addr := range addresses {
		addr = addr.Unmap()
		if s, ok := old[addr]; ok {
			owned[addr] = s
		} else {
			owned[addr] = &schedule{taken: now, next: now}
		}
	}
	a.owned.Store(&owned)
	a.poke()
	maps.DeleteFunc(a.conflicts, func(addr netip.Addr, _ Conflict) bool { return owned[addr] == nil })
	if a.closed {
		return nil
	}
	if err := a.groups.set(owned); err != nil {
		return fmt.Errorf("listen for solicitations on %s: %w", a.o.Interface, err)
	}
	return nil
}

func (a *Announcer) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Repeat announces all addresses again as after a take-over, since some host
// may believe them elsewhere; at most once a second. It does not block.
func (a *Announcer) Repeat() {
	a.again.Store(true)
	a.poke()
}

// Conflicts are the foreign uses seen within the last three refreshes of
// addresses that are announced now, sorted by address.
func (a *Announcer) Conflicts() []Conflict {
	a.mu.Lock()
	defer a.mu.Unlock()
	oldest := time.Now().Add(-3 * a.o.Refresh)
	maps.DeleteFunc(a.conflicts, func(addr netip.Addr, c Conflict) bool { return c.At.Before(oldest) || !a.owns(addr) })
	return slices.SortedFunc(maps.Values(a.conflicts), func(x, y Conflict) int { return x.Address.Compare(y.Address) })
}

// Counters are read at any time.
func (a *Announcer) Counters() AnnounceCounters {
	return AnnounceCounters{a.announced.Load(), a.answered.Load(), a.stale.Load(), a.claimed.Load(), a.failed.Load()}
}

// Run announces and answers until ctx ends, and closes the sockets. It fails
// when the interface is gone, also when one of the same name has taken its
// place: make a new Announcer then.
func (a *Announcer) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.answer(ctx, a.arp, a.answerARP) })
	group.Go(func() error { return a.answer(ctx, a.ndp, a.answerNDP) })
	group.Go(func() error { return a.keepAnnounced(ctx) })
	group.Go(func() error { <-ctx.Done(); return a.Close() })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("announce on %s: %w", a.o.Interface, err)
	}
	return nil
}

// Close lets go of the sockets of an Announcer, and is only needed of one that
// does not Run.
func (a *Announcer) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.groups.close()
	return errors.Join(closed(a.arp.file.Close()), closed(a.ndp.file.Close()))
}

// closed takes closing twice as done.
func closed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// send sends the frames, and counts what fails: the next announcement makes up
// for it.
func (a *Announcer) send(frames ...[]byte) {
	for _, f := range frames {
		if err := a.arp.send(a.index, f); err != nil {
			a.failed.Add(1)
			a.o.Log.Debug("frame not sent", "interface", a.o.Interface, "error", err)
		}
	}
}

// due lists up to limit addresses whose time has come, the longest waiting
// first, and when the next one's comes.
func due(owned map[netip.Addr]*schedule, now time.Time, limit int) (list []netip.Addr, next time.Time) {
	for addr, s := range owned {
		if !s.next.After(now) {
			list = append(list, addr)
		} else if next.IsZero() || s.next.Before(next) {
			next = s.next
		}
	}
	if len(list) > limit {
		slices.SortFunc(list, func(x, y netip.Addr) int {
			return cmp.Or(owned[x].next.Compare(owned[y].next), x.Compare(y))
		})
		list, next = list[:limit], now
	}
	return list, next
}

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/agent/owner"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane/link"
)

// segmentRetry is how long after a fault, such as an interface that is not
// there, a segment is opened again.
const segmentRetry = time.Second

// segment is an edge interface on whose wire the virtual addresses are at one
// edge node at a time.
type segment struct {
	agent *Agent
	name  string
	log   *slog.Logger

	mu        sync.Mutex // guards what follows
	addresses [2][]netip.Addr
	ready     bool
	elected   [2]bool // for IPv4 and IPv6
	known     map[netip.Addr]*claim
	fault     error
	open      *openSegment // nil while it is not open
}

// openSegment has the sockets of a segment.
type openSegment struct {
	announcer *link.Announcer
	electors  [2]*owner.Elector
	ctx       context.Context // ends when it is closed
}

func newSegment(a *Agent, name string) *segment {
	return &segment{agent: a, name: name, known: map[netip.Addr]*claim{}, log: a.log.With("component", "edge", "interface", name)}
}

// families in the order of segment's arrays.
var families = [2]owner.Family{owner.IPv4, owner.IPv6}

// set says which addresses are served, and whether the node could serve them.
func (s *segment) set(addresses map[netip.Addr]bool, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addresses, s.ready = [2][]netip.Addr{}, ready
	for _, a := range slices.SortedFunc(maps.Keys(addresses), netip.Addr.Compare) {
		if a.Is4() {
			s.addresses[0] = append(s.addresses[0], a)
		} else {
			s.addresses[1] = append(s.addresses[1], a)
		}
	}
	s.forget()
	s.update()
}

// update tells the sockets what is wanted; s.mu is held.
func (s *segment) update() {
	if s.open == nil {
		return
	}
	var announced []netip.Addr
	for i, elector := range s.open.electors {
		if err := elector.SetAddresses(s.addresses[i]); err != nil {
			s.log.Error("addresses not told", "error", err)
		}
		elector.Ready(s.ready && len(s.addresses[i]) > 0)
		if ours := s.claims(i); s.elected[i] {
			announced = append(announced, ours...)
		}
	}
	if err := s.open.announcer.Set(announced); err != nil {
		s.log.Error("addresses not announced", "error", err)
	}
}

// owned are the addresses that this node announces.
func (s *segment) owned() (all []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, elected := range s.elected {
		for _, a := range s.addresses[i] {
			if c := s.known[a]; elected && c != nil && c.ours {
				all = append(all, a)
			}
		}
	}
	return all
}

func (s *segment) detail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.fault != nil:
		return fmt.Sprintf("%s: %v", s.name, s.fault)
	case s.open == nil:
		return s.name + ": not open yet"
	}
	text := fmt.Sprintf("%s: %s of IPv4, %s of IPv6", s.name, s.open.electors[0].State().Role, s.open.electors[1].State().Role)
	for _, family := range s.addresses {
		for _, a := range family {
			if c := s.known[a]; c != nil && c.refused != nil {
				text += fmt.Sprintf("; not announced: %v", c.refused)
			}
		}
	}
	for _, c := range s.open.announcer.Conflicts() {
		text += fmt.Sprintf("; %s is in use elsewhere, by %s", c.Address, c.MAC)
	}
	return text
}

// run keeps the segment open until ctx ends.
func (s *segment) run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := s.runOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.mu.Lock()
		if news := fmt.Sprint(s.fault) != fmt.Sprint(err); news {
			s.log.Error("virtual addresses are not announced", "error", err)
		}
		s.fault = err
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(segmentRetry):
		}
	}
	return nil
}

func (s *segment) runOnce(ctx context.Context) error {
	open, err := s.openSockets()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	open.ctx = ctx
	s.mu.Lock()
	s.open, s.fault = open, nil
	s.update()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.open, s.elected = nil, [2]bool{}
		clear(s.known) // what is on the wire may be otherwise when it is open again
		s.mu.Unlock()
	}()
	g.Go(func() error { return open.announcer.Run(ctx) })
	for _, elector := range open.electors {
		g.Go(func() error { return elector.Run(ctx) })
	}
	return g.Wait()
}

func (s *segment) openSockets() (*openSegment, error) {
	priority, err := s.priority()
	if err != nil {
		return nil, err
	}
	open := &openSegment{}
	open.announcer, err = link.NewAnnouncer(link.AnnounceOptions{Interface: s.name, Log: s.log})
	if err != nil {
		return nil, err
	}
	c := s.agent.config.VIP.Edge
	for i, family := range families {
		open.electors[i], err = owner.New(owner.Options{
			Interface: s.name, Family: family, VRID: uint8(c.VRID), Priority: priority, Preempt: c.Preempt, Log: s.log,
			OnChange: func(owns bool) { s.changed(i, owns) },
			OnRival:  open.announcer.Repeat,
		})
		if err != nil {
			open.announcer.Close()
			if i == 1 {
				open.electors[0].Close()
			}
			return nil, err
		}
	}
	return open, nil
}

// priority is by the place of the node among the edge nodes.
func (s *segment) priority() (uint8, error) {
	names := []string{s.agent.config.Node.Name}
	if snapshot := s.agent.snapshot.Load(); snapshot != nil {
		for _, n := range snapshot.Nodes {
			if n.Role == api.RolePublic {
				names = append(names, n.Name)
			}
		}
	}
	return owner.PriorityOf(s.agent.config.Node.Name, s.agent.config.VIP.Edge.Order, names)
}

// changed is called when this node becomes the owner of a family's addresses,
// or ceases to be.
func (s *segment) changed(family int, owns bool) {
	s.mu.Lock()
	s.elected[family] = owns
	s.update()
	s.mu.Unlock()
	s.agent.pokeStates() // for the hook
}

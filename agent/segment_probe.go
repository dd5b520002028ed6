package agent

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/weirproject/weir/agent/owner"
	"github.com/weirproject/weir/dataplane/link"
)

// probeAgain is how long an address that another host has is left alone, before
// the segment is asked for it once more.
const probeAgain = 30 * time.Second

// claim is what is known of an address before it is announced.
type claim struct {
	// ours: nobody on the segment has it, or an owner of the group announces it.
	ours    bool
	probing bool
	refused error     // who has it
	again   time.Time // when to ask once more
}

// claims tells which of a family's addresses may be announced: those of a group
// whose owner was heard are the group's, and a node that takes over from it must
// not wait; all others are asked for first. It is called with s.mu held and the
// segment open.
func (s *segment) claims(family int) (ours []netip.Addr) {
	state := s.open.electors[family].State()
	heard := state.Role == owner.Standby && state.Owner.IsValid()
	for _, a := range s.addresses[family] {
		c := s.known[a]
		if c == nil {
			c = &claim{}
			s.known[a] = c
		}
		c.ours = c.ours || heard
		switch {
		case c.ours:
			ours = append(ours, a)
		case s.elected[family] && !c.probing && !time.Now().Before(c.again):
			c.probing = true
			go s.probe(s.open.ctx, a, c)
		}
	}
	return ours
}

// probe asks the segment for an address, and announces it when nobody has it.
func (s *segment) probe(ctx context.Context, a netip.Addr, c *claim) {
	err := link.Probe(ctx, s.name, a)
	if ctx.Err() != nil {
		return
	}
	var used *link.InUseError
	s.mu.Lock()
	news := (err == nil) != (c.refused == nil)
	c.probing, c.ours, c.refused, c.again = false, err == nil, err, time.Now().Add(probeAgain)
	if err != nil && !errors.As(err, &used) {
		c.again = time.Now().Add(segmentRetry)
	}
	s.update()
	s.mu.Unlock()
	switch {
	case err != nil && news:
		s.log.Error("virtual address not announced", "address", a, "error", err)
	case news:
		s.log.Info("virtual address is free now and announced", "address", a)
	}
	s.agent.pokeStates() // for the hook
}

// forget takes the addresses out that are not served any more; s.mu is held.
func (s *segment) forget() {
	for a := range s.known {
		served := false
		for _, family := range s.addresses {
			for _, b := range family {
				served = served || a == b
			}
		}
		if !served {
			delete(s.known, a)
		}
	}
}

package vip

import (
	"maps"
	"reflect"
	"slices"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// compare marks the services whose tables have to be made anew, and tells
// whether the list of tables has to be put together anew.
func (c *Compiler) compare(s *api.Snapshot) (rearranged bool) {
	old := c.snapshot
	if old == s {
		return false
	}
	fleetChanged := old == nil || !sameFleet(old, s)
	if fleetChanged {
		c.fleet = newFleet(s)
	}
	reallotted := old == nil || !sameVIPs(old.VIPs, s.VIPs)
	inPlace, reclaimed := false, false
	if old != nil && len(old.Services) == len(s.Services) {
		inPlace, reclaimed = c.compareInPlace(old, s, reallotted)
	}
	if !inPlace {
		c.replace(s)
	}
	if !inPlace || reclaimed || fleetChanged {
		c.regrant(s, fleetChanged)
		return true
	}
	return false
}

// compareInPlace compares the services one by one, as long as they are the
// same ones in the same order. It tells whether they all are, and whether any
// of them asks for other frontends.
func (c *Compiler) compareInPlace(old, s *api.Snapshot, reallotted bool) (inPlace, reclaimed bool) {
	if sameSlice(old.Services, s.Services) && !reallotted {
		return true, false
	}
	for i := range s.Services {
		a, b := &old.Services[i], &s.Services[i]
		same := sameService(a, b)
		if same && !reallotted {
			continue
		}
		e := c.entries[i]
		if !same {
			if refOf(b) != e.ref {
				return false, false
			}
			c.mark(e)
		}
		e.vips = b.VIPs
		if asked := claims(s, b); !slices.Equal(asked, e.claims) {
			e.claims, reclaimed = asked, true
		}
	}
	return true, reclaimed
}

// replace lists the entries anew, for services that came, went or moved.
func (c *Compiler) replace(s *api.Snapshot) {
	byRef := make(map[ServiceRef]*entry, len(s.Services))
	entries := make([]*entry, len(s.Services))
	for i := range s.Services {
		doc := &s.Services[i]
		ref := refOf(doc)
		e := c.byRef[ref]
		if e == nil || byRef[ref] != nil {
			e = &entry{ref: ref}
			c.mark(e)
		} else if !sameService(&c.snapshot.Services[e.index], doc) {
			c.mark(e)
		}
		e.index, e.vips, e.claims = i, doc.VIPs, claims(s, doc)
		entries[i] = e
		if byRef[ref] == nil {
			byRef[ref] = e
		}
	}
	gone := func(e *entry, _ bool) bool { return entries[min(e.index, len(entries)-1)] != e }
	if len(entries) == 0 {
		gone = func(*entry, bool) bool { return true }
	}
	maps.DeleteFunc(c.timed, gone)
	maps.DeleteFunc(c.edge, gone)
	c.stale = slices.DeleteFunc(c.stale, func(e *entry) bool { return gone(e, true) })
	c.entries, c.byRef = entries, byRef
}

// regrant decides anew who has which frontend.
func (c *Compiler) regrant(s *api.Snapshot, fleetChanged bool) {
	l := &ledger{taken: map[frontend]string{}, names: map[ServiceRef]bool{}, owner: c.fleet.owner}
	c.skipped = nil
	for i, e := range c.entries {
		granted, skipped := l.grantClaims(e.ref, e.vips, e.claims)
		doc := &s.Services[i]
		if fleetChanged && (doc.Prefer != "" || doc.Edge != nil) ||
			!slices.Equal(granted[0], e.granted[0]) || !slices.Equal(granted[1], e.granted[1]) {
			c.mark(e)
		}
		e.granted = granted
		c.skipped = append(c.skipped, skipped...)
	}
}

// sameVIPs compares what names were allotted: first whether the maps are one.
func sameVIPs(a, b map[string]api.VIPAddresses) bool {
	return len(a) == len(b) && (reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() || maps.Equal(a, b))
}

func sameTable(a, b *dataplane.Service) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Name == b.Name && a.Protocol == b.Protocol && a.Balance == b.Balance && a.Affinity == b.Affinity &&
		a.AffinityBy == b.AffinityBy && a.MaxConnections == b.MaxConnections && a.Watch == b.Watch &&
		slices.Equal(a.Frontends, b.Frontends) && slices.Equal(a.Backends, b.Backends) && slices.Equal(a.Slots, b.Slots)
}

func sameEdge(a, b *dataplane.EdgeService) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Name == b.Name && a.Protocol == b.Protocol && a.Deliver == b.Deliver && a.SYNRate == b.SYNRate && a.QUIC == b.QUIC &&
		slices.Equal(a.Frontends, b.Frontends) && slices.Equal(a.Backends, b.Backends) && slices.Equal(a.Allow, b.Allow) &&
		slices.Equal(a.Slots, b.Slots) && slices.Equal(a.Previous, b.Previous)
}

package vip

import (
	"net/netip"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
)

// server is a backend as it is to be used.
type server struct {
	address netip.AddrPort
	written netip.AddrPort // the address as its document has it
	weight  int            // as its document says
	node    string
	state   api.BackendState
	reason  string // why it is not up, or why it is used all the same
	chosen  bool   // its operator keeps it from being up
	level   int    // of its slow start: tenths of its share; 0: it gets none
	near    int    // which of the levels of nearness it is in
}

// failOpenReason tells that a backend is used although its checks fail.
const failOpenReason = "used all the same, as no backend is up (fail_open)"

// servers are the service's backends of a family (0 or 1), sorted by address,
// and when their slow starts take the next step; never, if zero.
func servers(ref ServiceRef, doc *api.Service, family int, f *fleet, o *Options) (all []server, next time.Time) {
	all = make([]server, 0, len(doc.Backends))
	up := false
	for i := range doc.Backends {
		b := &doc.Backends[i]
		if familyOf(b.Address.Addr()) != family {
			continue
		}
		s := server{address: plain(b.Address), written: b.Address, weight: b.EffectiveWeight(), node: b.Node, level: full}
		s.state, s.reason, s.chosen = stateOf(ref, b, o)
		if doc.Prefer != "" || doc.Edge != nil {
			s.node = f.node(b)
			s.near = f.nearness(doc.Prefer, s.node)
		}
		up = up || s.state == api.Up && s.weight > 0
		all = append(all, s)
	}
	if !up && doc.FailOpen {
		failOpen(all)
	}
	byAddress := func(a, b server) int { return a.address.Compare(b.address) }
	if !slices.IsSortedFunc(all, byAddress) {
		slices.SortStableFunc(all, byAddress)
	}
	// The same address may be written in its IPv4 form and mapped into IPv6.
	all = slices.CompactFunc(all, func(a, b server) bool { return a.address == b.address })
	for i := range all {
		if all[i].state != api.Up || all[i].weight == 0 {
			all[i].level = 0
		}
	}
	if doc.SlowStart > 0 {
		next = startSlowly(ref, doc.SlowStart.Std(), all, o)
	}
	return all, next
}

// failOpen uses the backends that their operator has not taken out.
func failOpen(all []server) {
	for i := range all {
		if s := &all[i]; s.state != api.Up && !s.chosen {
			s.state, s.reason = api.Up, s.reason+"; "+failOpenReason
		}
	}
}

// plain writes an IPv4 address that is mapped into IPv6 as IPv4.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// stateOf is the worse of what the operator wants and what is observed, why it
// is not up, and whether the operator wants it so.
func stateOf(ref ServiceRef, b *api.Backend, o *Options) (state api.BackendState, reason string, chosen bool) {
	if b.State == api.Down {
		return api.Down, "set down in its document", true
	}
	state = api.Up
	if o.State != nil {
		state, reason = o.State(ref.Service, ref.Protocol, b.Address)
	}
	drained := o.Drained != nil && o.Drained(ref.Service, ref.Protocol, b.Address)
	chosen = drained || b.State == api.Draining
	switch {
	case state == api.Down || !chosen:
		return state, reason, chosen
	case drained:
		return api.Draining, "drained on this node by weir vip drain", true
	default:
		return api.Draining, "set draining in its document", true
	}
}

// startSlowly sets the levels of the backends that came up a short while ago:
// from one tenth at once to all after the time, in nine steps. What counts is
// the level against the others', so that backends which all came up together
// have all of their shares.
func startSlowly(ref ServiceRef, takes time.Duration, all []server, o *Options) (next time.Time) {
	if o.UpSince == nil || o.Now.IsZero() {
		return next
	}
	highest := 0
	for i := range all {
		s := &all[i]
		if s.level == 0 {
			continue
		}
		if since := o.UpSince(ref.Service, ref.Protocol, s.written); !since.IsZero() {
			if gone := max(o.Now.Sub(since), 0); gone < takes {
				steps := int(gone * (full - 1) / takes)
				s.level = 1 + steps
				next = earliest(next, since.Add((takes*time.Duration(steps+1)+full-2)/(full-1)))
			}
		}
		highest = max(highest, s.level)
	}
	for i := range all {
		if highest > 0 {
			all[i].level = (all[i].level*full + highest/2) / highest
		}
	}
	return next
}

// earliest of two times, of which the zero time is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

// rest is what a Set does last.
type rest struct {
	remove []step
	// gone are the destinations that are removed, carried the connections that
	// they had.
	gone    map[object]bool
	carried []connection
}

// setServices makes the kernel hold the wanted services, and gives what is left
// to do. A service that cannot be made is left out of w.
func (b *Balancer) setServices(ctx context.Context, w *wanted, ours func(netip.Addr) bool, c *dataplane.Changes) (*rest, error) {
	held, err := b.kernel.services()
	if err != nil {
		return nil, err
	}
	b.leaveForeign(w, held, ours)
	set, remove := plan(w.programmed(), held, ours)
	r := &rest{remove: remove, gone: removed(append(append([]step{}, set...), remove...), held)}
	r.carried = b.carried(r.gone)
	for _, s := range set {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if w.services[s.at] == nil {
			continue // left out by an earlier step
		}
		if err := b.apply(s, w); err != nil {
			w.leave(w.owner[s.at].Name, err)
			continue
		}
		switch {
		case s.repairs(b.made):
			c.Repaired++
		case s.op == deleteDestination:
			c.Removed++
		default:
			c.Written++
		}
	}
	b.made, b.owner = objects(w.programmed()), map[virtual]string{}
	for v, s := range w.owner {
		b.owner[v] = s.Name
	}
	return r, nil
}

// leaveForeign leaves out what somebody else serves: at an address outside of
// our networks, without our mark, and not made by us.
func (b *Balancer) leaveForeign(w *wanted, held map[virtual]*service, ours func(netip.Addr) bool) {
	for v, h := range held {
		_, made := b.made[object{at: v}]
		if s := w.owner[v]; s != nil && !made && !h.marked() && !ours(v.At.Addr()) {
			w.leave(s.Name, fmt.Errorf("there is an ipvs service at %s that is not ours", v))
		}
	}
}

// apply does a step. A scheduler that is missing is replaced by the next best.
func (b *Balancer) apply(s step, w *wanted) error {
	for {
		err := b.kernel.do(s)
		if err == nil {
			return nil
		}
		if s.service == nil || !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", s, err)
		}
		b.log.Warn("the kernel lacks a scheduler, the next best is used", "scheduler", s.service.scheduler, "module", "ip_vs_"+s.service.scheduler)
		b.missing[s.service.scheduler] = true
		next, why := compileService(w.owner[s.at], b.missing)
		if why != nil {
			return why
		}
		*s.service = *next // all frontends of the service share it
	}
}

func (s step) String() string {
	what := map[op]string{addService: "add", editService: "change", deleteService: "remove",
		addDestination: "add", editDestination: "change", deleteDestination: "remove"}[s.op]
	if s.destination.IsValid() {
		return fmt.Sprintf("%s destination %s of ipvs service %s", what, s.destination, s.at)
	}
	return fmt.Sprintf("%s ipvs service %s", what, s.at)
}

// removed lists the destinations that the steps remove, with those of the
// services that go.
func removed(steps []step, held map[virtual]*service) map[object]bool {
	gone := map[object]bool{}
	for _, s := range steps {
		switch s.op {
		case deleteDestination:
			gone[object{s.at, s.destination}] = true
		case deleteService:
			for d := range held[s.at].destinations {
				gone[object{s.at, d}] = true
			}
		}
	}
	return gone
}

// carried lists the connections to the destinations while IPVS knows them.
func (b *Balancer) carried(gone map[object]bool) []connection {
	if len(gone) == 0 {
		return nil
	}
	all, err := through(gone)
	if err != nil {
		b.log.Warn("connections to removed backends are not ended here", "error", err)
	}
	return all
}

// finish removes the services that are no longer wanted, and ends the
// connections to all that is gone. Of the latter it can do no more than try: a
// fault leaves them to their own end.
func (b *Balancer) finish(r *rest, c *dataplane.Changes) error {
	for _, s := range r.remove {
		if err := b.kernel.do(s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		c.Removed++
	}
	if len(r.gone) == 0 {
		return nil
	}
	for o, n := range reset(r.carried) {
		b.resets[o] += n
	}
	if _, err := forget(r.gone); err != nil {
		b.log.Warn("udp clients of removed backends may stay with them for a while", "error", err)
	}
	return nil
}

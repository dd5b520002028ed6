package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/agent/owner"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/edge"
	"github.com/weirproject/weir/dataplane/link"
	"github.com/weirproject/weir/vip"
)

// edgeComponent balances packets that clients outside send to this node, and
// makes it the place of the virtual addresses where it owns them.
type edgeComponent struct {
	agent    *Agent
	vips     *vipComponent
	sink     *edge.Edge // nil: no edge node
	hops     *link.Hops
	hook     *owner.Hook // nil: none
	segments []*segment
	served   int // services
}

func (a *Agent) newEdge(vips *vipComponent) (*edgeComponent, error) {
	e := &edgeComponent{agent: a, vips: vips}
	c := a.config.VIP.Edge
	if len(c.Interfaces) == 0 {
		return e, nil
	}
	log := a.log.With("component", "edge")
	var err error
	if e.hops, err = link.NewHops(link.HopsOptions{Log: log}); err != nil {
		return nil, fmt.Errorf("follow routes and neighbours: %w", err)
	}
	if e.sink, err = edge.New(edge.Options{Hops: hops{e.hops}, Log: log}); err != nil {
		return nil, fmt.Errorf("load the edge's packet programs (set vip.edge.interfaces to nothing to go without): %w", err)
	}
	a.registry.MustRegister(edgeCollector{e.sink})
	if c.Hook != "" {
		if e.hook, err = owner.NewHook(owner.HookOptions{Dir: c.Hook, Command: c.HookCommand, Log: log}); err != nil {
			return nil, err
		}
	}
	if c.Announce {
		for _, name := range c.Interfaces {
			e.segments = append(e.segments, newSegment(a, name))
		}
	}
	return e, nil
}

// warmUp is how long after its start an edge node remembers nothing of who had
// its slots before. Its first checks find the backends one after the other, which
// is no change: flows of other edge nodes would be sent to the backends that were
// found first.
const warmUp = 5 * time.Second

// edgeOptions ask for the edge tables; nil on a node that is no edge node.
func (a *Agent) edgeOptions(s *api.Snapshot) *vip.EdgeOptions {
	c := a.config.VIP.Edge
	if len(c.Interfaces) == 0 {
		return nil
	}
	o := &vip.EdgeOptions{Interfaces: map[string]dataplane.AttachMode{}}
	if time.Since(a.started) < warmUp {
		o.Settle = time.Nanosecond
	}
	for _, name := range c.Interfaces {
		o.Interfaces[name] = dataplane.AttachMode(c.Mode)
	}
	for _, address := range s.Node.Addresses {
		switch {
		case address.Is4() && !o.Source4.IsValid():
			o.Source4 = address
		case address.Is6() && !o.Source6.IsValid():
			o.Source6 = address
		}
	}
	return o
}

func (e *edgeComponent) backend() string {
	if e.sink == nil {
		return "off"
	}
	return e.sink.Backend()
}

func (e *edgeComponent) followsStates() bool { return true }

func (e *edgeComponent) apply(ctx context.Context, s *api.Snapshot) (dataplane.Changes, error) {
	if e.sink == nil {
		return dataplane.Changes{}, nil
	}
	e.vips.mu.Lock()
	table := e.vips.result.Edge
	e.vips.mu.Unlock()
	table = e.agent.zones.limitEdge(s, table)
	e.hops.Keep(tunnelEnds(table))
	changes, err := e.sink.Set(ctx, table)
	e.served = len(table.Services)
	if fault := e.announce(table, err); fault != nil && err == nil {
		err = fault
	}
	return changes, err
}

// tunnelEnds are the machines to which packets go.
func tunnelEnds(t dataplane.EdgeTable) (ends []netip.Addr) {
	for _, s := range t.Services {
		for _, b := range s.Backends {
			end := b.Node
			if s.Deliver == api.NAT || !end.IsValid() {
				end = b.Address.Addr()
			}
			ends = append(ends, end)
		}
	}
	slices.SortFunc(ends, netip.Addr.Compare)
	return slices.Compact(ends)
}

// announce tells the segments and the routing daemons which addresses are
// served. A node whose programs are not in order must not own any.
func (e *edgeComponent) announce(t dataplane.EdgeTable, fault error) error {
	ready := map[netip.Addr]bool{}
	for _, s := range t.Services {
		for _, f := range s.Frontends {
			ready[f.Addr()] = ready[f.Addr()] || len(s.Slots) > 0
		}
	}
	owned := map[netip.Addr]bool{}
	for _, segment := range e.segments {
		segment.set(ready, fault == nil)
		for _, address := range segment.owned() {
			owned[address] = true
		}
	}
	if e.hook == nil {
		return nil
	}
	var served []owner.Served
	for address, up := range ready {
		s := owner.Served{VIP: address, Up: up && fault == nil, Owner: owned[address]}
		switch {
		case fault != nil:
			s.Reason = fault.Error()
		case !up:
			s.Reason = "no backend is up"
		}
		served = append(served, s)
	}
	return e.hook.Set(served)
}

func (e *edgeComponent) detail() string {
	if e.sink == nil {
		return "vip.edge.interfaces is empty: no edge node"
	}
	text := fmt.Sprintf("%d services on %v", e.served, e.agent.config.VIP.Edge.Interfaces)
	for _, s := range e.segments {
		text += "; " + s.detail()
	}
	return text
}

// run follows routes and neighbours, and takes part in the elections, until ctx
// ends.
func (e *edgeComponent) run(ctx context.Context) error {
	if e.sink == nil {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.hops.Run(ctx) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-e.hops.Changes():
				e.agent.pokeStates()
			}
		}
	})
	if e.hook != nil {
		g.Go(func() error { return e.hook.Run(ctx) })
	}
	for _, s := range e.segments {
		g.Go(func() error { return s.run(ctx) })
	}
	return g.Wait()
}

func (e *edgeComponent) close() error {
	if e.sink == nil {
		return nil
	}
	return e.sink.Close()
}

// hops gives the edge program what link has found out.
type hops struct{ *link.Hops }

// NextHop implements edge.Hops.
func (h hops) NextHop(to netip.Addr) (edge.Hop, error) {
	hop, err := h.Hops.NextHop(to)
	if err != nil {
		return edge.Hop{}, err
	}
	return edge.Hop{Interface: hop.Interface, Source: hop.Source, Destination: hop.Destination, MTU: hop.MTU}, nil
}

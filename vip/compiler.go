package vip

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// Compiler compiles snapshots one after the other, and does only what the
// change from the last one asks for: a change of one service's backends costs
// the compilation of this service and a comparison of pointers for each of the
// others, whose tables stay the same pointers. A change of VIPs, of the set of
// services or of the nodes costs more, but nothing for each backend that it
// does not concern. What comes out is always what Compile would make of the
// same snapshot and options, with Bases as Options.Bases.
//
// The zero value is ready. It is for one goroutine at a time.
type Compiler struct {
	snapshot *api.Snapshot // the last one
	fleet    *fleet
	entries  []*entry // in the order of the snapshot's services
	byRef    map[ServiceRef]*entry
	stale    []*entry        // to be built
	timed    map[*entry]bool // those whose next is set
	edge     map[*entry]bool // those with a table for edge nodes or their backends' nodes
	skipped  []Skipped
	result   Result
	asked    [2]bool // for Edge, for Delivery
}

// entry is a service that has been compiled.
type entry struct {
	ref     ServiceRef
	index   int // in the snapshot
	vips    []api.VIP
	claims  []claim
	granted [2][]netip.AddrPort
	tables  [2]*dataplane.Service
	edges   [2]*edgeMemory
	local   [2]*dataplane.EdgeService // for the backends on this node
	// edgeSkipped tells what is served otherwise than its document says.
	edgeSkipped []Skipped
	bases       map[string]*Base
	next        time.Time
	stale       bool
}

// Changed says what may differ from a Compiler's last call besides the
// snapshot, which it compares itself.
type Changed struct {
	// Services of which State or UpSince may answer otherwise, or Bases gives
	// another one.
	Services []ServiceRef
	// All of them may.
	All bool
}

// Result of a Compiler.
type Result struct {
	Table   dataplane.Table
	Skipped []Skipped
	// Edge is set when Options.Edge is, Delivery when Options.Delivery is, and
	// EdgeSkipped then has what is delivered otherwise than its document says.
	Edge        dataplane.EdgeTable
	Delivery    dataplane.DeliveryTable
	EdgeSkipped []Skipped
	// Next is when to compile again though nothing has changed; zero: never.
	Next time.Time
}

// Compile makes the tables of the snapshot. Neither may be changed afterwards.
func (c *Compiler) Compile(s *api.Snapshot, o Options, changed Changed) Result {
	asked := [2]bool{o.Edge != nil, o.Delivery != nil}
	if c.snapshot == nil {
		c.byRef, c.timed, c.edge = map[ServiceRef]*entry{}, map[*entry]bool{}, map[*entry]bool{}
	}
	rearranged := c.compare(s)
	if changed.All || asked != c.asked {
		c.mark(c.entries...)
	}
	for _, ref := range changed.Services {
		if e := c.byRef[ref]; e != nil {
			c.mark(e)
		}
	}
	for e := range c.timed {
		if !o.Now.IsZero() && !e.next.After(o.Now) {
			c.mark(e)
		}
	}
	c.snapshot, c.asked = s, asked
	c.build(s, &o, rearranged)
	c.finish(&o)
	return c.result
}

// Bases are the base tables by name, to start from after a restart. The map is
// the caller's.
func (c *Compiler) Bases() map[string]*Base {
	all := map[string]*Base{}
	for _, e := range c.entries {
		maps.Copy(all, e.bases)
	}
	return all
}

// mark puts entries down to be built.
func (c *Compiler) mark(entries ...*entry) {
	for _, e := range entries {
		if !e.stale {
			e.stale = true
			c.stale = append(c.stale, e)
		}
	}
}

// build makes the tables of what is stale and puts them into the list: at their
// old places in the common case.
func (c *Compiler) build(s *api.Snapshot, o *Options, rearranged bool) {
	list := c.result.Table.Services
	copied, edges := false, rearranged
	for _, e := range c.stale {
		e.stale = false
		changed := e.build(&s.Services[e.index], c.fleet, o)
		edges = edges || changed.edge
		setIf(c.timed, e, !e.next.IsZero())
		setIf(c.edge, e, e.hasEdge())
		for family, t := range e.tables {
			if !changed.table || rearranged {
				break
			}
			if !copied {
				list, copied = slices.Clone(list), true
			}
			rearranged = !exchange(list, e.ref.table(family), t)
		}
	}
	c.stale = nil
	if rearranged {
		list = c.arrange()
	}
	c.result.Table.Services = list
	if edges {
		c.arrangeEdges()
	}
}

func setIf(set map[*entry]bool, e *entry, in bool) {
	if in {
		set[e] = true
	} else {
		delete(set, e)
	}
}

// exchange puts a table in its place; it fails when the table is one of two: in
// the list, and wanted.
func exchange(list []*dataplane.Service, name string, t *dataplane.Service) bool {
	i, found := slices.BinarySearchFunc(list, name, func(s *dataplane.Service, name string) int { return cmp.Compare(s.Name, name) })
	if found && t != nil {
		list[i] = t
	}
	return found == (t != nil)
}

func (c *Compiler) arrange() []*dataplane.Service {
	var list []*dataplane.Service
	for _, e := range c.entries {
		for _, t := range e.tables {
			if t != nil {
				list = append(list, t)
			}
		}
	}
	slices.SortFunc(list, func(a, b *dataplane.Service) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (c *Compiler) arrangeEdges() {
	var edges, local []*dataplane.EdgeService
	var skipped []Skipped
	entries := slices.SortedFunc(maps.Keys(c.edge), func(a, b *entry) int { return cmp.Compare(a.index, b.index) })
	for _, e := range entries {
		for family := range e.edges {
			if m := e.edges[family]; m != nil {
				edges = append(edges, m.made)
			}
			if t := e.local[family]; t != nil {
				local = append(local, t)
			}
		}
		skipped = append(skipped, e.edgeSkipped...)
	}
	for _, list := range [][]*dataplane.EdgeService{edges, local} {
		slices.SortFunc(list, func(a, b *dataplane.EdgeService) int { return cmp.Compare(a.Name, b.Name) })
	}
	c.result.Edge.Services, c.result.Delivery.Services, c.result.EdgeSkipped = edges, local, skipped
}

// finish fills in what comes from the options.
func (c *Compiler) finish(o *Options) {
	r := &c.result
	r.Table.Ranges, r.Skipped, r.Next = o.Ranges, c.skipped, time.Time{}
	for e := range c.timed {
		r.Next = earliest(r.Next, e.next)
	}
	r.Edge = dataplane.EdgeTable{Services: r.Edge.Services}
	if o.Edge != nil {
		r.Edge.Interfaces, r.Edge.Source4, r.Edge.Source6 = o.Edge.Interfaces, o.Edge.Source4, o.Edge.Source6
	}
	r.Delivery = dataplane.DeliveryTable{Services: r.Delivery.Services}
	if o.Delivery != nil {
		r.Delivery.Interfaces, r.Delivery.Edges = o.Delivery.Interfaces, c.fleet.edgeAddresses(o)
	}
}

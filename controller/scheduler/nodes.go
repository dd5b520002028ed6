package scheduler

import (
	"math"
	"slices"

	"github.com/weirproject/weir/api"
)

// nodeState is what counts of a node's health: the higher the number, the less
// it is good for.
type nodeState uint8

const (
	up nodeState = iota
	suspect
	draining
	dead
	gone // a free slot of the table
)

// usualPorts are given to tasks of nodes that name none.
var usualPorts = []api.PortSpan{{First: 31000, Last: 32000}}

// nodes is the table of nodes, a slice for each fact: decisions look at one fact
// of all nodes more often than at all facts of one.
type nodes struct {
	index map[string]int32
	facts []Node
	state []nodeState
	// What tasks may have in all, and what is free of it; free may be negative
	// after a node has shrunk.
	all, free []amount
	// score is how much of its cores and memory a node has free, 0 to 2: tasks go
	// to the lowest that they fit.
	score []float64
	order []int32 // all slots, by score and slot
	// used has each node's host ports, sorted; spanFree is how many of its spans'
	// ports are not among them.
	used     [][]uint16
	spanFree []int32
	on       [][]*instance
	columns  map[string]*column
	masks    map[string]*mask
	// epoch counts changes of what masks are made of.
	epoch    int
	headroom float64
	vacant   []int32
}

// amount is of resources, in whole numbers: sums of fractions drift.
type amount struct {
	cpu  int64 // thousandths of a core
	mem  int64 // bytes
	disk int64 // bytes
	gpu  int64
}

func (a amount) plus(b amount) amount {
	return amount{a.cpu + b.cpu, a.mem + b.mem, a.disk + b.disk, a.gpu + b.gpu}
}

func (a amount) minus(b amount) amount {
	return amount{a.cpu - b.cpu, a.mem - b.mem, a.disk - b.disk, a.gpu - b.gpu}
}

// holds tells whether b fits. What is not asked for fits always, also where
// less than nothing is free.
func (a *amount) holds(b *amount) bool {
	return (a.cpu >= b.cpu || b.cpu == 0) && (a.mem >= b.mem || b.mem == 0) &&
		(a.disk >= b.disk || b.disk == 0) && (a.gpu >= b.gpu || b.gpu == 0)
}

func millis(cores float64) int64 { return int64(math.Ceil(cores*1000 - 1e-6)) }

func ofApp(a *api.App) amount {
	return amount{cpu: millis(a.CPUs), mem: int64(memory(a) * (1 << 20)), disk: int64(a.Disk * (1 << 20)), gpu: int64(a.GPUs)}
}

func ofSpec(s *api.TaskSpec) amount {
	if s == nil {
		return amount{}
	}
	return amount{cpu: millis(s.CPUs), mem: int64(s.Memory), disk: int64(s.Disk), gpu: int64(s.GPUs)}
}

func newNodes(headroom float64) *nodes {
	return &nodes{index: map[string]int32{}, columns: map[string]*column{}, masks: map[string]*mask{}, headroom: min(max(headroom, 0), 1)}
}

func stateOf(n *Node) nodeState {
	switch {
	case n.Health == api.NodeDead:
		return dead
	case n.Draining:
		return draining
	case n.Health == api.NodeSuspect:
		return suspect
	}
	return up
}

// set puts a node in, or changes it, and tells its slot and whether it was new.
func (t *nodes) set(n Node) (slot int32, isNew bool) {
	slot, known := t.index[n.Name]
	if !known {
		slot = t.slot()
		t.index[n.Name] = slot
	}
	old := t.facts[slot]
	t.facts[slot], t.state[slot] = n, stateOf(&n)
	if !known || old.EffectiveRole() != n.EffectiveRole() || old.Domain != n.Domain || !sameLabels(old.Attributes, n.Attributes) {
		t.epoch++
		for _, c := range t.columns {
			c.set(slot, &n)
		}
	}
	t.resize(slot)
	return slot, !known
}

func (t *nodes) slot() int32 {
	if n := len(t.vacant); n > 0 {
		slot := t.vacant[n-1]
		t.vacant = t.vacant[:n-1]
		return slot
	}
	t.facts, t.state = append(t.facts, Node{}), append(t.state, gone)
	t.all, t.free, t.score = append(t.all, amount{}), append(t.free, amount{}), append(t.score, 0)
	t.used, t.spanFree, t.on = append(t.used, nil), append(t.spanFree, 0), append(t.on, nil)
	t.order = slices.Insert(t.order, t.rank(0, int32(len(t.facts)-1)), int32(len(t.facts)-1))
	return int32(len(t.facts) - 1)
}

// resize counts anew what the slot's node has and what is free of it.
func (t *nodes) resize(slot int32) {
	r := t.facts[slot].Resources
	t.all[slot] = amount{
		cpu: int64(r.CPUs * 1000 * (1 - t.headroom)), mem: int64(float64(r.Memory) * (1 - t.headroom)),
		disk: int64(r.Disk), gpu: int64(r.GPUs),
	}
	t.free[slot] = t.all[slot]
	t.rate(slot)
	t.used[slot] = t.used[slot][:0]
	t.spanFree[slot] = 0
	for _, s := range t.spans(slot) {
		t.spanFree[slot] += int32(s.Last) - int32(s.First) + 1
	}
	for _, i := range t.on[slot] {
		t.take(slot, i.needs, i.ports)
	}
}

func (t *nodes) spans(slot int32) []api.PortSpan {
	if p := t.facts[slot].Resources.Ports; len(p) > 0 {
		return p
	}
	return usualPorts
}

func inSpans(spans []api.PortSpan, port uint16) bool {
	return slices.ContainsFunc(spans, func(s api.PortSpan) bool { return port >= s.First && port <= s.Last })
}

// take gives a task its part of the node.
func (t *nodes) take(slot int32, needs amount, ports []uint16) {
	t.free[slot] = t.free[slot].minus(needs)
	t.rate(slot)
	for _, p := range ports {
		at, _ := slices.BinarySearch(t.used[slot], p)
		t.used[slot] = slices.Insert(t.used[slot], at, p)
		if inSpans(t.spans(slot), p) {
			t.spanFree[slot]--
		}
	}
}

// give takes a task's part back.
func (t *nodes) give(slot int32, needs amount, ports []uint16) {
	t.free[slot] = t.free[slot].plus(needs)
	t.rate(slot)
	for _, p := range ports {
		if at, found := slices.BinarySearch(t.used[slot], p); found {
			t.used[slot] = slices.Delete(t.used[slot], at, at+1)
			if inSpans(t.spans(slot), p) {
				t.spanFree[slot]++
			}
		}
	}
}

func (t *nodes) isUsed(slot int32, port uint16) bool {
	_, found := slices.BinarySearch(t.used[slot], port)
	return found
}

// remove frees a node's slot.
func (t *nodes) remove(slot int32) {
	delete(t.index, t.facts[slot].Name)
	t.facts[slot], t.state[slot] = Node{}, gone
	t.all[slot], t.free[slot] = amount{}, amount{}
	t.used[slot], t.spanFree[slot], t.on[slot] = nil, 0, nil
	t.vacant = append(t.vacant, slot)
	t.epoch++
	for _, c := range t.columns {
		c.of[slot] = 0
	}
}

func sameLabels(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

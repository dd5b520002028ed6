package scheduler

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
)

// Table follows a State, and remembers which apps something has happened to. It
// is for one goroutine.
type Table struct {
	nodes     *nodes
	apps      map[string]*app
	instances map[string]*instance
	// dirty apps are looked at by the next plan, waiting ones when a node has got
	// room; timed ones at their time.
	dirty   map[*app]struct{}
	waiting map[*app]struct{}
	timed   map[*app]time.Time
	// everywhere has the apps with an instance on every node.
	everywhere map[*app]struct{}
	random     *rand.Rand
	plan       *Plan // being made
	scratch    scratch
}

type app struct {
	id        string
	targets   []Target
	instances []*instance
	history   History
	rebalance bool
	pending   []Pending
	breaker   *Breaker
}

type instance struct {
	Instance
	slot  int32 // of its node; -1 for one that is not known
	needs amount
	ports []uint16
}

// NewTable is a table of the state; the first plan looks at everything.
func NewTable(s *State) *Table {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], s.Seed)
	t := &Table{
		nodes: newNodes(s.Headroom), apps: map[string]*app{}, instances: make(map[string]*instance, len(s.Instances)),
		dirty: map[*app]struct{}{}, waiting: map[*app]struct{}{}, timed: map[*app]time.Time{}, everywhere: map[*app]struct{}{},
		random: rand.New(rand.NewChaCha8(seed)),
	}
	for _, n := range s.Nodes {
		t.SetNode(n)
	}
	for i := range s.Instances {
		t.SetInstance(s.Instances[i])
	}
	targets := map[string][]Target{}
	for _, target := range s.Targets {
		targets[target.App.ID] = append(targets[target.App.ID], target)
	}
	for id, of := range targets {
		t.SetTargets(id, of)
	}
	for _, h := range s.Histories {
		t.SetHistory(h)
	}
	for _, id := range s.Rebalance {
		t.Rebalance(id)
	}
	return t
}

func (t *Table) app(id string) *app {
	a := t.apps[id]
	if a == nil {
		a = &app{id: id}
		t.apps[id] = a
	}
	return a
}

func (t *Table) touch(a *app) { t.dirty[a] = struct{}{} }

// roomier has the next plan look at all apps that wait for room, or for another
// set of nodes.
func (t *Table) roomier() {
	for a := range t.waiting {
		t.touch(a)
	}
}

// SetNode tells of a node that is new or has changed. To tell of one that has not
// costs next to nothing.
func (t *Table) SetNode(n Node) {
	if slot, known := t.nodes.index[n.Name]; known && sameNode(&t.nodes.facts[slot], &n) {
		t.nodes.facts[slot] = n // its addresses may be others
		return
	}
	slot, isNew := t.nodes.set(n)
	if isNew {
		// Instances may have been told of before their node.
		for _, i := range t.instances {
			if i.Node == n.Name {
				t.place(i)
				t.touch(t.apps[i.App])
			}
		}
	}
	for _, i := range t.nodes.on[slot] {
		t.touch(t.apps[i.App])
	}
	for a := range t.everywhere {
		t.touch(a)
	}
	t.roomier()
}

func sameNode(a, b *Node) bool {
	return a.EffectiveRole() == b.EffectiveRole() && a.Domain == b.Domain && sameLabels(a.Attributes, b.Attributes) &&
		a.Draining == b.Draining && a.Health == b.Health && a.Since.Equal(b.Since) &&
		a.Resources.CPUs == b.Resources.CPUs && a.Resources.Memory == b.Resources.Memory && a.Resources.Disk == b.Resources.Disk &&
		a.Resources.GPUs == b.Resources.GPUs && slices.Equal(a.Resources.Ports, b.Resources.Ports)
}

// RemoveNode tells that a node is gone for good. Its instances are forgotten by
// the next plan.
func (t *Table) RemoveNode(name string) {
	slot, known := t.nodes.index[name]
	if !known {
		return
	}
	for _, i := range t.nodes.on[slot] {
		i.slot = -1
		t.touch(t.apps[i.App])
	}
	t.nodes.remove(slot)
	for a := range t.everywhere {
		t.touch(a)
	}
	t.roomier() // one domain less to spread over
}

// SetTargets tells what of an app shall run; no targets: nothing.
func (t *Table) SetTargets(id string, targets []Target) {
	a := t.app(id)
	a.targets = targets
	delete(t.everywhere, a)
	if slices.ContainsFunc(targets, func(t Target) bool { return t.Count == int(api.EveryNode) }) {
		t.everywhere[a] = struct{}{}
	}
	t.touch(a)
}

// SetInstance tells of an instance that is new or has changed. Spec and Replaces
// may be left out when nothing of them has changed.
func (t *Table) SetInstance(i Instance) {
	known := t.instances[i.ID]
	if known == nil {
		known = &instance{Instance: i, slot: -1, needs: ofSpec(i.Spec), ports: hostPorts(i.Spec)}
		t.instances[i.ID] = known
		a := t.app(i.App)
		a.instances = append(a.instances, known)
		t.place(known)
		t.touch(a)
		return
	}
	if i.Spec == nil {
		i.Spec = known.Spec
	}
	if i.Replaces == "" {
		i.Replaces = known.Replaces
	}
	ended := i.State.Ended() && !known.State.Ended()
	known.Instance = i
	if ended {
		t.release(known)
		t.roomier()
	}
	t.touch(t.app(known.App))
}

// place books an instance's needs on its node.
func (t *Table) place(i *instance) {
	slot, there := t.nodes.index[i.Node]
	if !there || i.State.Ended() || i.slot >= 0 {
		return
	}
	i.slot = slot
	t.nodes.on[slot] = append(t.nodes.on[slot], i)
	t.nodes.take(slot, i.needs, i.ports)
}

// release gives back what an instance has of its node.
func (t *Table) release(i *instance) {
	if i.slot < 0 {
		return
	}
	on := t.nodes.on[i.slot]
	if at := slices.Index(on, i); at >= 0 {
		on[at] = on[len(on)-1]
		t.nodes.on[i.slot] = on[:len(on)-1]
	}
	t.nodes.give(i.slot, i.needs, i.ports)
	i.slot = -1
}

// RemoveInstance tells that an instance is forgotten.
func (t *Table) RemoveInstance(id string) {
	i := t.instances[id]
	if i == nil {
		return
	}
	if i.slot >= 0 {
		t.release(i)
		t.roomier()
	}
	t.drop(i)
	t.touch(t.app(i.App))
}

func (t *Table) drop(i *instance) {
	delete(t.instances, i.ID)
	a := t.app(i.App)
	if at := slices.Index(a.instances, i); at >= 0 {
		a.instances = slices.Delete(a.instances, at, at+1)
	}
}

// SetHistory tells an app's history.
func (t *Table) SetHistory(h History) {
	a := t.app(h.App)
	a.history = h
	t.touch(a)
}

// Rebalance has the next plan spread an app's instances anew, where that makes
// them more even. New instances start before old ones end.
func (t *Table) Rebalance(id string) {
	a := t.app(id)
	a.rebalance = true
	t.touch(a)
}

// Eligible is how many nodes fit an app, whatever they have left: what
// instances "*" means as a number.
func (t *Table) Eligible(a *api.App) int {
	n := 0
	m := t.nodes.mask(a, constraintsOf(a))
	m.each(func(slot int32) {
		if s := t.nodes.state[slot]; s == up || s == suspect {
			n++
		}
	})
	return n
}

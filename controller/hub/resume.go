package hub

import (
	"maps"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
)

// baseFor is how long one whole state is given to those who come: it costs one
// encoding for all of them, and the crumbs since then bring them up to date.
const baseFor = 2 * time.Second

// fewCrumbs are told one after the other, each encoded once for all nodes; who
// is further behind is told the newest of each object instead.
const fewCrumbs = 16

// Base is a whole state to begin with, and the crumb that it stands at: the
// newest one or one of a moment ago, so that many who come at once share its
// encoding. Wait for Ready before.
func (h *Hub) Base() (*State, *Crumb) {
	state, crumb := h.Newest()
	h.mu.Lock()
	defer h.mu.Unlock()
	if b := h.base; b.state != nil && time.Since(b.at) < baseFor && b.generation == h.generation {
		return b.state, b.crumb
	}
	h.base = base{state, crumb, time.Now(), h.generation}
	return state, crumb
}

// base is a state that is given to those who come.
type base struct {
	state      *State
	crumb      *Crumb
	at         time.Time
	generation int
}

// From is the last crumb that is not after a revision that a node has; nil when
// it is not kept, so that the node needs the whole. Another controller may have
// stopped between two of this one's crumbs: what Lines says holds for that too.
// A node that is ahead of this controller gets the newest crumb.
func (h *Hub) From(revision uint64) *Crumb {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.ring) - 1; i >= 0; i-- {
		if h.ring[i].revision <= revision {
			return h.ring[i]
		}
	}
	return nil
}

// Lines are what a node is told that has the state of a revision, at a crumb or
// after it, to have that of the crumb that comes back with them. There are none
// when nothing is new. ok is false when no change leads there: the node needs
// the whole.
func (h *Hub) Lines(node string, revision uint64, at *Crumb) (lines [][]byte, now *Crumb, ok bool) {
	var crumbs []*Crumb
	for next := at.After(); next != nil; next = next.After() {
		if next.whole {
			return nil, next, false
		}
		if next.revision > revision {
			crumbs = append(crumbs, next)
		}
		at = next
	}
	if len(crumbs) == 0 {
		return nil, at, true
	}
	if len(crumbs) <= fewCrumbs && crumbs[0].change.From == revision {
		for _, c := range crumbs {
			lines = append(lines, c.Frame(node))
		}
		return lines, at, true
	}
	change, now := h.merged(node, revision, crumbs)
	if change == nil {
		return nil, at, false
	}
	return [][]byte{line(api.Frame{Type: api.FrameChange, Change: change})}, now, true
}

// merged leads from a revision to the newest: each object that any of the
// crumbs, or of those that have come meanwhile, touches, as it is now. Whether
// the node has some of it already makes no difference.
func (h *Hub) merged(node string, revision uint64, crumbs []*Crumb) (*api.SnapshotChange, *Crumb) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := touched{}
	last := crumbs[len(crumbs)-1]
	for next := last.after; next != nil; next = next.after {
		if next.whole {
			return nil, nil
		}
		crumbs, last = append(crumbs, next), next
	}
	own := map[string]bool{}
	for _, c := range crumbs {
		t.add(c.touched)
		for id := range c.touched.runs[node] {
			own[id] = true
		}
	}
	c := h.content
	change := &api.SnapshotChange{From: revision, Revision: last.revision}
	change.Services, change.Gone.Services = present(t.services, c.services)
	change.Records, change.Gone.Records = present(t.records, c.records)
	change.Nodes, change.Gone.Nodes = present(t.nodes, c.nodes)
	change.Tasks, change.Gone.Tasks = present(t.tasks, c.tasks)
	change.Networks, change.Gone.Networks = present(t.networks, c.networks)
	change.Subnets, change.Gone.Subnets = present(t.subnets, c.subnets)
	change.Run, change.Gone.Run = present(own, c.run[node])
	for name := range t.vips {
		if v := c.vips[name]; v == nil {
			change.Gone.VIPs = append(change.Gone.VIPs, name)
		} else {
			if change.VIPs == nil {
				change.VIPs = map[string]api.VIPAddresses{}
			}
			change.VIPs[name] = *v
		}
	}
	slices.Sort(change.Gone.VIPs)
	if t.policy {
		change.Policy, change.NoPolicy = c.policy, c.policy == nil
	}
	change.Node = ofNode(change, node)
	return change, last
}

// touched are the keys of all that a batch of the store's events is about. That
// is more than what differs after it: what was changed there and back differs
// for a node that was at a state in between.
type touched struct {
	services, records, nodes, tasks, networks, subnets, vips map[string]bool
	runs                                                     map[string]map[string]bool // by node and id
	policy                                                   bool
}

// touched by the edit.
func (e *edit) touched() *touched {
	t := &touched{
		services: keys(e.services), records: keys(e.records), nodes: keys(e.nodes), tasks: keys(e.tasks), networks: keys(e.networks),
		subnets: keys(e.subnets), vips: keys(e.vips), policy: e.policed,
	}
	for node, specs := range e.runs {
		if t.runs == nil {
			t.runs = map[string]map[string]bool{}
		}
		t.runs[node] = keys(specs)
	}
	return t
}

// keys of a map; nil of an empty one.
func keys[V any](m map[string]V) map[string]bool {
	if len(m) == 0 {
		return nil
	}
	all := make(map[string]bool, len(m))
	for k := range m {
		all[k] = true
	}
	return all
}

// add adds what others have touched, but for what nodes run.
func (t *touched) add(o *touched) {
	union(&t.services, o.services)
	union(&t.records, o.records)
	union(&t.nodes, o.nodes)
	union(&t.tasks, o.tasks)
	union(&t.networks, o.networks)
	union(&t.subnets, o.subnets)
	union(&t.vips, o.vips)
	t.policy = t.policy || o.policy
}

func union(into *map[string]bool, more map[string]bool) {
	if *into == nil {
		*into = make(map[string]bool, len(more))
	}
	maps.Copy(*into, more)
}

// present are the objects of the keys that are there, and the keys of the rest.
func present[T any](keys map[string]bool, all map[string]*T) (there []T, gone []string) {
	sortedKeys := make([]string, 0, len(keys))
	for k := range keys {
		sortedKeys = append(sortedKeys, k)
	}
	slices.Sort(sortedKeys)
	for _, k := range sortedKeys {
		if v := all[k]; v != nil {
			there = append(there, *v)
		} else {
			gone = append(gone, k)
		}
	}
	return there, gone
}

// Behind tells how many states came after a revision, and since when the first
// of them is known here. Those that are no longer kept are not counted.
func (h *Hub) Behind(revision uint64) (states int, since time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	low, high := 0, len(h.ring)
	for low < high {
		if middle := (low + high) / 2; h.ring[middle].revision > revision {
			high = middle
		} else {
			low = middle + 1
		}
	}
	if low == len(h.ring) {
		return 0, 0
	}
	return len(h.ring) - low, time.Since(h.ring[low].at)
}

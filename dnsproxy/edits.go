package dnsproxy

import (
	"errors"
	"maps"
	"strings"

	"github.com/weirproject/weir/api"
)

// edits are the documents and tasks that a change sets or drops (nil).
type edits struct {
	services map[serviceKey]*serviceState
	nodes    map[string]*api.Node
	records  map[recordKey]*api.Record
	tasks    map[string]*Task
	self     *api.Node
	allotted map[string]api.VIPAddresses // all there are; nil: as before,
	more     map[string]api.VIPAddresses // but for these
	fixed    bool                        // names that no document has must be made anew
}

func newEdits() *edits {
	return &edits{services: map[serviceKey]*serviceState{}, nodes: map[string]*api.Node{}, records: map[recordKey]*api.Record{}, tasks: map[string]*Task{}}
}

func (e *edits) len() int { return len(e.services) + len(e.nodes) + len(e.records) + len(e.tasks) }

// change makes the table that follows edits. It wants mu held.
func (n *names) change(e *edits) (*Table, error) {
	e.fixed = e.fixed || e.self != nil || len(e.nodes) > 0
	touched := n.spread(e)
	before := n.claimsOf(e, touched)
	n.enter(e, touched)
	after := n.claimsOf(e, touched)
	if err := errors.Join(after.errors...); err != nil {
		return nil, err
	}
	removed, added := difference(before.list, after.list)
	return n.apply(removed, added)
}

// claimsOf gives what the edited sources claim as they are in names.
func (n *names) claimsOf(e *edits, touched map[string]bool) *claims {
	c := &claims{names: n}
	for name := range e.nodes {
		if node := n.nodes[name]; node != nil {
			c.node(node)
		}
	}
	for key := range e.services {
		if s, ok := n.services[key]; ok {
			c.serviceClaims(s)
		}
	}
	for key := range e.records {
		if r := n.records[key]; r != nil {
			c.record(r)
		}
	}
	if e.fixed {
		c.fixed(n.controllers(), n.self)
	}
	for id := range touched {
		if t, ok := n.tasks[id]; ok {
			n.taskClaims(c, t)
		}
	}
	return c
}

// taskClaims adds a task's claims. One that cannot have names takes none from
// others: it is told, not an error.
func (n *names) taskClaims(c *claims, t taskState) {
	errs := len(c.errors)
	c.task(t.app, t.task)
	delete(n.faults, t.task.ID)
	if len(c.errors) > errs {
		n.faults[t.task.ID] = c.errors[errs]
		c.errors = c.errors[:errs]
	}
}

// difference cancels what is claimed before and after.
func difference(before, after []claim) (removed, added []claim) {
	if len(before) == 0 {
		return nil, after
	}
	had := make(map[claim]int, len(before))
	for _, c := range before {
		had[c]++
	}
	for _, c := range after {
		if had[c] > 0 {
			had[c]--
		} else {
			added = append(added, c)
		}
	}
	for c, count := range had {
		for range count {
			removed = append(removed, c)
		}
	}
	return removed, added
}

// spread finds what else changes with the edits: the services of which the name
// is taken or freed by a VIP's, and the tasks of apps that get or lose a plain
// name. It gives the ids of all tasks that change.
func (n *names) spread(e *edits) map[string]bool {
	touched := map[string]bool{}
	for id := range e.tasks {
		touched[id] = true
	}
	count := map[string]int{}
	for key, s := range e.services {
		if old, ok := n.services[key]; ok {
			for _, name := range namedVIPs(old.doc) {
				count[name]--
			}
		}
		if s != nil {
			for _, name := range namedVIPs(s.doc) {
				count[name]++
			}
		}
	}
	for name, more := range count {
		if (n.named[name] > 0) == (n.named[name]+more > 0) {
			continue
		}
		first, namespace, _ := cutLastDot(name)
		for _, proto := range []api.Protocol{api.TCP, api.UDP} {
			key := serviceKey{first, namespace, proto}
			if s, ok := n.services[key]; ok && e.services[key] == nil {
				if _, edited := e.services[key]; !edited {
					e.services[key] = &s
				}
			}
		}
	}
	n.spreadApps(e, touched)
	return touched
}

func cutLastDot(name string) (before, after string, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

// enter makes the edits the state of names.
func (n *names) enter(e *edits, touched map[string]bool) {
	for name, node := range e.nodes {
		enter(n.nodes, name, node)
	}
	for key, r := range e.records {
		enter(n.records, key, r)
	}
	for key, s := range e.services {
		if old, ok := n.services[key]; ok {
			for _, name := range namedVIPs(old.doc) {
				if n.named[name]--; n.named[name] == 0 {
					delete(n.named, name)
				}
			}
		}
		if s == nil {
			delete(n.services, key)
			continue
		}
		n.services[key] = *s
		for _, name := range namedVIPs(s.doc) {
			n.named[name]++
		}
	}
	if e.self != nil {
		n.self = e.self
	}
	if e.allotted != nil {
		n.allotted, n.ownVIPs = e.allotted, false
	}
	if len(e.more) > 0 && !n.ownVIPs {
		n.allotted, n.ownVIPs = maps.Clone(n.allotted), true
		if n.allotted == nil {
			n.allotted = map[string]api.VIPAddresses{}
		}
	}
	maps.Copy(n.allotted, e.more)
	n.enterTasks(e, touched)
}

func enter[K comparable, V any](all map[K]*V, key K, value *V) {
	if value == nil {
		delete(all, key)
	} else {
		all[key] = value
	}
}

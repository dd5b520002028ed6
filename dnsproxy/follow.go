package dnsproxy

import (
	"errors"
	"fmt"
	"maps"

	"github.com/weirproject/weir/api"
)

// editsFor gives all edits that make the state of names that of a snapshot.
func (n *names) editsFor(s *api.Snapshot, tasks []Task) (*edits, error) {
	e := newEdits()
	e.self, e.allotted = &s.Node, s.VIPs
	for i := range s.Nodes {
		e.nodes[s.Nodes[i].Name] = &s.Nodes[i]
	}
	for i := range s.Records {
		r := &s.Records[i]
		e.records[recordKey{r.Name, r.Type}] = r
	}
	for i := range s.Services {
		state := n.stateOf(&s.Services[i])
		e.services[keyOfService(&s.Services[i])] = &state
	}
	if len(e.nodes) < len(s.Nodes) || len(e.records) < len(s.Records) || len(e.services) < len(s.Services) {
		return nil, errors.New("read the snapshot: a node, a record or a service is in it twice")
	}
	for i := range tasks {
		if tasks[i].ID == "" || e.tasks[tasks[i].ID] != nil {
			return nil, fmt.Errorf("task of %v: its id %q is empty, or another's", tasks[i].Path, tasks[i].ID)
		}
		e.tasks[tasks[i].ID] = &tasks[i]
	}
	return e, nil
}

// follow makes the next table of the line by what differs in a snapshot. ok is
// false when that cannot be, or would not be less work than a whole table.
func (n *names) follow(s *api.Snapshot, o Options) (t *Table, err error, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.broken || n.current != o.Previous || !o.continues(&n.options) {
		return nil, nil, false
	}
	n.options.Up, n.options.Programmed = o.Up, o.Programmed
	e, err := n.editsFor(s, o.Tasks)
	if err != nil {
		return nil, err, true
	}
	all := e.len()
	n.prune(e)
	if changed := e.len(); changed > batch && changed > all/4 {
		return nil, nil, false
	}
	t, err = n.next(e, s.Revision, o.least(s.Revision))
	if err == nil {
		n.adopt(s, o.Tasks)
	}
	return t, err, true
}

// next makes the table that follows edits, which is the current one from then
// on, or an error that ends the line. It wants mu held.
func (n *names) next(e *edits, revision uint64, least uint32) (*Table, error) {
	before := n.current.serial
	n.broken = true
	t, err := n.change(e)
	if err != nil {
		return nil, err
	}
	n.broken = false
	t.finish(revision, before, least)
	return t, nil
}

// prune adds the edits of what has gone, and drops those that change nothing.
func (n *names) prune(e *edits) {
	addGone(n.nodes, e.nodes)
	addGone(n.records, e.records)
	addGone(n.services, e.services)
	addGone(n.tasks, e.tasks)
	maps.DeleteFunc(e.nodes, func(name string, v *api.Node) bool { return sameNode(n.nodes[name], v) })
	maps.DeleteFunc(e.records, func(key recordKey, r *api.Record) bool { return sameRecord(n.records[key], r) })
	maps.DeleteFunc(e.services, func(key serviceKey, s *serviceState) bool { return n.sameService(key, s, e.allotted) })
	maps.DeleteFunc(e.tasks, func(id string, t *Task) bool { return sameTask(n.tasks[id].task, t) })
	if sameNode(n.self, e.self) {
		e.self = nil
	}
}

func addGone[K comparable, V, W any](before map[K]V, after map[K]*W) {
	for key := range before {
		if _, ok := after[key]; !ok {
			after[key] = nil
		}
	}
}

// adopt takes the documents of a snapshot that says the same, so that an older
// one can be freed.
func (n *names) adopt(s *api.Snapshot, tasks []Task) {
	n.self, n.allotted, n.ownVIPs = &s.Node, s.VIPs, false
	for i := range s.Nodes {
		n.nodes[s.Nodes[i].Name] = &s.Nodes[i]
	}
	for i := range s.Records {
		n.records[recordKey{s.Records[i].Name, s.Records[i].Type}] = &s.Records[i]
	}
	for i := range s.Services {
		key := keyOfService(&s.Services[i])
		state := n.services[key]
		state.doc = &s.Services[i]
		n.services[key] = state
	}
	for i := range tasks {
		state := n.tasks[tasks[i].ID]
		state.task = &tasks[i]
		state.app.tasks[tasks[i].ID] = &tasks[i]
		n.tasks[tasks[i].ID] = state
	}
}

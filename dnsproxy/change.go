package dnsproxy

import (
	"errors"

	"github.com/weirproject/weir/api"
)

// Change is a part of the wanted state that has changed. It costs what it has,
// however many other names there are.
type Change struct {
	// Revision of the state with the change.
	Revision uint64
	// Services that are new or differ, or of which what Up or Programmed say does;
	// and those that have gone, of which name, namespace and protocol count.
	Services, GoneServices []api.Service
	// Nodes and GoneNodes, likewise, by name.
	Nodes, GoneNodes []api.Node
	// Records and GoneRecords, likewise, by name and type.
	Records, GoneRecords []api.Record
	// Tasks that are new or differ, and the ids of those that have gone.
	Tasks     []Task
	GoneTasks []string
	// VIPs are allotments that are new, by name.namespace: of services that are
	// among Services. Those of services that have gone may stay.
	VIPs map[string]api.VIPAddresses
}

// errNotNewest is Apply's to an old table.
var errNotNewest = errors.New("apply a change of names: the table is not the newest")

// Apply makes the table that follows a change. The table itself stays as it is,
// but only the newest of a line can be followed: after an error Compile makes
// the next one, with this one as its Previous. The change's documents are kept
// and must not change any more.
func (t *Table) Apply(c Change) (*Table, error) {
	n := t.source
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.broken || n.current != t {
		return nil, errNotNewest
	}
	e := n.editsOf(&c)
	return n.next(e, c.Revision, n.options.least(c.Revision))
}

// editsOf a change.
func (n *names) editsOf(c *Change) *edits {
	e := newEdits()
	for i := range c.GoneServices {
		e.services[keyOfService(&c.GoneServices[i])] = nil
	}
	for i := range c.Services {
		state := n.stateOf(&c.Services[i])
		e.services[keyOfService(&c.Services[i])] = &state
	}
	for i := range c.GoneNodes {
		e.nodes[c.GoneNodes[i].Name] = nil
	}
	for i := range c.Nodes {
		e.nodes[c.Nodes[i].Name] = &c.Nodes[i]
	}
	for i := range c.GoneRecords {
		e.records[recordKey{c.GoneRecords[i].Name, c.GoneRecords[i].Type}] = nil
	}
	for i := range c.Records {
		e.records[recordKey{c.Records[i].Name, c.Records[i].Type}] = &c.Records[i]
	}
	for _, id := range c.GoneTasks {
		e.tasks[id] = nil
	}
	for i := range c.Tasks {
		e.tasks[c.Tasks[i].ID] = &c.Tasks[i]
	}
	e.more = c.VIPs
	return e
}

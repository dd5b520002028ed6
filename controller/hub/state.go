package hub

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/store"
)

// State is what all nodes shall be like at one revision. It is immutable.
type State struct {
	// Shared is the wanted state but for Node and Run, which each node has of
	// its own.
	Shared *api.Snapshot
	// Joined are the nodes that have joined, by name, as they told it themselves.
	Joined map[string]NodeEntry
	// Gate is the version of GateKey.
	Gate uint64
	run  map[string][]api.TaskSpec // by node, sorted by id
	pack packing
}

// packing is Shared as nodes get it, made when the first asks.
type packing struct {
	once  sync.Once
	bytes []byte
}

// Snapshot of one node; it shares its lists with those of all others.
func (s *State) Snapshot(node string) *api.Snapshot {
	one := *s.Shared
	one.Node, one.Run = api.Node{Name: node}, s.run[node]
	if i, found := slices.BinarySearchFunc(s.Shared.Nodes, node, func(n api.Node, name string) int { return cmp.Compare(n.Name, name) }); found {
		one.Node = s.Shared.Nodes[i]
	}
	return &one
}

// content is everything that the store holds, by key. A State is made of it when
// somebody asks for the whole: to keep a sorted list of it all at every change
// would cost what there is, not what has changed.
type content struct {
	revision uint64
	gate     uint64
	policy   *api.Policy
	services map[string]*api.Service
	records  map[string]*api.Record
	networks map[string]*api.ContainerNetwork
	subnets  map[string]*api.Subnet
	tasks    map[string]*api.Task
	vips     map[string]*api.VIPAddresses
	nodes    map[string]*api.Node
	run      map[string]map[string]*api.TaskSpec // by node and id

	// Of what nodes and services are put together.
	declared map[string]api.Node
	joined   map[string]NodeEntry
	health   map[string]api.NodeHealth
	places   map[string]*api.Service // by objects/ or effective/ and key
}

func newContent() *content {
	return &content{
		services: map[string]*api.Service{}, records: map[string]*api.Record{}, networks: map[string]*api.ContainerNetwork{},
		subnets: map[string]*api.Subnet{}, tasks: map[string]*api.Task{}, vips: map[string]*api.VIPAddresses{}, nodes: map[string]*api.Node{},
		run: map[string]map[string]*api.TaskSpec{}, declared: map[string]api.Node{}, joined: map[string]NodeEntry{},
		health: map[string]api.NodeHealth{}, places: map[string]*api.Service{},
	}
}

// state is the whole of it, sorted as a Snapshot is.
func (c *content) state() *State {
	s := &State{Joined: maps.Clone(c.joined), Gate: c.gate, run: make(map[string][]api.TaskSpec, len(c.run))}
	s.Shared = &api.Snapshot{
		Revision: c.revision, Policy: c.policy, Nodes: sorted(c.nodes), Services: sorted(c.services), Records: sorted(c.records),
		Networks: sorted(c.networks), Subnets: sorted(c.subnets), Tasks: sorted(c.tasks),
	}
	if len(c.vips) > 0 {
		s.Shared.VIPs = make(map[string]api.VIPAddresses, len(c.vips))
		for name, v := range c.vips {
			s.Shared.VIPs[name] = *v
		}
	}
	for node, specs := range c.run {
		s.run[node] = sorted(specs)
	}
	return s
}

func sorted[T any](all map[string]*T) []T {
	if len(all) == 0 {
		return nil
	}
	list := make([]T, 0, len(all))
	for _, k := range slices.Sorted(maps.Keys(all)) {
		list = append(list, *all[k])
	}
	return list
}

// edit collects what one batch of the store's events changes: by the key of its
// kind what is new; nil for what has gone.
type edit struct {
	services map[string]*api.Service
	records  map[string]*api.Record
	networks map[string]*api.ContainerNetwork
	subnets  map[string]*api.Subnet
	tasks    map[string]*api.Task
	vips     map[string]*api.VIPAddresses
	nodes    map[string]bool
	runs     map[string]map[string]*api.TaskSpec // by node and id
	policy   *api.Policy
	policed  bool
}

func newEdit() *edit {
	return &edit{
		services: map[string]*api.Service{}, records: map[string]*api.Record{}, networks: map[string]*api.ContainerNetwork{},
		subnets: map[string]*api.Subnet{}, tasks: map[string]*api.Task{}, vips: map[string]*api.VIPAddresses{}, nodes: map[string]bool{},
		runs: map[string]map[string]*api.TaskSpec{},
	}
}

// decoded is the value of an event; nil when it is gone or cannot be read: what
// the store holds was checked when it was written, so this is a newer release's.
func decoded[T any](e *store.Event) *T {
	if e.Deleted {
		return nil
	}
	v := new(T)
	if json.Unmarshal(e.Value, v) != nil {
		return nil
	}
	return v
}

// enter takes one event.
func (c *content) enter(e *edit, event *store.Event) {
	key := event.Key
	take := func(prefix string) bool {
		rest, ok := strings.CutPrefix(event.Key, prefix)
		if ok {
			key = rest
		}
		return ok
	}
	switch {
	case event.Key == GateKey:
		c.gate = event.Version
	case take(ObjectPrefix):
		c.enterObject(e, key, event)
	case take(effectPrefix):
		if kind, name, _ := strings.Cut(key, "/"); kind == "service" {
			c.enterService(e, "effective/"+name, name, decoded[api.Service](event))
		}
	case take(taskPrefix):
		c.enterTask(e, key, decoded[TaskEntry](event))
	case take(nodePrefix):
		if n := decoded[NodeEntry](event); n != nil {
			c.joined[key] = *n
		} else {
			delete(c.joined, key)
		}
		e.nodes[key] = true
	case take(healthPrefix):
		if health := api.NodeHealth(event.Value); !event.Deleted {
			c.health[key] = health
		} else {
			delete(c.health, key)
		}
		e.nodes[key] = true
	case take(vipPrefix):
		e.vips[key] = decoded[api.VIPAddresses](event)
	case take(subnetPrefix):
		e.subnets[key] = decoded[api.Subnet](event)
	}
}

// enterObject takes an event of what people declare.
func (c *content) enterObject(e *edit, key string, event *store.Event) {
	kind, name, _ := strings.Cut(key, "/")
	switch kind {
	case "service":
		c.enterService(e, "objects/"+name, name, decoded[api.Service](event))
	case "record":
		e.records[name] = decoded[api.Record](event)
	case "network":
		e.networks[name] = decoded[api.ContainerNetwork](event)
	case "policy":
		e.policy, e.policed = decoded[api.Policy](event), true
	case "node":
		if n := decoded[api.Node](event); n != nil {
			c.declared[name] = *n
		} else {
			delete(c.declared, name)
		}
		e.nodes[name] = true
	}
}

// enterService takes a service from one of two places: what people declare
// counts more than what follows from apps.
func (c *content) enterService(e *edit, place, name string, s *api.Service) {
	if s == nil {
		delete(c.places, place)
	} else {
		c.places[place] = s
	}
	now := c.places["objects/"+name]
	if now == nil {
		now = c.places["effective/"+name]
	}
	e.services[name] = now
}

// enterTask keeps what each node runs.
func (c *content) enterTask(e *edit, id string, t *TaskEntry) {
	enter := func(node string, spec *api.TaskSpec) {
		if e.runs[node] == nil {
			e.runs[node] = map[string]*api.TaskSpec{}
		}
		e.runs[node][id] = spec
	}
	was := c.tasks[id]
	if now, ok := e.tasks[id]; ok { // twice in one batch
		was = now
	}
	if was != nil && (t == nil || t.Task.Node != was.Node) {
		enter(was.Node, nil)
	}
	switch {
	case t == nil:
		e.tasks[id] = nil
	case t.Task.State.Ended():
		e.tasks[id] = &t.Task
		enter(t.Task.Node, nil)
	default:
		e.tasks[id] = &t.Task
		enter(t.Task.Node, &t.Spec)
	}
}

// take makes the edit part of the content. It returns what that changes for all
// nodes, and by node what it changes of what it runs.
func (c *content) take(e *edit, revision uint64) (*api.SnapshotChange, map[string]*api.SnapshotChange) {
	now, was := &api.Snapshot{Revision: revision}, &api.Snapshot{Revision: c.revision}
	now.Services, was.Services = replace(e.services, c.services)
	now.Records, was.Records = replace(e.records, c.records)
	now.Networks, was.Networks = replace(e.networks, c.networks)
	now.Subnets, was.Subnets = replace(e.subnets, c.subnets)
	now.Tasks, was.Tasks = replace(e.tasks, c.tasks)
	nodes := map[string]*api.Node{}
	for name := range e.nodes {
		nodes[name] = c.assemble(name)
	}
	now.Nodes, was.Nodes = replace(nodes, c.nodes)
	now.VIPs, was.VIPs = map[string]api.VIPAddresses{}, map[string]api.VIPAddresses{}
	for name, v := range e.vips {
		if before := c.vips[name]; before != nil {
			was.VIPs[name] = *before
		}
		if v != nil {
			now.VIPs[name], c.vips[name] = *v, v
		} else {
			delete(c.vips, name)
		}
	}
	now.Policy, was.Policy = c.policy, c.policy
	if e.policed {
		now.Policy, c.policy = e.policy, e.policy
	}
	c.revision = revision
	return now.Change(was), c.takeRuns(e)
}

func (c *content) takeRuns(e *edit) map[string]*api.SnapshotChange {
	var changes map[string]*api.SnapshotChange
	for node, specs := range e.runs {
		if c.run[node] == nil {
			c.run[node] = map[string]*api.TaskSpec{}
		}
		now, was := &api.Snapshot{}, &api.Snapshot{}
		now.Run, was.Run = replace(specs, c.run[node])
		if one := now.Change(was); !one.Empty() {
			if changes == nil {
				changes = map[string]*api.SnapshotChange{}
			}
			changes[node] = one
		}
	}
	return changes
}

// replace puts what is edited into all, and lists what is new and what was there
// of the edited keys.
func replace[T any](edited map[string]*T, all map[string]*T) (now, was []T) {
	for _, k := range slices.Sorted(maps.Keys(edited)) {
		if v := all[k]; v != nil {
			was = append(was, *v)
		}
		if v := edited[k]; v != nil {
			now, all[k] = append(now, *v), v
		} else {
			delete(all, k)
		}
	}
	return now, was
}

// assemble is a node as it says itself, with what an operator declares of it
// and what is found of its health; nil when there is neither.
func (c *content) assemble(name string) *api.Node {
	declared, isDeclared := c.declared[name]
	entry, hasJoined := c.joined[name]
	var n api.Node
	switch {
	case !isDeclared && !hasJoined:
		return nil
	case !hasJoined:
		n = declared
	default:
		n = entry.Node
	}
	if hasJoined && isDeclared {
		overlay(&n, declared)
	}
	n.Name, n.Health = name, c.health[name]
	return &n
}

// overlay puts what an operator declares over what a node says itself; only the
// node knows its addresses.
func overlay(n *api.Node, declared api.Node) {
	if len(n.Addresses) == 0 {
		n.Addresses = declared.Addresses
	}
	n.Role, n.Zone = cmp.Or(declared.Role, n.Role), cmp.Or(declared.Zone, n.Zone)
	if len(declared.Attributes) > 0 {
		n.Attributes = maps.Clone(n.Attributes)
		if n.Attributes == nil {
			n.Attributes = map[string]string{}
		}
		maps.Copy(n.Attributes, declared.Attributes)
	}
	n.Domain = api.FaultDomain{
		Region: cmp.Or(declared.Domain.Region, n.Domain.Region), Zone: cmp.Or(declared.Domain.Zone, n.Domain.Zone), Rack: cmp.Or(declared.Domain.Rack, n.Domain.Rack),
	}
	if declared.Resources.CPUs > 0 || declared.Resources.Memory > 0 || declared.Resources.Ports != nil {
		n.Resources = declared.Resources
	}
	n.Draining = declared.Draining
}

// With is what all nodes would share after a change of what people declare; a
// node's declaration is laid over what the node says itself.
func (s *State) With(c *api.SnapshotChange) (*api.Snapshot, error) {
	change := *c
	change.From, change.Revision = s.Shared.Revision, s.Shared.Revision+1
	change.Nodes = slices.Clone(c.Nodes)
	for i, declared := range change.Nodes {
		if entry, ok := s.Joined[declared.Name]; ok {
			n := entry.Node
			overlay(&n, declared)
			n.Name = declared.Name
			change.Nodes[i] = n
		}
	}
	change.Gone.Nodes = nil
	for _, name := range c.Gone.Nodes {
		if entry, ok := s.Joined[name]; ok {
			change.Nodes = append(change.Nodes, entry.Node)
		} else {
			change.Gone.Nodes = append(change.Gone.Nodes, name)
		}
	}
	return s.Shared.Apply(&change)
}

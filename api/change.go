package api

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
)

// SnapshotChange is what makes one snapshot of the next: what is new or
// differs, whole, and the keys of what has gone. What is nil stays.
type SnapshotChange struct {
	// From is the revision that it applies to, Revision what comes of it.
	From     uint64    `json:"from"`
	Revision uint64    `json:"revision"`
	Node     *Node     `json:"node,omitempty"`
	Nodes    []Node    `json:"nodes,omitempty"`
	Services []Service `json:"services,omitempty"`
	// Backends are single backends of services that are otherwise as they were.
	Backends []BackendChange    `json:"backends,omitempty"`
	Records  []Record           `json:"records,omitempty"`
	Tasks    []Task             `json:"tasks,omitempty"`
	Run      []TaskSpec         `json:"run,omitempty"`
	Networks []ContainerNetwork `json:"networks,omitempty"`
	Subnets  []Subnet           `json:"subnets,omitempty"`
	// Policy that is in force now; NoPolicy tells that there is none any more.
	Policy   *Policy `json:"policy,omitempty"`
	NoPolicy bool    `json:"no_policy,omitempty"`
	// VIPs that were allotted addresses.
	VIPs map[string]VIPAddresses `json:"vips,omitempty"`
	Gone Gone                    `json:"gone,omitzero"`
}

// BackendChange puts one backend in, in another's place, or takes it out.
type BackendChange struct {
	// Service as in ServiceKey.
	Service string  `json:"service"`
	Backend Backend `json:"backend"`
	Gone    bool    `json:"gone,omitempty"`
}

// Gone are the keys of what a change takes away.
type Gone struct {
	Nodes    []string `json:"nodes,omitempty"`
	Services []string `json:"services,omitempty"` // as in ServiceKey
	Records  []string `json:"records,omitempty"`
	Tasks    []string `json:"tasks,omitempty"`
	Run      []string `json:"run,omitempty"`
	Networks []string `json:"networks,omitempty"`
	Subnets  []string `json:"subnets,omitempty"` // network/node
	VIPs     []string `json:"vips,omitempty"`
}

// ServiceKey names a service among all: one name may have a TCP and a UDP one.
func ServiceKey(s *Service) string { return s.Key() + "/" + string(s.EffectiveProtocol()) }

func nodeKey(n *Node) string                { return n.Name }
func recordKey(r *Record) string            { return r.Key() }
func taskKey(t *Task) string                { return t.ID }
func specKey(t *TaskSpec) string            { return t.ID }
func networkKey(n *ContainerNetwork) string { return n.Name }
func subnetKey(s *Subnet) string            { return s.Network + "/" + s.Node }

// Empty tells whether the change changes nothing.
func (c *SnapshotChange) Empty() bool {
	bare := *c
	bare.From, bare.Revision = 0, 0
	return reflect.ValueOf(bare).IsZero()
}

// Change is what makes s of old. Lists are compared element by element, sorted
// as a Snapshot's are; elements that share their memory are not looked into.
func (s *Snapshot) Change(old *Snapshot) *SnapshotChange {
	c := &SnapshotChange{From: old.Revision, Revision: s.Revision}
	if !reflect.DeepEqual(old.Node, s.Node) {
		node := s.Node
		c.Node = &node
	}
	c.Nodes, c.Gone.Nodes = differ(old.Nodes, s.Nodes, nodeKey)
	c.services(old.Services, s.Services)
	c.Records, c.Gone.Records = differ(old.Records, s.Records, recordKey)
	c.Tasks, c.Gone.Tasks = differ(old.Tasks, s.Tasks, taskKey)
	c.Run, c.Gone.Run = differ(old.Run, s.Run, specKey)
	c.Networks, c.Gone.Networks = differ(old.Networks, s.Networks, networkKey)
	c.Subnets, c.Gone.Subnets = differ(old.Subnets, s.Subnets, subnetKey)
	if old.Policy != s.Policy && !reflect.DeepEqual(old.Policy, s.Policy) {
		c.Policy, c.NoPolicy = s.Policy, s.Policy == nil
	}
	for name, addresses := range s.VIPs {
		if old.VIPs[name] != addresses {
			if c.VIPs == nil {
				c.VIPs = map[string]VIPAddresses{}
			}
			c.VIPs[name] = addresses
		}
	}
	for name := range old.VIPs {
		if _, ok := s.VIPs[name]; !ok {
			c.Gone.VIPs = append(c.Gone.VIPs, name)
		}
	}
	slices.Sort(c.Gone.VIPs)
	return c
}

// services enters the services that differ; where only backends do, these.
func (c *SnapshotChange) services(old, now []Service) {
	differing, gone := differ(old, now, ServiceKey)
	c.Gone.Services = gone
	for _, s := range differing {
		i, found := find(old, ServiceKey(&s), ServiceKey)
		if !found {
			c.Services = append(c.Services, s)
			continue
		}
		before, after := old[i], s
		before.Backends, after.Backends = nil, nil
		changes := backendChanges(&old[i], &s)
		if !reflect.DeepEqual(before, after) || 2*len(changes) > len(s.Backends) {
			c.Services = append(c.Services, s)
			continue
		}
		c.Backends = append(c.Backends, changes...)
	}
}

// backendChanges make the backends of now of those of old.
func backendChanges(old, now *Service) []BackendChange {
	key := ServiceKey(now)
	had := make(map[string]*Backend, len(old.Backends))
	for i := range old.Backends {
		had[old.Backends[i].Address.String()] = &old.Backends[i]
	}
	var changes []BackendChange
	for _, b := range now.Backends {
		before := had[b.Address.String()]
		if before == nil || !reflect.DeepEqual(*before, b) {
			changes = append(changes, BackendChange{Service: key, Backend: b})
		}
		delete(had, b.Address.String())
	}
	for _, b := range old.Backends {
		if had[b.Address.String()] != nil {
			changes = append(changes, BackendChange{Service: key, Backend: Backend{Address: b.Address}, Gone: true})
		}
	}
	return changes
}

// Apply makes the snapshot that the change leads to; s stays as it is, and
// what did not change is shared.
func (s *Snapshot) Apply(c *SnapshotChange) (*Snapshot, error) {
	if c.From != s.Revision {
		return nil, fmt.Errorf("the change is of revision %d, and this is revision %d", c.From, s.Revision)
	}
	next := *s
	next.Revision = c.Revision
	if c.Node != nil {
		next.Node = *c.Node
	}
	next.Nodes = merge(s.Nodes, c.Nodes, c.Gone.Nodes, nodeKey)
	next.Services = merge(s.Services, c.Services, c.Gone.Services, ServiceKey)
	var err error
	if next.Services, err = withBackends(next.Services, c.Backends); err != nil {
		return nil, err
	}
	next.Records = merge(s.Records, c.Records, c.Gone.Records, recordKey)
	next.Tasks = merge(s.Tasks, c.Tasks, c.Gone.Tasks, taskKey)
	next.Run = merge(s.Run, c.Run, c.Gone.Run, specKey)
	next.Networks = merge(s.Networks, c.Networks, c.Gone.Networks, networkKey)
	next.Subnets = merge(s.Subnets, c.Subnets, c.Gone.Subnets, subnetKey)
	if c.Policy != nil || c.NoPolicy {
		next.Policy = c.Policy
	}
	if len(c.VIPs)+len(c.Gone.VIPs) > 0 {
		next.VIPs = make(map[string]VIPAddresses, len(s.VIPs)+len(c.VIPs))
		for name, addresses := range s.VIPs {
			next.VIPs[name] = addresses
		}
		for name, addresses := range c.VIPs {
			next.VIPs[name] = addresses
		}
		for _, name := range c.Gone.VIPs {
			delete(next.VIPs, name)
		}
	}
	return &next, nil
}

// withBackends applies the changes of single backends to a copy of services.
func withBackends(services []Service, changes []BackendChange) ([]Service, error) {
	if len(changes) == 0 {
		return services, nil
	}
	services = slices.Clone(services)
	copied := map[string]bool{}
	for _, change := range changes {
		i, found := find(services, change.Service, ServiceKey)
		if !found {
			return nil, fmt.Errorf("the change has a backend of service %s, which is not there", change.Service)
		}
		s := &services[i]
		if !copied[change.Service] {
			s.Backends, copied[change.Service] = slices.Clone(s.Backends), true
		}
		at := slices.IndexFunc(s.Backends, func(b Backend) bool { return b.Address == change.Backend.Address })
		switch {
		case change.Gone && at >= 0:
			s.Backends = slices.Delete(s.Backends, at, at+1)
		case change.Gone:
			return nil, fmt.Errorf("the change takes %s out of service %s, which does not have it", change.Backend.Address, change.Service)
		case at >= 0:
			s.Backends[at] = change.Backend
		default:
			s.Backends = append(s.Backends, change.Backend)
		}
	}
	return services, nil
}

// differ lists the elements of now that old does not have alike, and the keys
// of those of old that now has not. Both are sorted by key.
func differ[T any](old, now []T, key func(*T) string) (differing []T, gone []string) {
	if len(old) == len(now) && (len(now) == 0 || &old[0] == &now[0]) {
		return nil, nil
	}
	for i, j := 0, 0; i < len(old) || j < len(now); {
		order := 0
		switch {
		case i == len(old):
			order = 1
		case j == len(now):
			order = -1
		default:
			order = cmp.Compare(key(&old[i]), key(&now[j]))
		}
		switch {
		case order < 0:
			gone = append(gone, key(&old[i]))
			i++
		case order > 0:
			differing = append(differing, now[j])
			j++
		default:
			if !reflect.DeepEqual(&old[i], &now[j]) {
				differing = append(differing, now[j])
			}
			i++
			j++
		}
	}
	return differing, gone
}

// merge is old with what differs in its place and without what has gone.
func merge[T any](old, differing []T, gone []string, key func(*T) string) []T {
	if len(differing)+len(gone) == 0 {
		return old
	}
	next := slices.Clone(old)
	for _, k := range gone {
		if i, found := find(next, k, key); found {
			next = slices.Delete(next, i, i+1)
		}
	}
	for i := range differing {
		at, found := find(next, key(&differing[i]), key)
		if found {
			next[at] = differing[i]
		} else {
			next = slices.Insert(next, at, differing[i])
		}
	}
	return next
}

// find looks for the element with a key in a list that is sorted by key.
func find[T any](list []T, k string, key func(*T) string) (int, bool) {
	low, high := 0, len(list)
	for low < high {
		middle := (low + high) / 2
		if key(&list[middle]) < k {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, low < len(list) && key(&list[low]) == k
}

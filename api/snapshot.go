package api

import (
	"net/netip"
	"reflect"
)

// Snapshot is the whole wanted state of one node, immutable once made.
type Snapshot struct {
	// Revision grows with every change of the wanted state.
	Revision uint64 `json:"revision"`
	// Node is the node that the snapshot is for.
	Node Node `json:"node"`
	// Nodes are all nodes of the fleet, this one included, sorted by name.
	Nodes []Node `json:"nodes,omitempty"`
	// Services, sorted by key and protocol.
	Services []Service `json:"services,omitempty"`
	// Records, sorted by key.
	Records []Record `json:"records,omitempty"`
	// Policy of the zones; nil when there is none.
	Policy *Policy `json:"policy,omitempty"`
	// VIPs has the addresses of every named VIP, by name.namespace.
	VIPs map[string]VIPAddresses `json:"vips,omitempty"`
	// Tasks of the whole cluster, sorted by id.
	Tasks []Task `json:"tasks,omitempty"`
	// Run are the tasks that this node shall run, sorted by id.
	Run []TaskSpec `json:"run,omitempty"`
	// Networks of containers, sorted by name, and the nodes' subnets of them,
	// sorted by network and node.
	Networks []ContainerNetwork `json:"networks,omitempty"`
	Subnets  []Subnet           `json:"subnets,omitempty"`
}

// VIPAddresses are what a named VIP has been allotted from the ranges.
type VIPAddresses struct {
	V4 netip.Addr `json:"v4,omitzero"`
	V6 netip.Addr `json:"v6,omitzero"`
}

// Equal tells whether two snapshots want the same, whatever their revisions.
func (s *Snapshot) Equal(o *Snapshot) bool {
	if s == nil || o == nil {
		return s == o
	}
	a, b := *s, *o
	a.Revision, b.Revision = 0, 0
	return reflect.DeepEqual(a, b)
}

// Addresses are where clients reach the VIP: the literal address, or what the
// name was allotted, IPv4 first. A named VIP has the families of the service's
// backends, and IPv4 while there are none.
func (s *Snapshot) Addresses(service Service, v VIP) []netip.Addr {
	if v.Name == "" {
		return []netip.Addr{v.Addr}
	}
	has4, has6 := len(service.Backends) == 0, false
	for _, b := range service.Backends {
		if b.Address.Addr().Unmap().Is4() {
			has4 = true
		} else {
			has6 = true
		}
	}
	var all []netip.Addr
	allotted := s.VIPs[v.Name+"."+service.EffectiveNamespace()]
	if has4 && allotted.V4.IsValid() {
		all = append(all, allotted.V4)
	}
	if has6 && allotted.V6.IsValid() {
		all = append(all, allotted.V6)
	}
	return all
}

package api

import (
	"fmt"
	"net/netip"
)

// Node is one machine of the fleet.
type Node struct {
	Name string `json:"name"`
	// Addresses of the node, the one that others use first.
	Addresses []netip.Addr `json:"addresses"`
	// Role is controller, agent or public; empty means agent.
	Role string `json:"role,omitempty"`
	// Zone is the security zone the node's owner puts it into.
	Zone string `json:"zone,omitempty"`
	// Attributes select nodes, such as rack: r1.
	Attributes map[string]string `json:"attributes,omitempty"`
	// Domain is where it stands.
	Domain FaultDomain `json:"domain,omitzero"`
	// Resources that tasks may use; the zero value: what the node finds.
	Resources Resources `json:"resources,omitzero"`
	// Draining nodes get no new tasks, and their tasks start elsewhere before
	// they end here.
	Draining bool `json:"draining,omitempty"`
	// Health as the controllers and the neighbours see it; empty means alive.
	Health NodeHealth `json:"health,omitempty"`
}

// FaultDomain says where a node stands, from the large to the small. What is
// empty is not known.
type FaultDomain struct {
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	Rack   string `json:"rack,omitempty"`
}

// Resources of a node that tasks may use.
type Resources struct {
	CPUs   float64 `json:"cpus,omitempty"`   // cores
	Memory uint64  `json:"memory,omitempty"` // bytes
	Disk   uint64  `json:"disk,omitempty"`   // bytes
	GPUs   int     `json:"gpus,omitempty"`
	// Ports that tasks without a wish of their own are given.
	Ports []PortSpan `json:"ports,omitempty"`
}

// PortSpan is a range of ports, both ends included.
type PortSpan struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// NodeHealth is whether a node is there.
type NodeHealth string

// A node's healths.
const (
	// NodeAlive nodes answer.
	NodeAlive NodeHealth = "alive"
	// NodeSuspect nodes were not heard of for a moment: their backends get no new
	// connections and keep the old ones.
	NodeSuspect NodeHealth = "suspect"
	// NodeDead nodes are gone: their backends are out, and connections to them
	// are reset.
	NodeDead NodeHealth = "dead"
)

// The roles that Weir itself knows.
const (
	RoleController = "controller"
	RoleAgent      = "agent"
	RolePublic     = "public"
)

// Kind implements Object.
func (Node) Kind() string { return "node" }

// Key is the node's name.
func (n Node) Key() string { return n.Name }

// EffectiveRole is the role with its default applied.
func (n Node) EffectiveRole() string {
	if n.Role == "" {
		return RoleAgent
	}
	return n.Role
}

// Validate implements Object.
func (n Node) Validate() error {
	var f faults
	if !isLabel(n.Name) {
		f.add("name", "%q %s", n.Name, labelRule)
	}
	if len(n.Addresses) == 0 {
		f.add("addresses", "is empty: give the node's addresses")
	}
	for i, a := range n.Addresses {
		if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
			f.add(fmt.Sprintf("addresses[%d]", i), "%s is not the address of a host", a)
		}
	}
	return f.err()
}

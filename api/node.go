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
}

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

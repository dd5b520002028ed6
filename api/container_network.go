package api

import (
	"fmt"
	"net/netip"
)

// ContainerNetwork is a network of containers: every node has a subnet of it, and a
// container's address is reached from everywhere in the cluster.
type ContainerNetwork struct {
	// Name of the network; host, bridge and none are taken.
	Name string `json:"name"`
	// Range that the nodes' subnets are taken from; either or both families.
	Range  netip.Prefix `json:"range,omitzero"`
	Range6 netip.Prefix `json:"range6,omitzero"`
	// NodeBits is the prefix length of a node's IPv4 subnet; 0 means 24.
	// NodeBits6 is that of its IPv6 subnet; 0 means 80.
	NodeBits  int `json:"node_bits,omitempty"`
	NodeBits6 int `json:"node_bits6,omitempty"`
	// Mode is how packets get to other nodes; empty means auto.
	Mode NetworkMode `json:"mode,omitempty"`
	// VNI of the VXLAN, 1 to 16777215; 0 means 1024.
	VNI uint32 `json:"vni,omitempty"`
	// Masquerade gives flows that leave the cluster the node's address; nil
	// means true.
	Masquerade *bool `json:"masquerade,omitempty"`
}

// NetworkMode is how a network's packets get to other nodes.
type NetworkMode string

// The modes of a network.
const (
	NetworkAuto   NetworkMode = "auto"   // routes where nodes share a link, VXLAN elsewhere
	NetworkRoutes NetworkMode = "routes" // plain routes
	NetworkVXLAN  NetworkMode = "vxlan"
	NetworkLocal  NetworkMode = "local" // not to other nodes: a bridge of the node
)

// Kind implements Object.
func (ContainerNetwork) Kind() string { return "network" }

// Key is the network's name.
func (n ContainerNetwork) Key() string { return n.Name }

// Validate implements Object.
func (n ContainerNetwork) Validate() error {
	var f faults
	switch {
	case !isLabel(n.Name):
		f.add("name", "%q %s", n.Name, labelRule)
	case n.Name == "host" || n.Name == "bridge" || n.Name == "none":
		f.add("name", "%q is taken; choose another", n.Name)
	}
	if !n.Range.IsValid() && !n.Range6.IsValid() {
		f.add("range", "is missing: give range, range6 or both, such as 10.128.0.0/16")
	}
	checkNodeSubnets(&f, "range", n.Range, true, "node_bits", n.NodeBits, 24)
	checkNodeSubnets(&f, "range6", n.Range6, false, "node_bits6", n.NodeBits6, 80)
	switch n.Mode {
	case "", NetworkAuto, NetworkRoutes, NetworkVXLAN, NetworkLocal:
	default:
		f.add("mode", "%q must be auto, routes, vxlan or local", n.Mode)
	}
	if n.VNI > 1<<24-1 {
		f.add("vni", "%d must be 1 to 16777215", n.VNI)
	}
	return f.err()
}

func checkNodeSubnets(f *faults, field string, p netip.Prefix, v4 bool, bitsField string, bits, usual int) {
	if !p.IsValid() {
		if bits != 0 {
			f.add(bitsField, "is given without %s", field)
		}
		return
	}
	if p.Addr().Is4() != v4 {
		f.add(field, "%s is of the other address family", p)
		return
	}
	if p != p.Masked() {
		f.add(field, "%s has bits set behind its length: did you mean %s?", p, p.Masked())
	}
	if bits == 0 {
		bits = usual
	}
	// A subnet has its network's, its bridge's and its broadcast address, and
	// one for a container at least.
	if most := p.Addr().BitLen() - 2; bits < p.Bits() || bits > most {
		f.add(bitsField, "%s", fmt.Sprintf("%d must be %d to %d for %s", bits, p.Bits(), most, p))
	}
}

// Subnet is a node's part of a network, as the controller has allotted it.
type Subnet struct {
	Network string       `json:"network"`
	Node    string       `json:"node"`
	V4      netip.Prefix `json:"v4,omitzero"`
	V6      netip.Prefix `json:"v6,omitzero"`
}

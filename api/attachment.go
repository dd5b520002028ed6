package api

import "net/netip"

// Attachment is a container's place in networks, as its node keeps it.
type Attachment struct {
	// ID is the task's, or cni/ with the container's id and its interface.
	ID string `json:"id"`
	// Owner is who attached it: tasks, or cni for other orchestrators.
	Owner string `json:"owner"`
	// App and Labels of a container of another orchestrator.
	App    string            `json:"app,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Config names the other orchestrator's configuration that it came by.
	Config string `json:"config,omitempty"`
	// Namespace is the path of its network namespace, Space what the kernel
	// knows that by: a path may be given to another one.
	Namespace  string              `json:"namespace"`
	Space      string              `json:"space"`
	Interfaces []AttachedInterface `json:"interfaces"`
	// Ports with a HostPort are published at the node's addresses.
	Ports []TaskPort `json:"ports,omitempty"`
}

// AttachedInterface is an interface of a container.
type AttachedInterface struct {
	Network   string       `json:"network"`
	Name      string       `json:"name"` // such as eth0
	Addresses []netip.Addr `json:"addresses"`
	// Default tells that the container's default route leads through it.
	Default bool `json:"default,omitempty"`
}

// Addresses of all its interfaces, the first interface's first.
func (a Attachment) Addresses() []netip.Addr {
	var all []netip.Addr
	for _, i := range a.Interfaces {
		all = append(all, i.Addresses...)
	}
	return all
}

// AttachRequest asks a node to attach a container to one network.
type AttachRequest struct {
	// Container is its id, unique on the node, and Interface its new interface.
	Container string            `json:"container"`
	Interface string            `json:"interface"`
	Namespace string            `json:"namespace"` // path
	Network   string            `json:"network"`   // bridge is the node's own
	Addresses []netip.Addr      `json:"addresses,omitempty"`
	Default   bool              `json:"default"`
	App       string            `json:"app,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Ports     []TaskPort        `json:"ports,omitempty"`
	Config    string            `json:"config,omitempty"`
}

// Attached is what a container was given.
type Attached struct {
	Attachment
	Gateways []netip.Prefix `json:"gateways"` // with the length of the subnet
	Ranges   []netip.Prefix `json:"ranges"`   // of the whole network
	MTU      int            `json:"mtu"`
	// MAC of the interface, and the node's end of it.
	MAC           string `json:"mac"`
	HostInterface string `json:"host_interface"`
	// DNS has the addresses of the node's proxy.
	DNS    []netip.Addr `json:"dns,omitempty"`
	Domain string       `json:"domain,omitempty"`
}

// NetworkStatus is a network of containers on one node.
type NetworkStatus struct {
	Name   string      `json:"name"`
	Mode   NetworkMode `json:"mode"`
	Bridge string      `json:"bridge"`
	// Gateways are the node's addresses in it, with the length of its subnet.
	Gateways []netip.Prefix `json:"gateways"`
	Ranges   []netip.Prefix `json:"ranges"`
	Peers    int            `json:"peers"` // other nodes with a part of it
	// Attached are the containers in it.
	Attached int `json:"attached"`
}

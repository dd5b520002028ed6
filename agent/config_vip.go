package agent

import "net/netip"

// VIPConfig configures the load balancer.
type VIPConfig struct {
	Dataplane string       `json:"dataplane"` // auto, ebpf, ipvs or off
	Range     netip.Prefix `json:"range"`     // named VIPs' IPv4 addresses
	Range6    netip.Prefix `json:"range6"`    // and their IPv6 addresses
	Cgroup    string       `json:"cgroup"`    // auto: the root of the cgroup v2 hierarchy
	Edge      EdgeConfig   `json:"edge"`
	// Tunnels are the interfaces on which tunnels from edge nodes arrive, where
	// the node has backends of edge services; empty: those with its addresses.
	Tunnels []string `json:"tunnels"`
}

// EdgeConfig makes the node one of those through which clients outside reach
// services.
type EdgeConfig struct {
	// Interfaces on which the clients' packets arrive; none: no edge node.
	Interfaces []string `json:"interfaces"`
	Mode       string   `json:"mode"` // auto, native, generic or tcx
	// Announce makes the node take the virtual addresses on these interfaces'
	// segments by ARP and neighbour discovery, when no other edge node has them.
	Announce bool `json:"announce"`
	// VRID tells the fleet's edge nodes from other VRRP routers on the segment.
	VRID uint16 `json:"vrid"` // 1 to 255
	// Order of the edge nodes that own the addresses, by name; those left out
	// come after, by name.
	Order []string `json:"order"`
	// Preempt gives the addresses back to an earlier node of the order that
	// returns.
	Preempt bool `json:"preempt"`
	// Hook is a folder for routing daemons, and HookCommand is run with
	// WEIR_VIP and WEIR_STATE when a virtual address comes up or goes down.
	Hook        string   `json:"hook"`
	HookCommand []string `json:"hook_command"`
}

func defaultVIP() VIPConfig {
	return VIPConfig{Dataplane: "auto", Range: netip.MustParsePrefix("198.18.0.0/15"), Range6: netip.MustParsePrefix("fd77:6569:7200::/112"), Cgroup: "auto", Edge: EdgeConfig{Mode: "auto", VRID: 77}}
}

func (c VIPConfig) validate() error {
	if err := choice("vip.dataplane", c.Dataplane, "auto", "ebpf", "ipvs", "off"); err != nil {
		return err
	}
	if err := choice("vip.edge.mode", c.Edge.Mode, "auto", "native", "generic", "tcx"); err != nil {
		return err
	}
	if c.Edge.VRID < 1 || c.Edge.VRID > 255 {
		return fault("vip.edge.vrid", "%d is not within 1 to 255", c.Edge.VRID)
	}
	if len(c.Edge.HookCommand) > 0 && c.Edge.Hook == "" {
		return fault("vip.edge.hook_command", "needs vip.edge.hook, the folder that the hook writes to")
	}
	if c.Range.IsValid() && !c.Range.Addr().Is4() {
		return fault("vip.range", "%s is not IPv4; IPv6 goes into vip.range6", c.Range)
	}
	if c.Range6.IsValid() && !c.Range6.Addr().Is6() {
		return fault("vip.range6", "%s is not IPv6", c.Range6)
	}
	return nil
}

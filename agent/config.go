package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dnsproxy"
)

// Config is the agent's own file, agent.yaml. Every key is also a flag
// (--dns-listen) and an environment variable (WEIR_DNS_LISTEN).
type Config struct {
	Node    NodeConfig    `json:"node"`
	State   []string      `json:"state"`
	VIP     VIPConfig     `json:"vip"`
	DNS     DNSConfig     `json:"dns"`
	Zones   ZonesConfig   `json:"zones"`
	Metrics MetricsConfig `json:"metrics"`
	// RunDir holds the socket and the lock; DataDir what outlives a reboot.
	RunDir  string `json:"run_dir"`
	DataDir string `json:"data_dir"`
}

// NodeConfig says who this node is.
type NodeConfig struct {
	Name       string            `json:"name"`
	Addresses  []netip.Addr      `json:"addresses"` // empty: its node document's, else the interfaces'
	Role       string            `json:"role"`
	Zone       string            `json:"zone"`
	Attributes map[string]string `json:"attributes"`
}

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

// DNSConfig configures the DNS proxy. Without listen addresses it is off.
type DNSConfig struct {
	Listen  []netip.Addr `json:"listen"`
	Port    uint16       `json:"port"`
	Domain  string       `json:"domain"`
	Aliases []string     `json:"aliases"`
	// DCOS answers the names of DC/OS too, and DCOSCluster is the label before
	// dcos.directory that stands for this cluster.
	DCOS        bool   `json:"dcos"`
	DCOSCluster string `json:"dcos_cluster"`
	// Upstreams answer names outside the cluster: an address, or tcp://, tls:// or
	// https:// with one.
	Upstreams []dnsproxy.Upstream `json:"upstreams"`
	// Forward has upstreams of their own for zones; the longest match counts. A
	// zone without any is refused.
	Forward map[string][]dnsproxy.Upstream `json:"forward"`
	// Access says, by zone, which networks may ask; "." is everything.
	Access map[string][]netip.Prefix `json:"access"`
	// Transfer lists who may have the cluster's zones as a whole (AXFR).
	Transfer []netip.Prefix `json:"transfer"`
	// UpstreamCA is a file of certificates that sign TLS and HTTPS upstreams';
	// empty: the system's.
	UpstreamCA string `json:"upstream_ca"`
	// StaleAfter is how long a client waits for upstreams while there is an
	// answer past its end, StaleFor how long past its end that serves.
	StaleAfter api.Duration `json:"stale_after"`
	StaleFor   api.Duration `json:"stale_for"`
	// ResponseRate bounds the answers a second about names outside to one
	// network that is not private; -1: no bound.
	ResponseRate int `json:"response_rate"`
	// CacheEntries and CacheBytes bound the cache.
	CacheEntries int `json:"cache_entries"`
	CacheBytes   int `json:"cache_bytes"`
}

// forwarding is what the proxy asks whom, and who may ask it.
func (c DNSConfig) forwarding() dnsproxy.Forwarding {
	f := dnsproxy.Forwarding{Transfer: c.Transfer}
	if len(c.Upstreams) > 0 {
		f.Zones = append(f.Zones, dnsproxy.ForwardZone{Zone: ".", Upstreams: c.Upstreams})
	}
	for _, zone := range slices.Sorted(maps.Keys(c.Forward)) {
		f.Zones = append(f.Zones, dnsproxy.ForwardZone{Zone: zone, Upstreams: c.Forward[zone]})
	}
	for _, zone := range slices.Sorted(maps.Keys(c.Access)) {
		f.Access = append(f.Access, dnsproxy.Access{Zone: zone, Allow: c.Access[zone]})
	}
	return f
}

func (c DNSConfig) listen() (all []netip.AddrPort) {
	for _, addr := range c.Listen {
		all = append(all, netip.AddrPortFrom(addr, c.Port))
	}
	return all
}

// ZonesConfig configures the packet filter.
type ZonesConfig struct {
	Backend string `json:"backend"` // auto or nftables
	Mode    string `json:"mode"`    // enforce, observe or off
}

// MetricsConfig says where Prometheus finds the metrics.
type MetricsConfig struct {
	Listen string `json:"listen"` // host:port; empty: nowhere
}

// DefaultConfig is the configuration of an agent whose file says nothing.
func DefaultConfig() Config {
	name, _ := os.Hostname()
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	return Config{
		Node:  NodeConfig{Name: name, Role: api.RoleAgent},
		State: []string{"/etc/weir/state.d"},
		VIP:   VIPConfig{Dataplane: "auto", Range: netip.MustParsePrefix("198.18.0.0/15"), Range6: netip.MustParsePrefix("fd77:6569:7200::/112"), Cgroup: "auto", Edge: EdgeConfig{Mode: "auto", VRID: 77}},
		DNS: DNSConfig{Listen: []netip.Addr{netip.MustParseAddr("169.254.53.53")}, Port: 53, Domain: "weir.internal", Aliases: []string{"mesos"},
			StaleAfter: api.Duration(1800 * time.Millisecond), StaleFor: api.Duration(24 * time.Hour), ResponseRate: 20, CacheEntries: 10_000, CacheBytes: 16 << 20},
		Zones:   ZonesConfig{Backend: "auto", Mode: "enforce"},
		Metrics: MetricsConfig{Listen: "127.0.0.1:9465"},
		RunDir:  "/run/weir",
		DataDir: "/var/lib/weir",
	}
}

// Validate names the first key with a wrong value, as an *api.FieldError.
func (c Config) Validate() error {
	fault := func(field, format string, args ...any) error {
		return &api.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	if c.Node.Name == "" {
		return fault("node.name", "is missing")
	}
	if len(c.State) == 0 {
		return fault("state", "is empty: give the folder with the state documents")
	}
	if err := choice("vip.dataplane", c.VIP.Dataplane, "auto", "ebpf", "ipvs", "off"); err != nil {
		return err
	}
	if err := choice("vip.edge.mode", c.VIP.Edge.Mode, "auto", "native", "generic", "tcx"); err != nil {
		return err
	}
	if c.VIP.Edge.VRID < 1 || c.VIP.Edge.VRID > 255 {
		return fault("vip.edge.vrid", "%d is not within 1 to 255", c.VIP.Edge.VRID)
	}
	if len(c.VIP.Edge.HookCommand) > 0 && c.VIP.Edge.Hook == "" {
		return fault("vip.edge.hook_command", "needs vip.edge.hook, the folder that the hook writes to")
	}
	if err := choice("zones.backend", c.Zones.Backend, "auto", "nftables"); err != nil {
		return err
	}
	if err := choice("zones.mode", c.Zones.Mode, "enforce", "observe", "off"); err != nil {
		return err
	}
	if c.VIP.Range.IsValid() && !c.VIP.Range.Addr().Is4() {
		return fault("vip.range", "%s is not IPv4; IPv6 goes into vip.range6", c.VIP.Range)
	}
	if c.VIP.Range6.IsValid() && !c.VIP.Range6.Addr().Is6() {
		return fault("vip.range6", "%s is not IPv6", c.VIP.Range6)
	}
	for i, a := range c.DNS.Listen {
		if a.Is6() && !a.IsLoopback() {
			return fault(fmt.Sprintf("dns.listen[%d]", i), "%s is IPv6, which is put on lo in no release yet; use an IPv4 address or ::1", a)
		}
	}
	if err := c.DNS.forwarding().Validate(c.DNS.listen()); err != nil {
		return fault("dns", "%v", err)
	}
	if c.DNS.Domain == "" {
		return fault("dns.domain", "is missing")
	}
	if c.RunDir == "" || c.DataDir == "" {
		return fault("run_dir", "run_dir and data_dir must both be given")
	}
	return nil
}

func choice(field, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return &api.FieldError{Field: field, Reason: fmt.Sprintf("%q is not one of %s", value, strings.Join(allowed, ", "))}
}

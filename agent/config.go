package agent

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
)

// Config is the agent's own file, agent.yaml. Every key is also a flag
// (--dns-listen) and an environment variable (WEIR_DNS_LISTEN).
type Config struct {
	Node NodeConfig `json:"node"`
	// State are the folders of a standalone node's documents. A joined node has
	// its state from Controllers, which weir-agent join writes down by itself.
	State       []string `json:"state"`
	Controllers []string `json:"controllers"`
	// Peers says how nodes watch each other.
	Peers PeersConfig `json:"peers"`
	VIP   VIPConfig   `json:"vip"`
	DNS   DNSConfig   `json:"dns"`
	Zones ZonesConfig `json:"zones"`
	// Networks are those of containers.
	Networks NetworksConfig `json:"networks"`
	Metrics  MetricsConfig  `json:"metrics"`
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
	// Domain is where it stands, Resources what tasks may use; what is not given
	// is what the node finds. They are told to the controllers.
	Domain    api.FaultDomain `json:"domain"`
	Resources api.Resources   `json:"resources"`
}

// defaultState is the folder of a node whose file names none.
const defaultState = "/etc/weir/state.d"

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
		State: []string{defaultState}, Peers: defaultPeers(),
		VIP: defaultVIP(), DNS: defaultDNS(), Zones: defaultZones(), Networks: defaultNetworks(),
		Metrics: MetricsConfig{Listen: "127.0.0.1:9465"},
		RunDir:  "/run/weir",
		DataDir: "/var/lib/weir",
	}
}

// Validate names the first key with a wrong value, as an *api.FieldError.
func (c Config) Validate() error {
	if c.Node.Name == "" {
		return fault("node.name", "is missing")
	}
	switch {
	case len(c.Controllers) > 0 && len(c.State) > 0 && !slices.Equal(c.State, []string{defaultState}):
		return fault("controllers", "and state exclude each other: a node lives by files or by controllers")
	case len(c.Controllers) == 0 && len(c.State) == 0:
		return fault("state", "is empty: give the folder with the state documents")
	}
	for i, one := range c.Controllers {
		if err := checkController(one); err != nil {
			return fault(fmt.Sprintf("controllers[%d]", i), "%v", err)
		}
	}
	for _, part := range []interface{ validate() error }{c.VIP, c.DNS, c.Zones, c.Networks, c.Peers} {
		if err := part.validate(); err != nil {
			return err
		}
	}
	if c.RunDir == "" || c.DataDir == "" {
		return fault("run_dir", "run_dir and data_dir must both be given")
	}
	return nil
}

func fault(field, format string, args ...any) error {
	return &api.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

func choice(field, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return &api.FieldError{Field: field, Reason: fmt.Sprintf("%q is not one of %s", value, strings.Join(allowed, ", "))}
}

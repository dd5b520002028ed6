package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// config is the plugin's part of a network configuration list.
type config struct {
	types.PluginConf
	// Network of Weir; empty: the configuration's own name.
	Network string `json:"network"`
	// Socket of the agent; empty: the usual one.
	Socket string `json:"socket"`
	// IsDefaultGateway has the container's default route lead here; nil means
	// true.
	IsDefaultGateway *bool `json:"isDefaultGateway"`
	// App and Labels of all containers that come this way; what the runtime tells
	// of one counts more.
	App           string            `json:"app"`
	Labels        map[string]string `json:"labels"`
	RuntimeConfig struct {
		PortMappings []portMapping     `json:"portMappings"`
		IPs          []string          `json:"ips"`
		Annotations  map[string]string `json:"io.kubernetes.cri.pod-annotations"`
	} `json:"runtimeConfig"`
	IPAM json.RawMessage `json:"ipam"`
}

type portMapping struct {
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// arguments are those of CNI_ARGS.
type arguments struct {
	types.CommonArgs
	IP                types.UnmarshallableString
	WEIR_APP          types.UnmarshallableString //nolint:revive,staticcheck // CNI_ARGS names fields
	K8S_POD_NAMESPACE types.UnmarshallableString //nolint:revive,staticcheck
	K8S_POD_NAME      types.UnmarshallableString //nolint:revive,staticcheck
}

// appAnnotation of a pod names its app.
const appAnnotation = "weir.app"

func invalid(format string, values ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(format, values...), "")
}

// read decodes the configuration. What it asks for and the plugin does not do is
// refused by name.
func read(data []byte) (*config, error) {
	c := &config{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the configuration is no JSON of a plugin", err.Error())
	}
	if c.Name == "" {
		return nil, invalid("name is missing")
	}
	if len(c.IPAM) > 0 && string(c.IPAM) != "{}" && string(c.IPAM) != "null" {
		return nil, types.NewError(types.ErrUnsupportedField, "ipam is not taken: the node's agent gives the addresses", "")
	}
	c.Network = cmp.Or(c.Network, c.Name)
	if c.RawPrevResult != nil {
		if err := version.ParsePrevResult(&c.PluginConf); err != nil {
			return nil, types.NewError(types.ErrDecodingFailure, "prevResult cannot be read", err.Error())
		}
	}
	return c, nil
}

func (c *config) client() (*client.Client, error) {
	cl, err := client.New(c.Socket)
	if err != nil {
		return nil, invalid("socket: %v", err)
	}
	return cl, nil
}

// request is what the agent is asked for.
func (c *config) request(args *skel.CmdArgs) (api.AttachRequest, error) {
	r := api.AttachRequest{
		Container: args.ContainerID, Interface: args.IfName, Namespace: args.Netns, Network: c.Network, Config: c.Name,
		Default: c.IsDefaultGateway == nil || *c.IsDefaultGateway, App: c.App, Labels: c.Labels,
	}
	var told arguments
	if args.Args != "" {
		if err := types.LoadArgs(args.Args, &told); err != nil {
			return r, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS cannot be read", err.Error())
		}
	}
	if told.K8S_POD_NAME != "" && r.App == "" {
		r.App = "/" + cmp.Or(string(told.K8S_POD_NAMESPACE), "default") + "/" + string(told.K8S_POD_NAME)
	}
	r.App = cmp.Or(string(told.WEIR_APP), c.RuntimeConfig.Annotations[appAnnotation], r.App)
	if r.App != "" && !strings.HasPrefix(r.App, "/") {
		r.App = "/" + r.App
	}
	ips := c.RuntimeConfig.IPs
	if len(ips) == 0 && told.IP != "" {
		ips = []string{string(told.IP)}
	}
	for _, text := range ips {
		plain, _, _ := strings.Cut(text, "/")
		a, err := netip.ParseAddr(plain)
		if err != nil {
			return r, invalid("ips: %q is no address", text)
		}
		r.Addresses = append(r.Addresses, a)
	}
	var err error
	r.Ports, err = ports(c.RuntimeConfig.PortMappings)
	return r, err
}

func ports(mappings []portMapping) ([]api.TaskPort, error) {
	var all []api.TaskPort
	for i, m := range mappings {
		protocol := api.Protocol(strings.ToLower(cmp.Or(m.Protocol, "tcp")))
		if protocol != api.TCP && protocol != api.UDP {
			return nil, types.NewError(types.ErrUnsupportedField, fmt.Sprintf("portMappings[%d].protocol: %s is neither tcp nor udp", i, m.Protocol), "")
		}
		if a, err := netip.ParseAddr(m.HostIP); m.HostIP != "" && (err != nil || !a.IsUnspecified()) {
			return nil, types.NewError(types.ErrUnsupportedField, fmt.Sprintf("portMappings[%d].hostIP: ports are published at all addresses of the node, not at %s alone", i, m.HostIP), "")
		}
		if m.HostPort == 0 {
			continue // asked for by nobody
		}
		all = append(all, api.TaskPort{HostPort: m.HostPort, Port: m.ContainerPort, Protocol: protocol})
	}
	return all, nil
}

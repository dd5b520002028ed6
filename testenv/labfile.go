package testenv

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/document"
)

// labFile is a lab as people write it.
type labFile struct {
	Name     string                  `json:"name"`
	Networks map[string]netip.Prefix `json:"networks"`
	Hosts    []hostFile              `json:"hosts"`
	State    string                  `json:"state"`
	Agent    Settings                `json:"agent"`
}

type hostFile struct {
	Name       string                  `json:"name"`
	Run        []string                `json:"run"`
	Zone       string                  `json:"zone"`
	Role       string                  `json:"role"`
	Attributes map[string]string       `json:"attributes"`
	Networks   map[string][]netip.Addr `json:"networks"`
	Gateway    []netip.Addr            `json:"gateway"`
	Agent      Settings                `json:"agent"`
}

// Settings are a part of an agent's own file: mappings, lists and texts.
type Settings map[string]any

// merge returns s with the keys of over put above its own, at every depth.
func (s Settings) merge(over Settings) Settings {
	merged := Settings{}
	maps.Copy(merged, s)
	for key, value := range over {
		below, isMapping := mapping(merged[key])
		above, both := mapping(value)
		if isMapping && both {
			value = map[string]any(below.merge(above))
		}
		merged[key] = value
	}
	return merged
}

func mapping(value any) (Settings, bool) {
	switch m := value.(type) {
	case map[string]any:
		return m, true
	case Settings:
		return m, true
	}
	return nil, false
}

// texts are the values of a key in a section. A single value stands for a list
// of one, as in every file of Weir.
func (s Settings) texts(section, key string) (all []string, given bool) {
	keys, _ := mapping(s[section])
	value, given := keys[key]
	list, isList := value.([]any)
	if !isList && given {
		list = []any{value}
	}
	for _, item := range list {
		all = append(all, fmt.Sprint(item))
	}
	return all, given
}

// Spec is a lab as it was brought up.
type Spec struct {
	Name string `json:"name"`
	// File that described the lab, an absolute path.
	File string `json:"file"`
	// State is the absolute path of the folder of documents, or empty.
	State string `json:"state,omitempty"`
	// Networks in the order of the file.
	Networks []Network `json:"networks"`
	// Hosts in the order of the file.
	Hosts []Host `json:"hosts"`
	// AgentBinary that hosts run; empty when none runs an agent.
	AgentBinary string `json:"agent_binary,omitempty"`
	// ControllerBinary that hosts run; empty when none runs a controller.
	ControllerBinary string `json:"controller_binary,omitempty"`
}

// Network is one wire of a lab.
type Network struct {
	Name   string       `json:"name"`
	Prefix netip.Prefix `json:"prefix"`
}

// Host is one machine of a lab.
type Host struct {
	Name string `json:"name"`
	// Run lists the daemons of the host: controller, agent, or nothing.
	Run  []string `json:"run,omitempty"`
	Zone string   `json:"zone,omitempty"`
	// Role of the node; empty for an outsider, which is no node.
	Role       string            `json:"role,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	// Interfaces in the order of the lab's networks.
	Interfaces []Interface `json:"interfaces"`
	// Gateway of the default route, at most one of each address family.
	Gateway []netip.Addr `json:"gateway,omitempty"`
	// Agent is merged into the generated agent.yaml.
	Agent Settings `json:"agent,omitempty"`
}

// Interface joins a host to the network after which it is named.
type Interface struct {
	Network   string         `json:"network"`
	Addresses []netip.Prefix `json:"addresses"`
}

// IsNode tells whether the host belongs to the fleet; others are outsiders.
func (h Host) IsNode() bool { return h.Role != "" }

// RunsAgent tells whether weir-agent runs on the host.
func (h Host) RunsAgent() bool { return slices.Contains(h.Run, "agent") }

// Addresses of the host, the one on the lab's first network first.
func (h Host) Addresses() []netip.Addr {
	var all []netip.Addr
	for _, i := range h.Interfaces {
		for _, p := range i.Addresses {
			all = append(all, p.Addr())
		}
	}
	return all
}

// ReadFile reads a lab file. Every fault comes with file, line and field.
func ReadFile(path string) (Spec, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return Spec{}, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Spec{}, fmt.Errorf("read lab file: %w", err)
	}
	var f labFile
	source, err := document.Decode(path, data, &f)
	if err != nil {
		return Spec{}, err
	}
	if f.State != "" && !filepath.IsAbs(f.State) {
		f.State = filepath.Join(filepath.Dir(absolute), f.State)
	}
	if err := f.validate(); err != nil {
		return Spec{}, source.Locate(err)
	}
	return f.spec(absolute, source), nil
}

// spec turns a valid file into the lab that it describes.
func (f labFile) spec(file string, source *document.Source) Spec {
	s := Spec{Name: f.Name, File: file, State: f.State}
	for name, prefix := range f.Networks {
		s.Networks = append(s.Networks, Network{name, prefix})
	}
	slices.SortFunc(s.Networks, func(a, b Network) int {
		// The order of the file is known by the position of the keys alone.
		x, y := source.Errorf("networks."+a.Name, ""), source.Errorf("networks."+b.Name, "")
		return cmp.Or(cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column))
	})
	for _, h := range f.Hosts {
		s.Hosts = append(s.Hosts, h.host(s.Networks, f.Agent))
	}
	return s
}

func (h hostFile) host(networks []Network, settings Settings) Host {
	host := Host{
		Name: h.Name, Run: h.Run, Zone: h.Zone, Role: h.role(),
		Attributes: h.Attributes, Gateway: h.Gateway, Agent: settings.merge(h.Agent),
	}
	for _, n := range networks {
		addresses, joined := h.Networks[n.Name]
		if !joined {
			continue
		}
		i := Interface{Network: n.Name}
		for _, a := range addresses {
			i.Addresses = append(i.Addresses, netip.PrefixFrom(a, n.Prefix.Bits()))
		}
		host.Interfaces = append(host.Interfaces, i)
	}
	return host
}

// role is what the file says, or what the zone suggests. A host without zone
// and without daemons is somebody outside and has none.
func (h hostFile) role() string {
	switch {
	case h.Role != "":
		return h.Role
	case h.Zone == "" && len(h.Run) == 0:
		return ""
	case h.Zone == "admin":
		return api.RoleController
	case h.Zone == "public":
		return api.RolePublic
	default:
		return api.RoleAgent
	}
}

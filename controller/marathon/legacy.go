package marathon

import (
	"encoding/json"
	"strings"

	"github.com/weirproject/weir/api"
)

// modern rewrites what definitions wrote before Marathon 1.5 (networks and ports
// below container.docker, ports, uris), which it still takes.
func modern(sent raw) (raw, []Detail) {
	var details []Detail
	if uris := sent["uris"]; uris != nil && sent["fetch"] == nil {
		var list []string
		if json.Unmarshal(uris, &list) == nil && len(list) > 0 {
			fetch := make([]api.AppFetch, len(list))
			for i, uri := range list {
				fetch[i].URI = uri
			}
			set(sent, "fetch", fetch)
		}
	}
	if e := sent["executor"]; e != nil {
		var name string
		if json.Unmarshal(e, &name) != nil || name != "" && name != "//cmd" {
			details = add(details, "/executor", "is not supported: tasks have no executor of their own")
		}
	}
	details = dockerNetwork(sent, details)
	if ports := sent["ports"]; ports != nil && sent["portDefinitions"] == nil && sent["container"] == nil {
		var list []int
		if json.Unmarshal(ports, &list) == nil {
			defs := make([]api.AppPort, len(list))
			for i, p := range list {
				defs[i].Port = p
			}
			set(sent, "portDefinitions", defs)
		}
	}
	return sent, details
}

func set(sent raw, key string, value any) {
	text, err := json.Marshal(value)
	if err == nil {
		sent[key] = text
	}
}

// dockerNetwork moves container.docker.{network,portMappings} to where they are
// now.
func dockerNetwork(sent raw, details []Detail) []Detail {
	var container, docker raw
	if json.Unmarshal(sent["container"], &container) != nil || json.Unmarshal(container["docker"], &docker) != nil {
		return details
	}
	var network string
	if text := docker["network"]; text != nil {
		if json.Unmarshal(text, &network) != nil {
			return add(details, "/container/docker/network", "must be HOST, BRIDGE or USER")
		}
		delete(docker, "network")
	}
	if mappings := docker["portMappings"]; mappings != nil {
		if container["portMappings"] == nil && !isNull(mappings) {
			container["portMappings"] = mappings
		}
		delete(docker, "portMappings")
	}
	if sent["networks"] == nil {
		switch strings.ToUpper(network) {
		case "", "HOST":
		case "BRIDGE":
			set(sent, "networks", []api.AppNetwork{{Mode: api.NetworkModeBridge}})
		default:
			details = add(details, "/container/docker/network", network+" is not supported: use networks")
		}
	}
	set(container, "docker", docker)
	set(sent, "container", container)
	return details
}

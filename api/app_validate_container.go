package api

import (
	"fmt"
	"slices"
	"strings"
)

func (a *App) validateNetworks(f *faults) {
	for i, n := range a.Networks {
		field := fmt.Sprintf("networks[%d]", i)
		switch n.Mode {
		case NetworkModeHost, NetworkModeBridge:
			if n.Name != "" {
				f.add(field+".name", "is for networks of mode container only")
			}
			if len(a.Networks) > 1 {
				f.add(field+".mode", "%q must be the only network", n.Mode)
			}
		case NetworkModeContain:
			if !isLabel(n.Name) {
				f.add(field+".name", "%q %s", n.Name, labelRule)
			}
		default:
			f.add(field+".mode", "%q must be host, container or container/bridge", n.Mode)
		}
	}
	names := map[string]bool{}
	for i, n := range a.Networks {
		if n.Name != "" && names[n.Name] {
			f.add(fmt.Sprintf("networks[%d].name", i), "%q is there twice", n.Name)
		}
		names[n.Name] = true
	}
	if len(a.PortDefinitions) > 0 && !a.HostNetwork() {
		f.add("portDefinitions", "is for the host network; containers' ports go into container.portMappings")
	}
	if a.HostNetwork() && a.Container != nil && len(a.Container.PortMappings) > 0 {
		f.add("container.portMappings", "is for container networks; ports of the host network go into portDefinitions")
	}
}

func (a *App) validatePorts(f *faults) {
	names := map[string]bool{}
	check := func(field, name, protocol string, ports ...int) {
		for _, p := range ports {
			if p < 0 || p > 65535 {
				f.add(field, "port %d must be 0 to 65535", p)
			}
		}
		if name != "" {
			if !isLabel(name) {
				f.add(field+".name", "%q %s", name, labelRule)
			} else if names[name] {
				f.add(field+".name", "%q is there twice", name)
			}
			names[name] = true
		}
		for p := range strings.SplitSeq(protocol, ",") {
			if p != "tcp" && p != "udp" {
				f.add(field+".protocol", `%q must be tcp, udp or "udp,tcp"`, protocol)
			}
		}
	}
	for i, p := range a.PortDefinitions {
		check(fmt.Sprintf("portDefinitions[%d]", i), p.Name, p.Protocol, p.Port)
	}
	if a.Container == nil {
		return
	}
	for i, m := range a.Container.PortMappings {
		field := fmt.Sprintf("container.portMappings[%d]", i)
		check(field, m.Name, m.Protocol, m.ContainerPort, m.ServicePort, or(m.HostPort, 0))
		for j, n := range m.NetworkNames {
			if !slices.ContainsFunc(a.Networks, func(a AppNetwork) bool { return a.Name == n }) {
				f.add(fmt.Sprintf("%s.networkNames[%d]", field, j), "%q is no network of the app", n)
			}
		}
	}
}

func (a *App) validateContainer(f *faults) {
	c := a.Container
	if c == nil {
		return
	}
	if c.Type != ContainerDocker && c.Type != ContainerMesos {
		f.add("container.type", "%q must be DOCKER or MESOS", c.Type)
	}
	if c.Docker != nil && c.Docker.Image == "" {
		f.add("container.docker.image", "is missing")
	}
	if c.Type == ContainerDocker && c.Docker == nil {
		f.add("container.docker", "is missing for a container of type DOCKER")
	}
	if c.Type == ContainerDocker && len(a.Networks) > 1 {
		f.add("networks", "several networks need a container of type MESOS")
	}
	if c.Docker != nil && c.Docker.PullConfig != nil {
		f.add("container.docker.pullConfig", "is not supported: secrets are not")
	}
	for i, v := range c.Volumes {
		field := fmt.Sprintf("container.volumes[%d]", i)
		for name, given := range map[string]bool{"persistent": v.Persistent != nil, "external": v.External != nil, "secret": v.Secret != ""} {
			if given {
				f.add(field+"."+name, "is not supported: only volumes with a hostPath are")
			}
		}
		if v.ContainerPath == "" {
			f.add(field+".containerPath", "is missing")
		}
		if v.HostPath == "" && v.Persistent == nil && v.External == nil && v.Secret == "" {
			f.add(field+".hostPath", "is missing")
		}
		if v.Mode != "RO" && v.Mode != "RW" {
			f.add(field+".mode", "%q must be RO or RW", v.Mode)
		}
	}
}

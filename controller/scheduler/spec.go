package scheduler

import (
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
)

// port is one of a task's ports, decided.
type port struct {
	name      string
	asked     int    // what the definition says: a container's port, or a service port
	port      uint16 // at the task's own addresses; 0 on the host network
	host      uint16 // at the node's; 0 for none
	protocols []api.Protocol
}

// effective is where the task listens, as it is told.
func (p *port) effective() uint16 {
	if p.host != 0 {
		return p.host
	}
	return p.port
}

// portsOf joins an app's ports with the host ports that were allotted to them.
func portsOf(a *api.App, allotted []uint16) []port {
	var all []port
	if a.HostNetwork() {
		for i, d := range a.PortDefinitions {
			all = append(all, port{name: d.Name, asked: d.Port, host: allotted[i], protocols: protocols(d.Protocol)})
		}
		return all
	}
	if a.Container != nil {
		for i, m := range a.Container.PortMappings {
			p := port{name: m.Name, asked: m.ContainerPort, port: uint16(m.ContainerPort), host: allotted[i], protocols: protocols(m.Protocol)}
			if p.port == 0 {
				p.port = p.host
			}
			all = append(all, p)
		}
	}
	return all
}

func protocols(text string) []api.Protocol {
	var all []api.Protocol
	for p := range strings.SplitSeq(text, ",") {
		if p != "" {
			all = append(all, api.Protocol(p))
		}
	}
	slices.Sort(all)
	return all
}

// spec is the task of an app on a node. The node adds what it alone knows: the
// sandbox, and addresses.
func spec(a *api.App, id string, n *Node, allotted []uint16) api.TaskSpec {
	ports := portsOf(a, allotted)
	s := api.TaskSpec{
		ID: id, App: a.ID, Runtime: api.RuntimeProcess,
		Command: a.Cmd, Args: a.Args, Env: environment(a, id, n, ports), Labels: a.Labels, User: a.User,
		CPUs: a.CPUs, Memory: uint64(memory(a) * (1 << 20)), Disk: uint64(a.Disk * (1 << 20)), GPUs: a.GPUs,
		Grace: std(or(a.TaskKillGracePeriodSeconds, api.DefaultKillGrace)),
	}
	if a.ResourceLimits != nil {
		if n, ok := a.ResourceLimits.CPUs.(float64); ok {
			s.CPULimit = n
		}
	}
	container(&s, a)
	for _, network := range a.Networks {
		switch network.Mode {
		case api.NetworkModeBridge:
			s.Networks = append(s.Networks, api.TaskNetwork{Name: "bridge"})
		case api.NetworkModeContain:
			s.Networks = append(s.Networks, api.TaskNetwork{Name: network.Name})
		}
	}
	for _, p := range ports {
		for _, protocol := range p.protocols {
			s.Ports = append(s.Ports, api.TaskPort{Name: p.name, Port: p.port, HostPort: p.host, Protocol: protocol})
		}
	}
	for _, f := range a.Fetch {
		path := f.DestPath
		if path == "" {
			path = f.OutputFile
		}
		s.Fetch = append(s.Fetch, api.Fetch{
			URI: f.URI, Extract: f.Extract == nil || *f.Extract, Executable: f.Executable, Cache: f.Cache, Path: path, SHA256: f.SHA256,
		})
	}
	for i := range a.HealthChecks {
		s.Checks = append(s.Checks, check(&a.HealthChecks[i], ports))
	}
	if len(a.ReadinessChecks) > 0 {
		ready := readiness(&a.ReadinessChecks[0], ports)
		s.Ready = &ready
	}
	return s
}

func std(n float64) api.Duration { return api.Duration(n * float64(time.Second)) }

// memory is what a task may use, in MiB: no more than is set aside for it, so
// that tasks of a node never take each other's.
func memory(a *api.App) float64 {
	if a.ResourceLimits != nil {
		if n, ok := a.ResourceLimits.Mem.(float64); ok {
			return max(n, a.Mem)
		}
	}
	return a.Mem
}

func container(s *api.TaskSpec, a *api.App) {
	c := a.Container
	if c == nil || c.Docker == nil {
		return
	}
	s.Runtime = api.RuntimeContainer
	if c.Type == api.ContainerDocker {
		s.Runtime = api.RuntimeDocker
	}
	s.Container = &api.ContainerSpec{
		Image: c.Docker.Image, ForcePull: c.Docker.ForcePullImage, Privileged: c.Docker.Privileged,
		ReadOnly: c.ReadOnly, TTY: a.TTY, Parameters: c.Docker.Parameters,
	}
	for _, v := range c.Volumes {
		s.Container.Volumes = append(s.Container.Volumes, api.Volume{ContainerPath: v.ContainerPath, HostPath: v.HostPath, ReadOnly: v.Mode == "RO"})
	}
	if c.LinuxInfo != nil {
		s.Container.AddCapabilities = c.LinuxInfo.EffectiveCapabilities
	}
}

// onAgent tells whether Mesos did a check of this protocol on the agent, with
// the rules that it had for these.
func onAgent(c *api.AppCheck) bool {
	return c.Protocol == "COMMAND" || strings.HasPrefix(c.Protocol, "MESOS_")
}

// check is a health check as its node does it. It never ends the task by itself:
// the controller does, which sees when a whole app would go.
func check(c *api.AppCheck, ports []port) api.TaskCheck {
	t := api.TaskCheck{
		Kind: strings.ToLower(strings.TrimPrefix(c.Protocol, "MESOS_")), Path: c.Path, IgnoreHTTP: c.IgnoreHTTP1xx,
		Inside: onAgent(c), IPv6: c.IPProtocol == "IPv6",
		Grace: std(or(c.GracePeriodSeconds, 300)), Interval: std(or(c.IntervalSeconds, 60)), Timeout: std(or(c.TimeoutSeconds, 20)),
	}
	if t.Inside {
		t.Delay = std(or(c.DelaySeconds, 15))
	}
	if c.Command != nil {
		t.Command = c.Command.Value
	}
	switch {
	case c.Port != nil:
		t.Port = uint16(*c.Port)
	case c.PortIndex != nil && *c.PortIndex < len(ports):
		t.Port = ports[*c.PortIndex].own()
	}
	return t
}

// own is the port where the task itself listens.
func (p *port) own() uint16 {
	if p.port != 0 {
		return p.port
	}
	return p.host
}

func readiness(r *api.AppReadiness, ports []port) api.TaskCheck {
	t := api.TaskCheck{
		Kind: strings.ToLower(r.Protocol), Path: r.Path, Codes: r.HTTPStatusCodesForReady,
		Interval: std(or(r.IntervalSeconds, 30)), Timeout: std(or(r.TimeoutSeconds, 10)),
	}
	for i := range ports {
		if ports[i].name == r.PortName {
			t.Port = ports[i].own()
		}
	}
	return t
}

// hostPorts are the ports of its node that a task has, each once.
func hostPorts(s *api.TaskSpec) []uint16 {
	if s == nil {
		return nil
	}
	var all []uint16
	for _, p := range s.Ports {
		if p.HostPort != 0 {
			all = append(all, p.HostPort)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

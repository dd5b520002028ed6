package api

import (
	"slices"
	"strings"
)

// Defaults of apps that their definitions may leave out.
const (
	DefaultCPUs         = 1.0
	DefaultMem          = 128.0 // MiB
	DefaultKillGrace    = 3.0   // seconds
	DefaultUnreachable  = 30.0  // seconds; Marathon's is to wait for Mesos, some minutes
	DefaultProgress     = 600.0 // seconds
	KillYoungestFirst   = "YOUNGEST_FIRST"
	KillOldestFirst     = "OLDEST_FIRST"
	ContainerDocker     = "DOCKER"
	ContainerMesos      = "MESOS"
	NetworkModeHost     = "host"
	NetworkModeBridge   = "container/bridge"
	NetworkModeContain  = "container"
	defaultGrace        = 300.0
	defaultInterval     = 60.0
	defaultCheckTimeout = 20.0
	defaultDelay        = 15.0
	defaultFailures     = 3
)

// NewApp is an app with the defaults of what a definition may leave out with a
// zero that would mean something else: decode a definition over it.
func NewApp() App {
	return App{CPUs: DefaultCPUs, Mem: DefaultMem, Instances: 1}
}

// Complete fills in what the definition leaves out, as Marathon does, and makes
// the id and the dependencies absolute. It changes nothing that is there.
func (a *App) Complete() {
	a.ID = absolute("/", a.ID)
	parent := a.ID[:strings.LastIndexByte(a.ID, '/')+1]
	for i, d := range a.Dependencies {
		a.Dependencies[i] = absolute(parent, d)
	}
	a.completeContainer()
	a.completePorts()
	for i := range a.HealthChecks {
		a.HealthChecks[i].complete(len(a.ports()) > 0)
	}
	for i := range a.ReadinessChecks {
		a.ReadinessChecks[i].complete()
	}
	if a.UpgradeStrategy == nil {
		a.UpgradeStrategy = &AppUpgrade{}
	}
	standard(&a.UpgradeStrategy.MinimumHealthCapacity, 1)
	standard(&a.UpgradeStrategy.MaximumOverCapacity, 1)
	standard(&a.BackoffSeconds, 1)
	standard(&a.BackoffFactor, 1.15)
	standard(&a.MaxLaunchDelaySeconds, 300)
	if a.KillSelection == "" {
		a.KillSelection = KillYoungestFirst
	}
	if a.UnreachableStrategy == nil {
		a.UnreachableStrategy = &AppUnreachable{InactiveAfterSeconds: DefaultUnreachable, ExpungeAfterSeconds: DefaultUnreachable}
	}
}

// absolute is an id below a group, "." and ".." resolved.
func absolute(group, id string) string {
	if !strings.HasPrefix(id, "/") {
		id = group + id
	}
	var segments []string
	for s := range strings.SplitSeq(id, "/") {
		switch s {
		case "", ".":
		case "..":
			segments = segments[:max(len(segments)-1, 0)]
		default:
			segments = append(segments, s)
		}
	}
	return "/" + strings.Join(segments, "/")
}

func standard[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

func (a *App) completeContainer() {
	if len(a.Networks) == 0 {
		a.Networks = []AppNetwork{{Mode: NetworkModeHost}}
	}
	if a.Container == nil {
		return
	}
	if a.Container.Type == "" {
		a.Container.Type = ContainerMesos
		if a.Container.Docker != nil {
			a.Container.Type = ContainerDocker
		}
	}
	for i := range a.Container.Volumes {
		if v := &a.Container.Volumes[i]; v.Mode == "" {
			v.Mode = "RW"
		}
	}
}

// completePorts gives an app in its node's network one port, as clients of
// Marathon expect, and the ports what they lack.
func (a *App) completePorts() {
	if a.HostNetwork() {
		if a.PortDefinitions == nil {
			a.PortDefinitions = []AppPort{{Name: "default"}}
		}
	}
	for i := range a.PortDefinitions {
		orTCP(&a.PortDefinitions[i].Protocol)
	}
	if a.Container == nil {
		return
	}
	for i := range a.Container.PortMappings {
		m := &a.Container.PortMappings[i]
		orTCP(&m.Protocol)
		if m.HostPort == nil && a.Networks[0].Mode == NetworkModeBridge {
			m.HostPort = new(int) // what a bridge does not publish, nobody reaches
		}
	}
}

func orTCP(protocol *string) {
	if *protocol == "" {
		*protocol = "tcp"
	}
}

// HostNetwork tells whether the app's tasks share their node's network.
func (a *App) HostNetwork() bool {
	return len(a.Networks) == 0 || a.Networks[0].Mode == NetworkModeHost
}

// ports are the indexes that health checks may name.
func (a *App) ports() []string {
	var names []string
	if a.HostNetwork() {
		for _, p := range a.PortDefinitions {
			names = append(names, p.Name)
		}
	} else if a.Container != nil {
		for _, m := range a.Container.PortMappings {
			names = append(names, m.Name)
		}
	}
	return names
}

func (c *AppCheck) complete(hasPorts bool) {
	if c.Protocol == "" {
		c.Protocol = "HTTP"
	}
	if c.Path == "" && slices.Contains([]string{"HTTP", "HTTPS", "MESOS_HTTP", "MESOS_HTTPS"}, c.Protocol) {
		c.Path = "/"
	}
	if c.PortIndex == nil && c.Port == nil && c.Protocol != "COMMAND" && hasPorts {
		c.PortIndex = new(int)
	}
	standard(&c.GracePeriodSeconds, defaultGrace)
	standard(&c.IntervalSeconds, defaultInterval)
	standard(&c.TimeoutSeconds, defaultCheckTimeout)
	standard(&c.DelaySeconds, defaultDelay)
	standard(&c.MaxConsecutiveFailures, defaultFailures)
	if c.IPProtocol == "" && c.Protocol != "COMMAND" {
		c.IPProtocol = "IPv4"
	}
}

func (r *AppReadiness) complete() {
	if r.Name == "" {
		r.Name = "readinessCheck"
	}
	if r.Protocol == "" {
		r.Protocol = "HTTP"
	}
	if r.Path == "" {
		r.Path = "/"
	}
	if r.PortName == "" {
		r.PortName = "http-api"
	}
	standard(&r.IntervalSeconds, 30)
	standard(&r.TimeoutSeconds, 10)
	if len(r.HTTPStatusCodesForReady) == 0 {
		r.HTTPStatusCodesForReady = []int{200}
	}
}

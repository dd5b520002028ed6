package scheduler_test

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

// place is the one task of an app on one node.
func place(t *testing.T, a api.App) api.TaskSpec {
	t.Helper()
	p := scheduler.Place(&scheduler.State{Nodes: nodes(1, 1), Targets: []scheduler.Target{target(a)}}, epoch)
	if len(p.Launch) != 1 {
		t.Fatalf("plan is %+v", p)
	}
	return p.Launch[0].Spec
}

func TestEnvironmentIsMarathons(t *testing.T) {
	port := 9000
	s := place(t, newApp("/shop/web", 1, func(a *api.App) {
		a.Networks = []api.AppNetwork{{Mode: api.NetworkModeBridge}}
		a.Container = &api.AppContainer{
			Docker:       &api.AppDocker{Image: "web:1"},
			PortMappings: []api.AppPortMapping{{ContainerPort: 80, HostPort: &port, Name: "http-main"}, {ContainerPort: 90, HostPort: new(int)}},
		}
		a.Labels = api.Labels{"team": "a", "odd.key": "b", "long": strings.Repeat("x", 600)}
		a.Env = map[string]any{"MODE": "fast", "MARATHON_APP_ID": "mine"}
	}))
	other := ""
	for _, p := range s.Ports {
		if p.Port == 90 {
			other = strconv.Itoa(int(p.HostPort))
		}
	}
	want := map[string]string{
		"HOST": "10.80.0.0", "PORT": "9000", "PORT0": "9000", "PORT1": other, "PORTS": "9000," + other, "PORT_80": "9000", "PORT_90": other,
		"PORT_HTTP_MAIN": "9000", "MARATHON_APP_ID": "mine", "MARATHON_APP_VERSION": "v1", "MARATHON_APP_DOCKER_IMAGE": "web:1",
		"MARATHON_APP_RESOURCE_CPUS": "1.0", "MARATHON_APP_RESOURCE_MEM": "128.0", "MARATHON_APP_RESOURCE_DISK": "0.0", "MARATHON_APP_RESOURCE_GPUS": "0",
		"MARATHON_APP_LABELS": "ODD_KEY TEAM", "MARATHON_APP_LABEL_ODD_KEY": "b", "MARATHON_APP_LABEL_TEAM": "a", "MESOS_TASK_ID": s.ID, "MODE": "fast",
	}
	if !maps.Equal(s.Env, want) {
		t.Errorf("environment is\n%v\nwant\n%v", s.Env, want)
	}
}

func TestPortsOfEachKindOfNetwork(t *testing.T) {
	hostPort := 8080
	mappings := func(network api.AppNetwork) func(*api.App) {
		return func(a *api.App) {
			a.Networks = []api.AppNetwork{network}
			a.Container = &api.AppContainer{Docker: &api.AppDocker{Image: "web"}, PortMappings: []api.AppPortMapping{
				{ContainerPort: 80, HostPort: &hostPort, Protocol: "udp,tcp", Name: "web"}, {ContainerPort: 0, HostPort: new(int)}, {ContainerPort: 443},
			}}
		}
	}
	for name, c := range map[string]struct {
		change  func(*api.App)
		want    []string // name, own port, host port, protocol; * is from the node's ports
		network string
	}{
		"host": {func(a *api.App) { a.PortDefinitions = []api.AppPort{{Port: 10000, Name: "a"}, {}} }, []string{"a 0 * tcp", " 0 * tcp"}, ""},
		"host, required": {func(a *api.App) { a.RequirePorts, a.PortDefinitions = true, []api.AppPort{{Port: 8080}, {}} },
			[]string{" 0 8080 tcp", " 0 * tcp"}, ""},
		"bridge":    {mappings(api.AppNetwork{Mode: api.NetworkModeBridge}), []string{"web 80 8080 tcp", "web 80 8080 udp", " * * tcp", " 443 * tcp"}, "bridge"},
		"container": {mappings(api.AppNetwork{Mode: api.NetworkModeContain, Name: "dcos"}), []string{"web 80 8080 tcp", "web 80 8080 udp", " * * tcp", " 443 0 tcp"}, "dcos"},
	} {
		s := place(t, newApp("/web", 1, c.change))
		star := func(port uint16) string {
			if port >= 31000 && port <= 32000 {
				return "*"
			}
			return strconv.Itoa(int(port))
		}
		var got []string
		for _, p := range s.Ports {
			got = append(got, strings.Join([]string{p.Name, star(p.Port), star(p.HostPort), string(p.Protocol)}, " "))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: ports are %q, want %q", name, got, c.want)
		}
		if c.network == "" != (len(s.Networks) == 0) || c.network != "" && s.Networks[0].Name != c.network {
			t.Errorf("%s: networks are %v", name, s.Networks)
		}
	}
}

func TestChecksAskWhereTheTaskListens(t *testing.T) {
	index, most := 0, 0
	s := place(t, newApp("/web", 1, func(a *api.App) {
		a.Networks = []api.AppNetwork{{Mode: api.NetworkModeBridge}}
		a.Container = &api.AppContainer{Docker: &api.AppDocker{Image: "web"}, PortMappings: []api.AppPortMapping{{ContainerPort: 80, Name: "http-api"}}}
		port := 99
		a.HealthChecks = []api.AppCheck{
			{Path: "/health", PortIndex: &index}, {Protocol: "MESOS_TCP", Port: &port, MaxConsecutiveFailures: &most},
			{Protocol: "COMMAND", Command: &api.AppCommand{Value: "true"}},
		}
		a.ReadinessChecks = []api.AppReadiness{{}}
	}))
	minute, twenty := api.Duration(time.Minute), api.Duration(20*time.Second)
	grace, delay := api.Duration(5*time.Minute), api.Duration(15*time.Second)
	want := []api.TaskCheck{
		{Kind: "http", Path: "/health", Port: 80, Grace: grace, Interval: minute, Timeout: twenty},
		{Kind: "tcp", Port: 99, Inside: true, Grace: grace, Delay: delay, Interval: minute, Timeout: twenty},
		{Kind: "command", Command: "true", Inside: true, Grace: grace, Delay: delay, Interval: minute, Timeout: twenty},
	}
	if !reflect.DeepEqual(s.Checks, want) {
		t.Errorf("checks are\n%+v\nwant\n%+v", s.Checks, want)
	}
	ready := api.TaskCheck{Kind: "http", Path: "/", Port: 80, Interval: api.Duration(30 * time.Second), Timeout: api.Duration(10 * time.Second), Codes: []int{200}}
	if !reflect.DeepEqual(*s.Ready, ready) {
		t.Errorf("readiness check is %+v, want %+v", *s.Ready, ready)
	}
}

func TestRuntimesAndLimits(t *testing.T) {
	image := func(kind string) func(*api.App) {
		return func(a *api.App) {
			a.Container = &api.AppContainer{Type: kind, Docker: &api.AppDocker{Image: "web"}, Volumes: []api.AppVolume{{ContainerPath: "/a", HostPath: "/b", Mode: "RO"}}}
		}
	}
	if s := place(t, newApp("/web", 1)); s.Runtime != api.RuntimeProcess || s.Container != nil || s.Command != "run" || s.Grace != api.Duration(3*time.Second) {
		t.Errorf("a process is %+v", s)
	}
	if s := place(t, newApp("/web", 1, image(api.ContainerDocker))); s.Runtime != api.RuntimeDocker || s.Container.Image != "web" || !s.Container.Volumes[0].ReadOnly {
		t.Errorf("a Docker container is %+v", s)
	}
	s := place(t, newApp("/web", 1, image(api.ContainerMesos), func(a *api.App) {
		a.ResourceLimits = &api.AppLimits{CPUs: 2.0, Mem: 512.0}
		a.Fetch = []api.AppFetch{{URI: "http://a/b.tgz", DestPath: "b"}}
	}))
	if s.Runtime != api.RuntimeContainer || s.CPUs != 1 || s.CPULimit != 2 || s.Memory != 512<<20 || !s.Fetch[0].Extract || s.Fetch[0].Path != "b" {
		t.Errorf("a Mesos container is %+v", s)
	}
}

func TestNoPortIsGivenTwice(t *testing.T) {
	a := newApp("/web", 20, func(a *api.App) { a.CPUs, a.PortDefinitions = 0.01, []api.AppPort{{}, {}} })
	s := &scheduler.State{Nodes: nodes(1, 1), Targets: []scheduler.Target{target(a)}}
	s.Nodes[0].Resources.Ports = []api.PortSpan{{First: 5000, Last: 5010}, {First: 7000, Last: 7009}}
	p := settle(t, s, epoch)
	seen := map[uint16]bool{}
	for _, i := range s.Instances {
		for _, port := range i.Spec.Ports {
			if seen[port.HostPort] || port.HostPort < 5000 || port.HostPort > 7009 {
				t.Errorf("port %d is given twice, or is none of the node's", port.HostPort)
			}
			seen[port.HostPort] = true
		}
	}
	if len(seen) != 20 || p.Pending[0].Reasons[0].Text != "insufficient ports" {
		t.Errorf("%d ports are given, pending %+v", len(seen), p.Pending)
	}
}

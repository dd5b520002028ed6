package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/program"
	"github.com/weirproject/weir/vip"
)

// vipComponent makes the kernel balance the services' virtual IPs.
type vipComponent struct {
	agent    *Agent
	balancer dataplane.Balancer // nil: off
	ranges   []netip.Prefix
	// lastUp is what the health file holds, to write it only on a change.
	lastUp map[string]api.BackendState

	mu         sync.Mutex // guards what follows
	table      dataplane.Table
	programmed map[string]bool // dataplane.Service names that the kernel holds
}

func (a *Agent) newVIPs() (*vipComponent, error) {
	v := &vipComponent{agent: a, ranges: a.config.ranges(), programmed: map[string]bool{}}
	if a.config.VIP.Dataplane == "off" {
		return v, nil
	}
	cgroup := a.config.VIP.Cgroup
	if cgroup == "auto" {
		var err error
		if cgroup, err = program.CgroupRoot(); err != nil {
			return nil, fmt.Errorf("find the cgroup to attach to (vip.cgroup): %w", err)
		}
	}
	balancer, err := program.New(program.Options{Cgroup: cgroup, Log: a.log.With("component", "vip")})
	if err != nil {
		return nil, fmt.Errorf("load the eBPF load balancer (set vip.dataplane to off to go without): %w", err)
	}
	v.balancer = balancer
	a.log.Info("data plane picked", "backend", balancer.Backend(), "cgroup", cgroup)
	a.registry.MustRegister(vipCollector{v})
	return v, nil
}

func (v *vipComponent) backend() string {
	if v.balancer == nil {
		return "off"
	}
	return v.balancer.Backend()
}

func (v *vipComponent) state(service string, protocol api.Protocol, backend netip.AddrPort) (api.BackendState, string) {
	return v.agent.health.State(service, protocol, backend)
}

func (v *vipComponent) apply(ctx context.Context, s *api.Snapshot) (dataplane.Changes, error) {
	if v.balancer == nil {
		return dataplane.Changes{}, nil
	}
	// Conflicts were refused when the snapshot was made.
	table, _ := vip.Compile(s, vip.Options{Ranges: v.ranges, State: v.state})
	changes, err := v.balancer.Set(ctx, table)
	failed := map[string]bool{}
	var left *dataplane.LeftOut
	switch {
	case errors.As(err, &left):
		for name := range left.Services {
			failed[name] = true
		}
	case err != nil:
		return changes, err // what the kernel holds is what it held before
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.table, v.programmed = table, map[string]bool{}
	for _, service := range table.Services {
		if !failed[service.Name] {
			v.programmed[service.Name] = true
		}
	}
	v.keepHealth(table)
	return changes, err
}

// keepHealth writes the health results down when a backend's state changed.
func (v *vipComponent) keepHealth(table dataplane.Table) {
	up := map[string]api.BackendState{}
	for _, s := range table.Services {
		for _, b := range s.Backends {
			up[s.Name+" "+b.Address.String()] = b.State
		}
	}
	if maps.Equal(up, v.lastUp) {
		return
	}
	v.lastUp = up
	if err := v.agent.saveHealth(); err != nil {
		v.agent.log.Warn("health results not kept", "error", err)
	}
}

// holds tells whether the kernel serves the service's VIPs, in one address
// family at least.
func (v *vipComponent) holds(service string, protocol api.Protocol) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	prefix := service + "/" + string(protocol) + "/"
	return v.programmed[prefix+"4"] || v.programmed[prefix+"6"]
}

func (v *vipComponent) programmedNames() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Sorted(maps.Keys(v.programmed))
}

func (v *vipComponent) detail() string {
	if v.balancer == nil {
		return "vip.dataplane off: nothing is balanced"
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	up, all := 0, 0
	for _, s := range v.table.Services {
		for _, b := range s.Backends {
			all++
			if b.State == api.Up {
				up++
			}
		}
	}
	return fmt.Sprintf("%d services, %d of %d backends up", len(v.table.Services), up, all)
}

func (v *vipComponent) close() error {
	if v.balancer == nil {
		return nil
	}
	return v.balancer.Close()
}

// statuses joins what is wanted, observed and counted.
func (v *vipComponent) statuses(s *api.Snapshot) ([]api.VIPStatus, error) {
	var counters dataplane.Counters
	if v.balancer != nil {
		var err error
		if counters, err = v.balancer.Counters(); err != nil {
			return nil, fmt.Errorf("read the connection counters: %w", err)
		}
	}
	return vip.Statuses(s, vip.StatusOptions{
		Domain: v.agent.config.DNS.Domain, State: v.state, Counters: counters, Programmed: v.holds,
	}), nil
}

// vipCollector reads the connection counters from the kernel at every scrape.
type vipCollector struct{ vips *vipComponent }

var (
	vipConnections = prometheus.NewDesc("weir_vip_connections_total", "Connections made through a virtual IP on this node.", []string{"vip", "verdict"}, nil)
	vipUnserved    = prometheus.NewDesc("weir_vip_unserved_port_total", "Connections refused because the virtual IP does not serve the port.", nil, nil)
)

func (c vipCollector) Describe(ch chan<- *prometheus.Desc) { ch <- vipConnections; ch <- vipUnserved }

func (c vipCollector) Collect(ch chan<- prometheus.Metric) {
	counters, err := c.vips.balancer.Counters()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(vipConnections, err)
		return
	}
	for name, n := range counters.Services {
		ch <- prometheus.MustNewConstMetric(vipConnections, prometheus.CounterValue, float64(n.Connections), name, "balanced")
		ch <- prometheus.MustNewConstMetric(vipConnections, prometheus.CounterValue, float64(n.Refused), name, "refused")
	}
	ch <- prometheus.MustNewConstMetric(vipUnserved, prometheus.CounterValue, float64(counters.UnservedPorts))
}

// published tells which services' names may be answered; nil means all, on a
// node that balances nothing.
func (v *vipComponent) published() func(service string, protocol api.Protocol) bool {
	if v.balancer == nil {
		return nil
	}
	return v.holds
}

// isUp tells whether the backend gets new connections.
func (v *vipComponent) isUp(s api.Service, b api.Backend) bool {
	state, _ := v.state(s.Key(), s.EffectiveProtocol(), b.Address)
	return state == api.Up && (b.State == "" || b.State == api.Up)
}

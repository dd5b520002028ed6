package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/ipvs"
	"github.com/weirproject/weir/dataplane/program"
	"github.com/weirproject/weir/vip"
)

// vipComponent makes the kernel balance the services' virtual IPs. It compiles
// the tables of edge and delivery as well, which are applied after it.
type vipComponent struct {
	agent    *Agent
	balancer dataplane.Balancer // nil: off
	why      string             // this balancer
	ranges   []netip.Prefix
	compiler vip.Compiler
	compiled *api.Snapshot // by the compiler
	started  bool
	bases    map[string]*vip.Base // that are on disk

	mu         sync.Mutex // guards what follows
	result     vip.Result
	programmed map[string]bool // dataplane.Service names that the kernel holds
}

// sysctlFile keeps what the kernel's settings were before us.
const sysctlFile = "ipvs-sysctls.json"

func (a *Agent) newVIPs() (*vipComponent, error) {
	v := &vipComponent{agent: a, ranges: a.config.ranges(), programmed: map[string]bool{}, bases: a.loadBases()}
	if err := v.pickBalancer(); err != nil {
		return nil, err
	}
	if v.balancer != nil {
		a.log.Info("data plane picked", "backend", v.balancer.Backend(), "reason", v.why)
		a.registry.MustRegister(vipCollector{v})
	}
	return v, nil
}

// pickBalancer takes eBPF where it works and IPVS where it does not, or what
// the configuration says; never both.
func (v *vipComponent) pickBalancer() error {
	log, wanted := v.agent.log.With("component", "vip"), v.agent.config.VIP.Dataplane
	if wanted == "off" {
		v.why = "vip.dataplane is off"
		return nil
	}
	var unfit error
	if wanted != "ipvs" {
		cgroup, err := v.agent.cgroup()
		if err == nil {
			var b *program.Balancer
			if b, err = program.New(program.Options{Cgroup: cgroup, Log: log, VerifyEvery: verifyInterval}); err == nil {
				v.balancer, v.why = b, "eBPF works at the cgroup "+cgroup
				return nil
			}
		}
		if wanted == "ebpf" {
			return fmt.Errorf("load the eBPF load balancer (set vip.dataplane to ipvs or off to go without): %w", err)
		}
		unfit = err
	}
	o := ipvs.Options{Log: log, SysctlFile: v.agent.dataPath(sysctlFile)}
	for _, address := range v.agent.config.Node.Addresses {
		if address.Is4() && !o.Source4.IsValid() {
			o.Source4 = address
		} else if address.Is6() && !o.Source6.IsValid() {
			o.Source6 = address
		}
	}
	b, err := ipvs.New(o)
	if err != nil {
		return errors.Join(unfit, fmt.Errorf("open IPVS (set vip.dataplane to off to go without): %w", err))
	}
	if v.balancer, v.why = b, "vip.dataplane is ipvs"; unfit != nil {
		v.why = fmt.Sprintf("eBPF does not work here: %v", unfit)
	}
	return nil
}

// cgroup is the folder below which processes are balanced.
func (a *Agent) cgroup() (string, error) {
	if a.config.VIP.Cgroup != "auto" {
		return a.config.VIP.Cgroup, nil
	}
	root, err := program.CgroupRoot()
	if err != nil {
		return "", fmt.Errorf("find the cgroup to attach to (vip.cgroup): %w", err)
	}
	return root, nil
}

func (v *vipComponent) backend() string {
	if v.balancer == nil {
		return "off"
	}
	return v.balancer.Backend()
}

// compile makes the tables of what changed, and asks to be woken when time
// alone will change them.
func (v *vipComponent) compile(s *api.Snapshot) vip.Result {
	now, states := time.Now(), v.agent.backends
	v.agent.followNodes(s)
	changed, drained := states.setDrains(now, s)
	if changed {
		v.agent.unkept.Store(true)
	}
	initial := v.bases
	if v.started {
		initial = nil
	}
	v.started = true
	result := v.compiler.Compile(s, vip.Options{
		Ranges: v.ranges, State: states.state, Drained: states.drained, UpSince: states.upSince, Now: now,
		Edge: v.agent.edgeOptions(s), Delivery: v.agent.deliveryOptions(),
		Bases: initial,
	}, vip.Changed{Services: states.take()})
	for _, next := range []time.Time{result.Next, drained, states.outlier.Next()} {
		if !next.IsZero() {
			v.agent.pokeAt(next)
		}
	}
	return result
}

func (v *vipComponent) apply(ctx context.Context, s *api.Snapshot) (dataplane.Changes, error) {
	// Conflicts were refused when the snapshot was made.
	result := v.compile(s)
	v.agent.keepBackends()
	if s != v.compiled {
		v.keepBases()
	}
	v.mu.Lock()
	v.result = result
	v.mu.Unlock()
	if v.balancer == nil {
		return dataplane.Changes{}, nil
	}
	changes, err := v.balancer.Set(ctx, result.Table)
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
	v.remember(s, result.Table, failed)
	return changes, err
}

// remember notes what the kernel holds now. The names are gone through only
// when they may differ from last time.
func (v *vipComponent) remember(s *api.Snapshot, t dataplane.Table, failed map[string]bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.compiled == s && len(failed) == 0 && len(v.programmed) == len(t.Services) {
		return
	}
	v.compiled, v.programmed = s, make(map[string]bool, len(t.Services))
	for _, service := range t.Services {
		if !failed[service.Name] {
			v.programmed[service.Name] = true
		}
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

// table is the one in force.
func (v *vipComponent) table() dataplane.Table {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.result.Table
}

func (v *vipComponent) followsStates() bool { return true }

func (v *vipComponent) detail() string {
	if v.balancer == nil {
		return "vip.dataplane off: nothing is balanced"
	}
	up, all := 0, 0
	services := v.table().Services
	for _, s := range services {
		all += len(s.Backends)
		for i := range s.Backends {
			if s.Backends[i].State == api.Up {
				up++
			}
		}
	}
	return fmt.Sprintf("%d services, %d of %d backends up", len(services), up, all)
}

func (v *vipComponent) close() error {
	if v.balancer == nil {
		return nil
	}
	return v.balancer.Close()
}

// statuses joins what is wanted, observed and counted.
func (v *vipComponent) statuses(s *api.Snapshot) ([]api.VIPStatus, error) {
	o, err := v.statusOptions()
	if err != nil {
		return nil, err
	}
	return vip.Statuses(s, o), nil
}

func (v *vipComponent) statusOptions() (vip.StatusOptions, error) {
	var counters dataplane.Counters
	if v.balancer != nil {
		var err error
		if counters, err = v.balancer.Counters(); err != nil {
			return vip.StatusOptions{}, fmt.Errorf("read the connection counters: %w", err)
		}
	}
	states := v.agent.backends
	return vip.StatusOptions{
		Domain: v.agent.config.DNS.Domain, State: states.state, Drained: states.drained, Now: time.Now(), UpSince: states.upSince,
		Table: v.table(), Counters: counters, Programmed: v.holds,
	}, nil
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
	if v.agent.backends.drained(s.Key(), s.EffectiveProtocol(), b.Address) {
		return false
	}
	state, _ := v.agent.backends.state(s.Key(), s.EffectiveProtocol(), b.Address)
	return state == api.Up && (b.State == "" || b.State == api.Up)
}

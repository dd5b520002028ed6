// Package ipvs is the sink for virtual IPs on nodes without eBPF. It programs
// the kernel's IPVS over netlink from the same dataplane.Table as package
// program: services with their destinations, the virtual addresses as local
// routes on a link of ours, the packet rules that IPVS needs (package guard),
// and the sysctls that make connections end when their backend goes.
//
// It works in the network namespace of the thread that calls it. It trusts no
// memory: every Set compares what the kernel holds. Services whose addresses
// are not ours stay as they are. The agent calls it; DESIGN.md tells how it
// differs from eBPF.
package ipvs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/ipvs/guard"
)

// Options of a Balancer.
type Options struct {
	// Log gets what is repaired and loaded; nil means nowhere.
	Log *slog.Logger
	// Source4 and Source6 are the node's addresses from which its own processes
	// speak to backends; invalid means those that it takes to reach a backend.
	// A node with several networks should say.
	Source4, Source6 netip.Addr
	// SysctlFile keeps what the sysctls were before us, for Cleanup; its folder
	// must exist. Empty keeps nothing, and Cleanup leaves the sysctls.
	SysctlFile string
}

// Validate names the field that is wrong.
func (o Options) Validate() error {
	if o.Source4.IsValid() && !o.Source4.Is4() {
		return fmt.Errorf("options: Source4 %s is not an IPv4 address", o.Source4)
	}
	if o.Source6.IsValid() && (!o.Source6.Is6() || o.Source6.Is4In6()) {
		return fmt.Errorf("options: Source6 %s is not an IPv6 address", o.Source6)
	}
	return nil
}

// Balancer implements dataplane.Balancer with IPVS.
type Balancer struct {
	options Options
	log     *slog.Logger
	kernel  kernel
	guard   *guard.Guard
	sysctls sysctls

	mu      sync.Mutex // guards what follows and lets one Set write at a time
	closed  bool
	missing map[string]bool // schedulers that the kernel lacks
	// made are the objects and the virtual networks, with their sources, of the
	// last Set; nil before it.
	made     map[object]any
	networks map[netip.Prefix]netip.Addr
	owner    map[virtual]string // service names, for the counters
	resets   map[object]uint64
	told     map[string]bool // services whose limits were told
}

var _ dataplane.Balancer = (*Balancer)(nil)

// New opens netlink and loads the kernel's module when it is missing; the error
// says so when that fails. It changes nothing else.
func New(o Options) (*Balancer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	k, err := open()
	if err != nil {
		return nil, err
	}
	return &Balancer{
		options: o, log: o.Log.With("backend", "ipvs"), kernel: k, guard: guard.New(),
		sysctls: sysctls{dir: sysctlDir, file: o.SysctlFile},
		missing: map[string]bool{}, owner: map[virtual]string{}, resets: map[object]uint64{},
		told: map[string]bool{},
	}, nil
}

// sysctlDir has the settings of the thread's network namespace.
const sysctlDir = "/proc/sys/net/ipv4/vs"

// Backend implements dataplane.Balancer.
func (b *Balancer) Backend() string { return "ipvs" }

// Close implements dataplane.Balancer.
func (b *Balancer) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		b.kernel.close()
	}
	return nil
}

// Set implements dataplane.Balancer. A *dataplane.LeftOut names the services
// that could not be programmed.
func (b *Balancer) Set(ctx context.Context, t dataplane.Table) (dataplane.Changes, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var c dataplane.Changes
	if b.closed {
		return c, errors.New("set virtual ips: the balancer is closed")
	}
	b.tell(t)
	w, err := b.set(ctx, t, &c)
	if err != nil {
		return c, fmt.Errorf("set virtual ips: %w", err)
	}
	if c.Repaired > 0 {
		b.log.Warn("virtual ips were changed by somebody else and are put right", "objects", c.Repaired)
	}
	if len(w.left) > 0 {
		return c, &dataplane.LeftOut{Services: w.left}
	}
	return c, nil
}

// tell says once for each service what of it IPVS cannot do.
func (b *Balancer) tell(t dataplane.Table) {
	for _, s := range t.Services {
		if b.told[s.Name] {
			continue
		}
		if s.MaxConnections > 0 {
			b.told[s.Name] = true
			b.log.Warn("ipvs does not limit connections", "service", s.Name, "max_connections", s.MaxConnections)
		}
		if s.Affinity > 0 && s.AffinityBy == api.ByNamespace {
			b.told[s.Name] = true
			b.log.Warn("ipvs knows clients by address alone", "service", s.Name, "affinity_by", s.AffinityBy)
		}
	}
}

// set writes in an order in which a client never meets half of it: the services,
// then the packet rules that let clients come to them, then the virtual
// networks; and what goes when nothing leads to it any more. The networks go
// last: they tell that a service was ours.
func (b *Balancer) set(ctx context.Context, t dataplane.Table, c *dataplane.Changes) (*wanted, error) {
	w, n, err := b.compile(t)
	if err != nil {
		return nil, err
	}
	if err := b.prepare(c); err != nil {
		return nil, err
	}
	link, made, err := openLink()
	if err != nil {
		return nil, err
	}
	b.count(made, b.made != nil, c)
	rest, err := b.setServices(ctx, w, ours(t.Ranges, link), c)
	if err != nil {
		return nil, err
	}
	networks := w.networks(t.Ranges)
	rules, err := b.guard.Set(ctx, w.rules(networks))
	add(c, rules)
	if err != nil {
		return nil, err
	}
	if err := b.addNetworks(networks, n, link, c); err != nil {
		return nil, err
	}
	if err := b.finish(rest, c); err != nil {
		return nil, err
	}
	return w, removeNetworks(networks, link, c)
}

// prepare writes the sysctls.
func (b *Balancer) prepare(c *dataplane.Changes) error {
	n, err := b.sysctls.set(settings(kernelRelease()))
	if b.made != nil {
		c.Repaired += n
	} else {
		c.Written += n
	}
	return err
}

// compile translates the table, without what the node cannot serve.
func (b *Balancer) compile(t dataplane.Table) (*wanted, node, error) {
	w := compile(t, b.missing)
	n, err := readNode()
	if err != nil {
		return nil, n, err
	}
	for a, link := range n.addresses {
		if within(t.Ranges, a) {
			return nil, n, fmt.Errorf("the node's own address %s, on %s, is within the virtual ranges %v", a, link, t.Ranges)
		}
	}
	for v, s := range maps.Clone(w.owner) {
		if link, own := n.addresses[v.At.Addr()]; own {
			w.leave(s.Name, fmt.Errorf("%s is the node's own address, on %s", v.At.Addr(), link))
		}
	}
	return w, n, n.pickSources(b.options.Source4, b.options.Source6, w.backendAddresses())
}

// count adds one change that was needed.
func (b *Balancer) count(needed, repair bool, c *dataplane.Changes) {
	switch {
	case needed && repair:
		c.Repaired++
	case needed:
		c.Written++
	}
}

func add(c *dataplane.Changes, o dataplane.Changes) {
	c.Written += o.Written
	c.Removed += o.Removed
	c.Repaired += o.Repaired
}

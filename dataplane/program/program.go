// Package program is the eBPF sink for virtual IPs. It loads the programs of
// package bpf, attaches them to one cgroup and keeps their maps equal to a
// dataplane.Table. Maps and links are pinned, so balancing goes on without this
// process, and the next one recovers from the maps what ids they hold.
//
// It decides nothing about which backend is up or how much it gets: that is in
// the Table. The agent calls it; DESIGN.md tells why it is built as it is.
package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// Options of a Balancer.
type Options struct {
	// PinDir is a folder in bpffs, made when missing; dataplane.PinRoot when
	// empty.
	PinDir string
	// Cgroup is the path of the cgroup v2 folder below which every process is
	// balanced.
	Cgroup string
	// Log gets what is attached, upgraded and repaired; nil means nowhere.
	Log *slog.Logger
	// Sizes of the maps. A map that is pinned already keeps its size.
	Sizes Sizes
}

// Validate names the field that is wrong.
func (o Options) Validate() error {
	if o.Cgroup == "" {
		return errors.New("options: Cgroup is empty")
	}
	return nil
}

// Balancer implements dataplane.Balancer by eBPF programs at connect().
type Balancer struct {
	options  Options
	log      *slog.Logger
	dir      string // folder of the pinned maps
	maps     map[string]*ebpf.Map
	programs *ebpf.Collection
	cells    cells

	mu       sync.Mutex // guards what follows and lets one Set write at a time
	closed   bool
	links    map[string]link.Link // by hook
	pinned   bool                 // this process has seen its maps pinned
	adopted  bool                 // the maps are an earlier process's and not swept yet
	entries  map[string]*entry    // by service name: what the kernel holds
	made     made
	ids      idAllocator // of services
	backends idAllocator
	slots    runAllocator
}

// made is what this process has written and did not take back: if the kernel
// has something else, somebody else changed it.
type made struct {
	frontends map[bpf.BalanceFrontendKey]uint32 // service id
	addresses map[bpf.BalanceAddress]bool
	ranges    *bpf.BalanceRanges
}

// New loads the programs against the pinned maps or, without any, new ones. It
// changes nothing that others can see: the first Set pins and attaches. The
// error says in words why eBPF cannot be used, as Supported does.
func New(o Options) (*Balancer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.PinDir == "" {
		o.PinDir = dataplane.PinRoot
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := Supported(o.Cgroup); err != nil {
		return nil, err
	}
	b := &Balancer{
		options: o, log: o.Log, links: map[string]link.Link{},
		made: made{frontends: map[bpf.BalanceFrontendKey]uint32{}, addresses: map[bpf.BalanceAddress]bool{}},
	}
	if err := b.load(); err != nil {
		b.Close()
		return nil, err
	}
	b.recover()
	return b, nil
}

// Backend implements dataplane.Balancer.
func (b *Balancer) Backend() string { return "ebpf" }

// Set implements dataplane.Balancer. A *dataplane.LeftOut names the services
// that could not be programmed; after any other error the kernel holds some of
// the services as they were and some as wanted, each whole.
func (b *Balancer) Set(ctx context.Context, t dataplane.Table) (dataplane.Changes, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var c dataplane.Changes
	if b.closed {
		return c, errors.New("set virtual ips: the balancer is closed")
	}
	w, err := compile(t, b.maps[bpf.BalanceMapFrontends].MaxEntries())
	if err != nil {
		return c, err
	}
	if err := b.set(ctx, w, &c); err != nil {
		return c, err
	}
	if len(w.left) > 0 {
		return c, &dataplane.LeftOut{Services: w.left}
	}
	return c, nil
}

// set writes in the order in which each step is of use to the next: nothing
// points to what is not there yet, and what is removed is not pointed to any
// more. The programs come last, so that they never run on half a table.
func (b *Balancer) set(ctx context.Context, w *wanted, c *dataplane.Changes) error {
	if err := b.pinMaps(c); err != nil {
		return err
	}
	b.sweep()
	for _, s := range w.services {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("set virtual ips: %w", err)
		}
		if err := b.setService(s, c); err != nil {
			w.leave(s.name, err)
		}
	}
	if err := b.setFrontends(w, c); err != nil {
		return err
	}
	if err := b.removeServices(w, c); err != nil {
		return err
	}
	if err := b.setLinks(c); err != nil {
		return err
	}
	return b.removeOldLayouts()
}

// Close lets go of maps, programs and links. What is pinned stays and works.
func (b *Balancer) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	var faults []error
	for _, l := range b.links {
		faults = append(faults, l.Close())
	}
	faults = append(faults, b.cells.close())
	for _, m := range b.maps {
		faults = append(faults, m.Close())
	}
	if b.programs != nil {
		b.programs.Close()
	}
	return errors.Join(faults...)
}

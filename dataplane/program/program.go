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
	"time"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
	"github.com/weirproject/weir/dataplane/internal/room"
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
	// VerifyEvery is how often a Set reads everything back from the kernel; one
	// in between writes what differs from the Set before it. Zero means always.
	VerifyEvery time.Duration
	// Sizes of the maps at first; Set replaces full ones by larger ones. A map
	// that is pinned already keeps the size it has.
	Sizes Sizes
	// Limits are the sizes that maps do not outgrow; zero fields take
	// DefaultLimits.
	Limits Sizes
}

// Validate names the field that is wrong.
func (o Options) Validate() error {
	if o.Cgroup == "" {
		return errors.New("options: Cgroup is empty")
	}
	if o.VerifyEvery < 0 {
		return fmt.Errorf("options: VerifyEvery %s is negative", o.VerifyEvery)
	}
	return nil
}

// Balancer implements dataplane.Balancer by eBPF programs at connect().
type Balancer struct {
	options Options
	log     *slog.Logger
	dir     string // folder of the pinned maps

	mu sync.Mutex // guards what follows and lets one Set write at a time
	objects
	closed   bool
	links    pin.Links
	pinned   bool              // this process has seen its maps pinned
	adopted  bool              // the maps are an earlier process's and not swept yet
	verified time.Time         // when everything was read back last
	order    []placed          // of the last Set, in its order
	entries  map[string]*entry // by service name: what the kernel holds
	owners   map[bpf.BalanceFrontendKey]*entry
	shared   map[bpf.BalanceAddress]int // how many of owners are at the address
	made     made
	ids      *room.IDs // of services
	backends *room.IDs
	slots    *room.Runs
	reset    resetter
	watching bool // the hook that sees failures is needed
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
	o.Limits = o.Limits.or(DefaultLimits())
	if err := Supported(o.Cgroup); err != nil {
		return nil, err
	}
	b := &Balancer{
		options: o, log: o.Log, links: pin.Links{Dir: o.PinDir, Log: o.Log.With("cgroup", o.Cgroup)},
		owners: map[bpf.BalanceFrontendKey]*entry{}, shared: map[bpf.BalanceAddress]int{},
		made: made{frontends: map[bpf.BalanceFrontendKey]uint32{}, addresses: map[bpf.BalanceAddress]bool{}},
	}
	if err := b.open(); err != nil {
		b.Close()
		return nil, err
	}
	b.recover()
	b.reset.init(b.maps, b.log)
	return b, nil
}

// Backend implements dataplane.Balancer.
func (b *Balancer) Backend() string { return "ebpf" }

// Set implements dataplane.Balancer. What it does grows with what differs from
// the Set before it, by the services' pointers, except when it reads everything
// back. A *dataplane.LeftOut names the services that could not be programmed;
// after any other error the kernel holds some of the services as they were and
// some as wanted, each whole, and the next Set reads everything back.
func (b *Balancer) Set(ctx context.Context, t dataplane.Table) (dataplane.Changes, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var c dataplane.Changes
	if b.closed {
		return c, errors.New("set virtual ips: the balancer is closed")
	}
	p, err := b.begin(t)
	if err != nil {
		return c, err
	}
	if err := b.set(ctx, p, &c); err != nil {
		b.order, b.verified = nil, time.Time{}
		return c, err
	}
	b.order = p.order
	if p.verify {
		b.verified = p.start
	}
	if len(p.left) > 0 {
		return c, &dataplane.LeftOut{Services: p.left}
	}
	return c, nil
}

// set writes in the order in which each step is of use to the next: nothing
// points to what is not there yet, and what is removed is not pointed to any
// more. The programs come last, so that they never run on half a table.
func (b *Balancer) set(ctx context.Context, p *pass, c *dataplane.Changes) error {
	if p.verify {
		if err := b.pinMaps(c); err != nil {
			return err
		}
		b.sweep()
	}
	for _, i := range p.changed {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("set virtual ips: %w", err)
		}
		b.setService(p, i, c)
	}
	if err := b.setFrontends(p, c); err != nil {
		return err
	}
	b.removeServices(p, c)
	watching := b.watching
	b.watching = p.watches() || !p.verify && watching
	if p.verify || b.watching != watching {
		if err := b.setLinks(c); err != nil {
			return err
		}
	}
	if p.verify {
		// Their programs have been replaced by now.
		if err := pin.RemoveLayouts(b.options.PinDir, layoutPrefix, b.dir, b.log); err != nil {
			return err
		}
	}
	b.resetSockets(p)
	return nil
}

// Close lets go of maps, programs and links. What is pinned stays and works.
func (b *Balancer) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	faults := []error{b.reset.close(), b.links.Close(), b.unload()}
	for _, m := range b.maps {
		faults = append(faults, m.Close())
	}
	return errors.Join(faults...)
}

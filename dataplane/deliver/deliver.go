// Package deliver is the TCX sink on nodes with backends of edge services. It
// loads the programs of bpf/deliver.c, attaches them to the interfaces of a
// dataplane.DeliveryTable and keeps their maps equal to it. Maps and links are
// pinned, so delivery goes on without this process, and the flows that are open
// survive its restart.
//
// It picks no backend: the edge nodes have done that. The agent calls it;
// DESIGN.md tells why it is built as it is.
package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
)

// Options of a Deliverer.
type Options struct {
	// PinDir is a folder in bpffs, made when missing; "deliver" below
	// dataplane.PinRoot when empty.
	PinDir string
	// Log gets what is attached, upgraded and repaired; nil means nowhere.
	Log *slog.Logger
	// Flows that are remembered at one time, at least 1; zero means 131,072. A
	// map that is pinned already keeps its size.
	Flows uint32
	// Targets is how many pairs of a frontend and a backend of this node fit;
	// zero means 65,536. A map that is pinned already keeps its size.
	Targets uint32
}

// Deliverer implements dataplane.Deliverer by eBPF programs at TCX.
type Deliverer struct {
	options  Options
	log      *slog.Logger
	dir      string // folder of the pinned maps
	maps     map[string]*ebpf.Map
	programs *ebpf.Collection

	mu     sync.Mutex // guards what follows and lets one Set write at a time
	closed bool
	pinned bool // this process has seen its maps pinned
	links  pin.Links
	made   made
}

// made is what this process has written and did not take back: if the kernel
// has something else, somebody else changed it.
type made struct {
	config  *bpf.DeliverConfig
	ends    map[bpf.DeliverAddress]bpf.DeliverTunnelEnd
	targets map[bpf.DeliverTarget]uint32
}

var _ dataplane.Deliverer = (*Deliverer)(nil)

// New loads the programs against the pinned maps or, without any, new ones. It
// changes nothing that others can see: the first Set pins and attaches. The
// error says in words why the kernel cannot do it, as Supported does.
func New(o Options) (*Deliverer, error) {
	if o.PinDir == "" {
		o.PinDir = filepath.Join(dataplane.PinRoot, "deliver")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := Supported(); err != nil {
		return nil, err
	}
	d := &Deliverer{options: o, log: o.Log, links: pin.Links{Dir: o.PinDir, Log: o.Log}}
	d.made.ends = map[bpf.DeliverAddress]bpf.DeliverTunnelEnd{}
	d.made.targets = map[bpf.DeliverTarget]uint32{}
	if err := d.load(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Backend implements dataplane.Deliverer.
func (d *Deliverer) Backend() string { return "tcx" }

// Set implements dataplane.Deliverer. Services that are not delivered by api.DSR
// are none of ours and skipped. A *dataplane.LeftOut names the services that
// could not be programmed. An interface that is missing is an error too, after
// all the rest is done. After any other error the kernel holds some of the table.
func (d *Deliverer) Set(ctx context.Context, t dataplane.DeliveryTable) (dataplane.Changes, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var c dataplane.Changes
	if d.closed {
		return c, errors.New("set delivery: the deliverer is closed")
	}
	interfaces, missing := findInterfaces(t.Interfaces)
	w, err := compile(t, limits{d.maps[bpf.DeliverMapTargets].MaxEntries(), d.maps[bpf.DeliverMapEnds].MaxEntries()})
	if err != nil {
		return c, fmt.Errorf("set delivery: %w", err)
	}
	w.config.Mtu = smallestMTU(interfaces)
	if err := d.set(ctx, w, interfaces, &c); err != nil {
		return c, err
	}
	if missing != nil {
		return c, fmt.Errorf("set delivery: %w", missing)
	}
	if len(w.left) > 0 {
		return c, &dataplane.LeftOut{Services: w.left}
	}
	return c, nil
}

// set writes what programs need before it attaches them.
func (d *Deliverer) set(ctx context.Context, w *wanted, interfaces []netInterface, c *dataplane.Changes) error {
	for _, step := range []func() error{
		func() error { return d.pinMaps(c) },
		func() error { return d.setConfig(w, c) },
		func() error { return setHash(d, bpf.DeliverMapTargets, w.targets, d.made.targets, c) },
		func() error { return setHash(d, bpf.DeliverMapEnds, w.ends, d.made.ends, c) },
		func() error { return d.setLinks(interfaces, c) },
		// Their programs have been replaced by now.
		func() error { return pin.RemoveLayouts(d.options.PinDir, layoutPrefix, d.dir, d.log) },
	} {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("set delivery: %w", err)
		}
		if err := step(); err != nil {
			return fmt.Errorf("set delivery: %w", err)
		}
	}
	return nil
}

// Close lets go of maps, programs and links. What is pinned stays and works.
func (d *Deliverer) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	faults := []error{d.links.Close()}
	for _, m := range d.maps {
		faults = append(faults, m.Close())
	}
	if d.programs != nil {
		d.programs.Close()
	}
	return errors.Join(faults...)
}

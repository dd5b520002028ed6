// Package trace tells of flows and of dropped packets, as the kernel sees them:
// which process opened a connection to whom, through which virtual address, how
// it ended; which packets were thrown away, and the kernel's reason. The agent
// opens a Tracer while somebody watches.
//
// It changes nothing: what it attaches only reads, is not pinned, and is gone with
// the process. What is too much to be told is counted (Counts), never waited for.
package trace

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// window is the time in which the programs limit events, in seconds: 2^27 ns.
const window = float64(1<<27) / 1e9

// Options of a Tracer.
type Options struct {
	// PinDir is where the balancer pins its maps, in which virtual addresses are
	// found; dataplane.PinRoot when empty. Without such maps flows have none.
	PinDir string
	// Cgroup is the path of the cgroup v2 folder below which sockets are watched.
	// Drops are told of the network namespaces of its processes and of this one;
	// of all, if it is the root.
	Cgroup string
	// Flows is how many flows a second may begin to be followed on each CPU, and
	// Drops how many dropped packets are told; more are counted alone. Zero means
	// 1000 of each; at most 10 million.
	Flows, Drops int
	// Log gets what cannot be traced on this kernel; nil means nowhere.
	Log *slog.Logger
}

// Validate names the field that is wrong.
func (o Options) Validate() error {
	if o.Cgroup == "" {
		return errors.New("options: Cgroup is empty")
	}
	for name, rate := range map[string]int{"Flows": o.Flows, "Drops": o.Drops} {
		if rate < 0 || rate > 10_000_000 {
			return fmt.Errorf("options: %s %d is not between 0 and 10 million", name, rate)
		}
	}
	return nil
}

// Tracer follows what happens from Open to Close, in every network namespace.
type Tracer struct {
	reasons reasons
	missing []string
	maps    map[string]*ebpf.Map
	links   []link.Link
	reader  *ringbuf.Reader
	clock   clock
	scope   scope
	known   map[any]bool // open flows that have been told of; Run's alone

	closing sync.Once
}

// Open attaches the programs. The error says which facility the kernel lacks;
// what it lacks of the less important ones Missing tells.
func Open(o Options) (*Tracer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.PinDir == "" {
		o.PinDir = dataplane.PinRoot
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Flows == 0 {
		o.Flows = 1000
	}
	if o.Drops == 0 {
		o.Drops = 1000
	}
	t := &Tracer{known: map[any]bool{}}
	var err error
	if t.reasons, err = readReasons(); err != nil {
		return nil, err
	}
	if t.scope, err = newScope(o.Cgroup); err != nil {
		return nil, err
	}
	if err := t.load(o); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if t.reader, err = ringbuf.NewReader(t.maps[bpf.TraceMapEvents]); err != nil {
		return nil, errors.Join(fmt.Errorf("open the ring of events: %w", err), t.Close())
	}
	for _, what := range t.missing {
		o.Log.Warn("this kernel lets some things not be traced", "what", what)
	}
	return t, nil
}

// Missing lists what this kernel does not let us trace, in words; empty: nothing.
func (t *Tracer) Missing() []string { return t.missing }

// Close detaches everything. Run returns then.
func (t *Tracer) Close() (err error) {
	t.closing.Do(func() {
		var faults []error
		for _, l := range t.links {
			faults = append(faults, l.Close())
		}
		if t.reader != nil {
			faults = append(faults, t.reader.Close())
		}
		closeAll(t.maps)
		err = errors.Join(faults...)
	})
	return err
}

// limit of events in one window, at least one.
func limit(perSecond int) uint32 { return uint32(max(1, math.Round(float64(perSecond)*window))) }

// constants are what the programs are told when they are loaded.
func (t *Tracer) constants(o Options, spec *ebpf.CollectionSpec) error {
	for name, value := range map[string]any{
		"only_cgroup": t.scope.id, "flow_limit": limit(o.Flows), "drop_limit": limit(o.Drops), "everyday": t.reasons.everyday(),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

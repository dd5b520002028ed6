// Package agent is the hands of Weir on one node: it keeps the node's wanted
// state (a Snapshot), makes the kernel hold it with its reconcilers, in the
// order written in order.go, and tells what it observes (a Status).
//
// This release runs standalone: the wanted state comes from files in folders
// that it watches. The agent never writes wanted state, and it changes nothing
// in the kernel before it has a whole Snapshot, from the files or from disk.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/api"
)

// repairInterval is how often the kernel is compared with what is wanted
// although nothing changed.
const repairInterval = 2 * time.Second

// verifyInterval is shorter, so that every such pass does read everything back.
const verifyInterval = repairInterval / 2

// minPokeDelay keeps time alone from making passes one after the other.
const minPokeDelay = 10 * time.Millisecond

// Options of an Agent.
type Options struct {
	Config Config
	Log    *slog.Logger
	// Ready is called once, when the first Snapshot is applied and the API
	// answers; it may be nil.
	Ready func()
}

// Agent of one node.
type Agent struct {
	config  Config
	log     *slog.Logger
	ready   func()
	started time.Time
	metrics *metrics
	// registry gathers what every component counts.
	registry *prometheus.Registry
	backends *backends
	// order holds the components as they are applied.
	order []*component
	vips  *vipComponent
	dns   *dnsComponent
	edge  *edgeComponent

	snapshot atomic.Pointer[api.Snapshot]
	// lastPass is when the reconcilers ended a pass, in Unix nanoseconds.
	lastPass atomic.Int64
	wake     chan struct{} // asks for a pass of all
	states   chan struct{} // asks for one of those that follow the backends' states
	timer    *time.Timer   // asks for the same later
	unkept   atomic.Bool   // what is known of backends has changed since it was written down

	mu      sync.Mutex // guards what follows
	source  string
	refused []api.Refusal
	// applied tells that every component has applied one snapshot.
	applied bool
	// nextPoke is what timer is set to.
	nextPoke time.Time
}

// New prepares an agent; nothing in the kernel changes before Run.
func New(o Options) (*Agent, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	a := &Agent{
		config: o.Config, log: o.Log, ready: o.Ready, started: time.Now(),
		registry: prometheus.NewRegistry(), wake: make(chan struct{}, 1), states: make(chan struct{}, 1),
	}
	a.metrics = newMetrics(a.registry)
	a.timer = time.AfterFunc(time.Hour, a.pokeStates)
	var err error
	if a.backends, err = a.newBackends(); err != nil {
		return nil, err
	}
	if err := a.newComponents(); err != nil {
		return nil, err
	}
	return a, nil
}

// Run keeps the node as wanted until ctx ends. What the kernel holds then stays.
func (a *Agent) Run(ctx context.Context) error {
	unlock, err := lock(a.config.RunDir)
	if err != nil {
		return err
	}
	defer unlock()
	defer a.closeComponents()
	if err := a.loadSnapshot(); err != nil {
		a.log.Warn("kept snapshot discarded", "error", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.backends.health.Run(ctx) })
	g.Go(func() error { return a.watchConnections(ctx) })
	g.Go(func() error { return a.edge.run(ctx) })
	g.Go(func() error { return a.serveAPI(ctx) })
	g.Go(func() error { return a.serveMetrics(ctx) })
	g.Go(func() error { return watchFolders(ctx, a.log, a.config.State, a.readState) })
	g.Go(func() error { return a.reconcile(ctx) })
	return g.Wait()
}

// Alive tells whether the reconcilers have ended a pass within the time.
func (a *Agent) Alive(within time.Duration) bool {
	return time.Since(time.Unix(0, a.lastPass.Load())) < within
}

// poke asks for a pass of the reconcilers; it never blocks.
func (a *Agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// pokeStates asks for a pass of the reconcilers that follow the backends'
// states; it never blocks.
func (a *Agent) pokeStates() {
	select {
	case a.states <- struct{}{}:
	default:
	}
}

// pokeAt does the same at a time, but no sooner than a moment from now. The
// next pass asks again for what is later.
func (a *Agent) pokeAt(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nextPoke.After(time.Now()) && a.nextPoke.Before(at) {
		return
	}
	a.nextPoke = at
	a.timer.Reset(max(time.Until(at), minPokeDelay))
}

// reconcile applies the snapshot whenever something changed, and now and then
// without a reason, to find and repair drift.
func (a *Agent) reconcile(ctx context.Context) error {
	ticker := time.NewTicker(repairInterval)
	defer ticker.Stop()
	announced, statesAlone := false, false
	var checked *api.Snapshot
	for {
		if s := a.snapshot.Load(); s != nil {
			if s != checked {
				a.backends.health.Set(a.healthTargets(s))
				checked = s
			}
			a.applyAll(ctx, s, statesAlone)
			if a.appliedAll() && !announced && a.ready != nil {
				announced = true
				a.ready()
			}
		}
		a.lastPass.Store(time.Now().UnixNano())
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
			statesAlone = false
		case <-ticker.C:
			statesAlone = false
		case <-a.states:
			statesAlone = true
		}
	}
}

// readState reads the folders and takes their state over when it is whole.
func (a *Agent) readState() {
	d, err := readFolders(a.config.State)
	var s *api.Snapshot
	old := a.snapshot.Load()
	if err == nil {
		s, err = buildSnapshot(a.config, d, old)
	}
	a.setRefused(err)
	if err != nil {
		return
	}
	a.mu.Lock()
	a.source = "files"
	a.mu.Unlock()
	if s.Equal(old) {
		return
	}
	if err := save(a.snapshotPath(), s); err != nil {
		a.log.Error("snapshot not kept on disk", "revision", s.Revision, "error", err)
	}
	a.snapshot.Store(s)
	a.log.Info("state taken over", "revision", s.Revision, "services", len(s.Services), "records", len(s.Records), "policy", s.Policy != nil)
	a.poke()
}

func (a *Agent) snapshotPath() string { return a.dataPath("snapshot.json") }

// loadSnapshot takes over the last snapshot on disk, which is in force until
// the files have been read.
func (a *Agent) loadSnapshot() error {
	var s api.Snapshot
	found, err := load(a.snapshotPath(), &s)
	if err != nil || !found {
		return err
	}
	if s.Node.Name != a.config.Node.Name {
		return fmt.Errorf("it is of node %q, and this is %q", s.Node.Name, a.config.Node.Name)
	}
	a.mu.Lock()
	a.source = "disk"
	a.mu.Unlock()
	a.snapshot.Store(&s)
	return nil
}

func (a *Agent) appliedAll() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.applied
}

// errNotReady says why the agent is not ready.
var errNotReady = errors.New("no snapshot is applied yet")

// Package agent is the hands of Weir on one node: it keeps the node's wanted
// state (a Snapshot), makes the kernel hold it with its reconcilers, in the
// order written in order.go, and tells what it observes (a Status).
//
// The wanted state comes from files in folders that it watches (standalone), or
// from the controllers (joined); behind the Snapshot there is no difference. The
// agent never writes wanted state, and it changes nothing in the kernel before it
// has a whole Snapshot, from there or from disk.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/agent/peers"
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
	// ConfigFile is where the configuration is from, and Reread reads it again:
	// then changes of it that need no restart are taken over. nil: never.
	ConfigFile string
	Reread     func() (Config, error)
	// TakeOver has Run take the DNS proxy's sockets over from the agent that runs
	// on this node, which then ends, and loses no query.
	TakeOver bool
	// Sockets that were kept for this agent, and KeepSockets keeps copies of those
	// that it opens until its end, for the one after it. nil: nobody does.
	Sockets     []*os.File
	KeepSockets func([]*os.File) error
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
	order   []*component
	vips    *vipComponent
	dns     *dnsComponent
	answers *answersComponent
	edge    *edgeComponent
	zones   *zonesComponent
	flows   *flowWatch
	tasks   *tasksComponent
	// networks are the containers'.
	networks *Networks
	// joined is nil for an agent that lives by files, peers where nodes do not
	// watch each other.
	joined *joined
	peers  *peers.Detector

	reading  sync.Mutex // held while a snapshot is made and takes the place of another
	snapshot atomic.Pointer[api.Snapshot]
	// appliedRevision is the last one that every component has applied.
	appliedRevision atomic.Uint64
	// lastPass is when the reconcilers ended a pass, in Unix nanoseconds.
	lastPass atomic.Int64
	wake     chan struct{} // asks for a pass of all
	states   chan struct{} // asks for one of those that follow the backends' states
	timer    *time.Timer   // asks for the same later
	unkept   atomic.Bool   // what is known of backends has changed since it was written down

	configFile  string
	reread      func() (Config, error)
	takesOver   bool
	keepSockets func([]*os.File) error
	// successor takes over from this agent, predecessor is who it took over from;
	// both are used by Run and the reconcilers, one after the other.
	successor, predecessor *net.UnixConn

	mu            sync.Mutex // guards what follows
	source        string
	refused       []api.Refusal
	refusedConfig []api.Refusal
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
		configFile: o.ConfigFile, reread: o.Reread, takesOver: o.TakeOver, keepSockets: o.KeepSockets,
		registry: prometheus.NewRegistry(), wake: make(chan struct{}, 1), states: make(chan struct{}, 1),
	}
	a.metrics = newMetrics(a.registry)
	a.timer = time.AfterFunc(time.Hour, a.pokeStates)
	var err error
	if a.joined, err = a.newJoined(); err != nil {
		return nil, err
	}
	if a.joined != nil {
		a.config.State = nil
	}
	if err := a.newPeers(); err != nil {
		return nil, err
	}
	if a.backends, err = a.newBackends(); err != nil {
		return nil, err
	}
	if err := a.newComponents(); err != nil {
		return nil, err
	}
	a.dns.sockets = o.Sockets
	a.flows = a.newFlowWatch()
	return a, nil
}

// Run keeps the node as wanted until ctx ends. What the kernel holds then stays.
func (a *Agent) Run(ctx context.Context) (err error) {
	if a.takesOver {
		if err := a.takeOver(); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, a.handOver()) }() // when the lock is free
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
	g.Go(func() error { return a.zones.run(ctx) })
	g.Go(func() error { return a.tasks.supervisor.Run(ctx) })
	g.Go(func() error { return a.serveAPI(ctx) })
	g.Go(func() error { return a.runFlows(ctx) })
	g.Go(func() error { return a.serveMetrics(ctx) })
	g.Go(func() error { return a.runPeers(ctx) })
	if a.joined != nil {
		g.Go(func() error { return a.joined.run(ctx) })
	} else {
		g.Go(func() error { return watchFolders(ctx, a.log, a.config.State, a.readState) })
	}
	g.Go(func() error { return a.reconcile(ctx) })
	g.Go(func() error { return a.watchConfig(ctx) })
	g.Go(func() error { return a.serveHandover(ctx) })
	if err := g.Wait(); !errors.Is(err, errHandedOver) {
		return err
	}
	return nil
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

// adopt takes a state over that somebody else has checked.
func (a *Agent) adopt(s *api.Snapshot, source string) {
	a.reading.Lock()
	defer a.reading.Unlock()
	a.setSource(source)
	a.watchNodes(s, a.snapshot.Load())
	a.snapshot.Store(s)
	a.poke()
}

func (a *Agent) setSource(source string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.source = source
}

// readState reads the folders and takes their state over when it is whole. A
// joined agent has none.
func (a *Agent) readState() {
	a.reading.Lock()
	defer a.reading.Unlock()
	if a.joined != nil {
		return
	}
	d, err := readFolders(a.config.State)
	var s *api.Snapshot
	old := a.snapshot.Load()
	if err == nil {
		a.zones.policies.override(d)
		s, err = buildSnapshot(a.config, d, old)
	}
	a.setRefused(err)
	if err != nil {
		return
	}
	a.setSource("files")
	defer a.zones.policies.took(d, policyOf(old))
	if s.Equal(old) {
		return
	}
	if err := save(a.snapshotPath(), a.zones.policies.kept(s)); err != nil {
		a.log.Error("snapshot not kept on disk", "revision", s.Revision, "error", err)
	}
	a.watchNodes(s, old)
	a.snapshot.Store(s)
	a.log.Info("state taken over", "revision", s.Revision, "services", len(s.Services), "records", len(s.Records), "policy", s.Policy != nil)
	a.poke()
}

func (a *Agent) snapshotPath() string { return a.dataPath("snapshot.json") }

// loadSnapshot takes over the last snapshot on disk, which is in force until
// the files have been read.
func (a *Agent) loadSnapshot() error {
	if a.joined != nil {
		a.joined.loadKept()
		return nil
	}
	var s api.Snapshot
	found, err := load(a.snapshotPath(), &s)
	if err != nil || !found {
		return err
	}
	if s.Node.Name != a.config.Node.Name {
		return fmt.Errorf("it is of node %q, and this is %q", s.Node.Name, a.config.Node.Name)
	}
	a.zones.policies.atStart(&s)
	a.setSource("disk")
	a.watchNodes(&s, nil)
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

package apps

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/scheduler"
	"github.com/weirproject/weir/controller/store"
	"github.com/weirproject/weir/dnsproxy"
)

// LoopOptions of a Loop.
type LoopOptions struct {
	Catalog *Catalog
	Hub     *hub.Hub
	Store   store.Store
	// Range and Range6 are where named VIPs get their addresses from.
	Range, Range6 netip.Prefix
	// Names are the options that agents compile names with.
	Names dnsproxy.Options
	// Headroom is the share of every node, 0 to 1, that no task is given.
	Headroom float64
	// NewID makes ids of deployments.
	NewID func() string
	Now   func() time.Time // time.Now when nil
	Log   *slog.Logger
}

// Loop brings about what apps shall be. It runs at the leader alone.
type Loop struct {
	o   LoopOptions
	log *slog.Logger

	// What follows is of one leadership, and of its goroutine.
	fence    store.Condition
	table    *scheduler.Table // nil: to be made
	fed      fed
	since    map[string]health       // of nodes
	services map[string]*api.Service // in effect, by key
	names    *dnsproxy.Table         // last compiled
	refused  map[string]string       // services that no node could apply, and why
	heldBy   map[string][]string     // versions without traffic yet, by deployment
}

type health struct {
	is    api.NodeHealth
	since time.Time
}

// NewLoop does nothing until Lead.
func NewLoop(o LoopOptions) (*Loop, error) {
	if o.Catalog == nil || o.Hub == nil || o.Store == nil || o.NewID == nil || o.Log == nil {
		return nil, errors.New("make the loop of apps: Catalog, Hub, Store, NewID and Log are needed")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Loop{o: o, log: o.Log.With("component", "apps")}, nil
}

// Times of the loop.
const (
	// spacing of two looks: what changes at once is looked at once.
	spacing = 10 * time.Millisecond
	// idle is how long nothing is looked at when nothing happens.
	idle = 30 * time.Second
	// again is how long a look waits after one that failed.
	again = 200 * time.Millisecond
)

// Lead runs apps until ctx, which is that of the leadership, ends.
func (l *Loop) Lead(ctx context.Context, held store.Leadership) error {
	for _, ready := range []<-chan struct{}{l.o.Catalog.Ready(), l.o.Hub.Ready()} {
		select {
		case <-ready:
		case <-ctx.Done():
			return nil
		}
	}
	l.fence, l.table, l.since, l.refused = held.Fence(), nil, map[string]health{}, map[string]string{}
	l.heldBy = map[string][]string{}
	if err := l.catchUp(ctx); err != nil {
		return err
	}
	nodes := make(chan struct{}, 1)
	ctx, stop := context.WithCancel(ctx)
	following := make(chan struct{})
	go func() {
		defer close(following)
		l.follow(ctx, nodes)
	}()
	defer func() {
		stop()
		<-following
	}()
	for ctx.Err() == nil {
		moved := l.o.Catalog.Moved()
		next, err := l.look(ctx)
		wait := idle
		switch {
		case err != nil && ctx.Err() == nil:
			if !errors.Is(err, store.ErrConflict) {
				l.log.Warn("apps are looked at anew", "error", err)
			}
			l.table, wait, moved = nil, again, nil
		case !next.IsZero():
			wait = max(next.Sub(l.o.Now()), 0)
		}
		timer := time.NewTimer(min(wait, idle))
		select {
		case <-ctx.Done():
		case <-moved:
		case <-nodes:
		case <-timer.C:
		}
		timer.Stop()
		select {
		case <-ctx.Done():
		case <-time.After(spacing):
		}
	}
	return nil
}

// catchUp waits for all that leaders before this one have written, and reads the
// services that are in effect.
func (l *Loop) catchUp(ctx context.Context) error {
	for ctx.Err() == nil {
		entries, _, err := l.o.Store.List(ctx, hub.EffectKey("service", ""))
		var apps []store.Entry
		if err == nil {
			apps, _, err = l.o.Store.List(ctx, prefix)
		}
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(again):
			}
			continue
		}
		l.services = map[string]*api.Service{}
		for _, e := range entries {
			s := new(api.Service)
			if json.Unmarshal(e.Value, s) == nil {
				l.services[api.ServiceKey(s)] = s
			}
		}
		newest := uint64(0)
		for _, e := range apps {
			newest = max(newest, e.Version)
		}
		return l.o.Catalog.Wait(ctx, newest)
	}
	return nil
}

// follow tells when something of the nodes changes.
func (l *Loop) follow(ctx context.Context, nodes chan<- struct{}) {
	revision := l.o.Hub.Revision()
	for {
		if l.o.Hub.Wait(ctx, revision+1) != nil {
			return
		}
		revision = l.o.Hub.Revision()
		select {
		case nodes <- struct{}{}:
		default:
		}
	}
}

// look does what is to be done now, and says when to look again though nothing
// happens.
func (l *Loop) look(ctx context.Context) (next time.Time, err error) {
	now := l.o.Now()
	w := newWork()
	l.o.Catalog.Read(func(v *View) {
		runs, due := l.runs(v, w, now)
		if l.endings(v, w, now) {
			return // what has ended first: the rest goes by it
		}
		l.feed(v, now)
		l.asks(v, w, now)
		next = earlier(due, l.dueKills(v, w, now))
		targets, until := l.deployments(v, w, now)
		next = earlier(next, until)
		maps.Copy(targets, runs)
		l.target(v, targets)
		plan := l.table.Plan(now)
		next = earlier(next, plan.Next)
		l.take(v, w, plan, now)
		l.effects(v, w)
		l.tidy(v, w)
	})
	if err := l.commit(ctx, w); err != nil {
		return next, err
	}
	return next, nil
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// work is what a look writes.
type work struct {
	conditions map[string]uint64 // by key
	ops        []store.Op
	at         map[string]int // of ops, by key
	services   *serviceChange
	err        error
}

func newWork() *work { return &work{conditions: map[string]uint64{}, at: map[string]int{}} }

func (w *work) put(key string, value any) {
	text, err := json.Marshal(value)
	w.err = errors.Join(w.err, err)
	w.add(store.Op{Key: key, Value: text})
}

func (w *work) remove(key string) { w.add(store.Op{Key: key, Delete: true}) }

func (w *work) add(op store.Op) {
	if at, ok := w.at[op.Key]; ok {
		w.ops[at] = op
		return
	}
	w.at[op.Key] = len(w.ops)
	w.ops = append(w.ops, op)
}

// opsOfCommit leaves room for the fence, the gate and allotments.
const (
	opsOfCommit   = store.MaxOps - 8
	bytesOfCommit = store.MaxValue - 64<<10
)

// commit writes it, in parts where it is much, and waits until the catalog has
// it. Each part holds by itself.
func (l *Loop) commit(ctx context.Context, w *work) error {
	if w.err != nil {
		return fmt.Errorf("write what apps need: %w", w.err)
	}
	ops := w.ops
	for len(ops) > 0 {
		conditions := []store.Condition{l.fence}
		size, n := 0, 0
		for n < len(ops) && n < opsOfCommit && (n == 0 || size+len(ops[n].Value) < bytesOfCommit) {
			size += len(ops[n].Key) + len(ops[n].Value)
			if version, ok := w.conditions[ops[n].Key]; ok {
				conditions = append(conditions, store.Condition{Key: ops[n].Key, Version: version})
			}
			n++
		}
		revision, err := l.o.Store.Commit(ctx, conditions, ops[:n])
		if err != nil {
			return fmt.Errorf("write what apps need: %w", err)
		}
		own := false
		for _, op := range ops[:n] {
			own = own || op.Key[:min(len(prefix), len(op.Key))] == prefix
		}
		if ops = ops[n:]; own {
			if err := l.o.Catalog.Wait(ctx, revision); err != nil {
				return err
			}
		}
	}
	if w.services != nil {
		return l.commitServices(ctx, w.services)
	}
	return nil
}

func seed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// Package hub follows the store and holds the whole wanted state in memory, at
// every controller alike: what a state is depends on the store's revision
// alone. It turns each change into what nodes are told, encodes that once for
// all of them, and keeps the last changes for those that come back. It writes
// nothing.
package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/store"
)

// Options of a Hub.
type Options struct {
	Store store.Store
	Log   *slog.Logger
	// Epoch names the history that the store's revisions belong to.
	Epoch string
	// RingBytes bounds the encoded changes that are kept for nodes that come
	// back; 0 means 16 MiB.
	RingBytes int
}

// Hub of one controller.
type Hub struct {
	store store.Store
	log   *slog.Logger
	epoch string
	most  int

	ready     chan struct{} // closed when there is a state
	followers atomic.Int64

	mu      sync.Mutex // guards what follows
	content *content
	state   *State // made of content when somebody asked; nil: not yet
	objects map[string]map[string]api.Stored
	newest  *Crumb
	ring    []*Crumb
	bytes   int
	moved   chan struct{} // closed when the state moves on
	base    base
	// generation counts the states that no change leads to.
	generation int
}

// New makes a hub that knows nothing until Run has begun.
func New(o Options) (*Hub, error) {
	if o.Store == nil || o.Log == nil {
		return nil, errors.New("make a hub: Store and Log are needed")
	}
	if o.RingBytes == 0 {
		o.RingBytes = 16 << 20
	}
	h := &Hub{store: o.Store, log: o.Log.With("component", "hub"), epoch: o.Epoch, most: o.RingBytes, ready: make(chan struct{}), moved: make(chan struct{})}
	return h, nil
}

// Run follows the store until ctx ends. While the store is away the state stays
// what it was.
func (h *Hub) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := h.follow(ctx); err != nil && ctx.Err() == nil {
			h.log.Warn("the store is followed anew", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// follow reads the whole, then each change after it.
func (h *Hub) follow(ctx context.Context) error {
	entries, revision, err := h.store.Peek(ctx, Prefix)
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	h.reset(entries)
	batches := h.store.Watch(ctx, Prefix, revision)
	var last time.Time
	for batch := range batches {
		var more bool
		if batch, more = gather(batch, batches, h.window()-time.Since(last)); batch.Err != nil {
			return fmt.Errorf("watch the state: %w", batch.Err)
		}
		last = time.Now()
		h.apply(batch.Events, batch.Revision)
		if !more {
			break
		}
	}
	return nil
}

// How far apart states are while changes come fast: who follows is told of all of
// them at once. Each line to each of them costs about what perFollower says,
// which so takes half of a core at most. A change that comes alone waits for
// nothing.
const (
	leastWindow = 20 * time.Millisecond
	mostWindow  = 300 * time.Millisecond
	perFollower = 60 * time.Microsecond
)

func (h *Hub) window() time.Duration {
	return min(max(leastWindow, time.Duration(h.followers.Load())*perFollower), mostWindow)
}

// SetFollowers says how many follow the states.
func (h *Hub) SetFollowers(n int) { h.followers.Store(int64(n)) }

// gather adds what comes within a time to a batch; more is false when that was
// the last.
func gather(batch store.Batch, batches <-chan store.Batch, within time.Duration) (_ store.Batch, more bool) {
	if within <= 0 || batch.Err != nil {
		return batch, true
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		select {
		case next, ok := <-batches:
			switch {
			case !ok:
				return batch, false
			case next.Err != nil: // the events are told once more after it
				return next, false
			}
			batch.Events = append(batch.Events[:len(batch.Events):len(batch.Events)], next.Events...)
			batch.Revision = next.Revision
		case <-timer.C:
			return batch, true
		}
	}
}

// reset makes the first state, or one that what was before does not lead to. Its
// revision is that of the last change of it, so that a node that has missed
// nothing is told nothing: whoever deletes a key writes the gate as well.
func (h *Hub) reset(entries []store.Entry) {
	revision := uint64(1)
	for _, e := range entries {
		revision = max(revision, e.Version)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.content, h.objects = newContent(), map[string]map[string]api.Stored{}
	h.ring, h.bytes = nil, 0
	h.generation++
	events := make([]store.Event, len(entries))
	for i, e := range entries {
		events[i] = store.Event{Entry: e}
	}
	h.take(events, revision)
	h.publish(&Crumb{revision: revision, whole: true})
}

// apply takes a batch of events.
func (h *Hub) apply(events []store.Event, revision uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change, runs, touched := h.take(events, revision)
	h.publish(&Crumb{revision: revision, change: change, runs: runs, touched: touched})
}

// take is called with the lock held.
func (h *Hub) take(events []store.Event, revision uint64) (*api.SnapshotChange, map[string]*api.SnapshotChange, *touched) {
	e := newEdit()
	for i := range events {
		h.content.enter(e, &events[i])
		h.keep(&events[i])
	}
	h.state = nil
	change, runs := h.content.take(e, revision)
	return change, runs, e.touched()
}

// publish makes a crumb the newest and wakes who waits. It is called with the
// lock held.
func (h *Hub) publish(c *Crumb) {
	c.next, c.at = make(chan struct{}), time.Now()
	if last := h.newest; last != nil {
		last.after = c
		close(last.next)
	}
	h.newest = c
	h.ring = append(h.ring, c)
	h.bytes += c.size()
	for len(h.ring) > 1 && (h.bytes > h.most || len(h.ring) > maxCrumbs) {
		h.bytes -= h.ring[0].size()
		h.ring[0] = nil
		h.ring = h.ring[1:]
	}
	close(h.moved)
	h.moved = make(chan struct{})
	select {
	case <-h.ready:
	default:
		close(h.ready)
	}
}

// keep takes note of an object for those who ask for it.
func (h *Hub) keep(e *store.Event) {
	path, ok := strings.CutPrefix(e.Key, ObjectPrefix)
	if !ok {
		return
	}
	kind, key, _ := strings.Cut(path, "/")
	if e.Deleted {
		delete(h.objects[kind], key)
		return
	}
	if h.objects[kind] == nil {
		h.objects[kind] = map[string]api.Stored{}
	}
	h.objects[kind][key] = api.Stored{Kind: kind, Key: key, Version: e.Version, Object: json.RawMessage(e.Value)}
}

// State of now; wait for Ready before.
func (h *Hub) State() *State {
	s, _ := h.Newest()
	return s
}

// Ready is closed when the hub has read the store for the first time.
func (h *Hub) Ready() <-chan struct{} { return h.ready }

// Epoch names the history that revisions belong to.
func (h *Hub) Epoch() string { return h.epoch }

// Wait returns when the state is of a revision or a later one, or with the error
// of ctx. Wait for Ready before.
func (h *Hub) Wait(ctx context.Context, revision uint64) error {
	for {
		h.mu.Lock()
		moved, at := h.moved, h.content.revision
		h.mu.Unlock()
		if at >= revision {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// Get returns an object as it is at this controller; a service also by its key
// without the protocol, where that is clear. ErrNotFound of package store.
func (h *Hub) Get(kind, key string) (api.Stored, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o, ok := h.objects[kind][key]; ok {
		return o, nil
	}
	var found []api.Stored
	if kind == "service" {
		for _, protocol := range []api.Protocol{api.TCP, api.UDP} {
			if o, ok := h.objects[kind][key+"/"+string(protocol)]; ok {
				found = append(found, o)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 2:
		return api.Stored{}, fmt.Errorf("%s %s: %w: there is one of tcp and one of udp: write %s/tcp or %s/udp", kind, key, store.ErrNotFound, key, key)
	}
	return api.Stored{}, fmt.Errorf("%s %s: %w", kind, key, store.ErrNotFound)
}

// List returns the objects of a kind, or of all kinds, sorted by kind and key,
// and the revision at which they were so.
func (h *Hub) List(kind string) ([]api.Stored, uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []api.Stored
	for k, objects := range h.objects {
		if kind == "" || k == kind {
			all = slices.AppendSeq(all, maps.Values(objects))
		}
	}
	slices.SortFunc(all, func(a, b api.Stored) int {
		if c := strings.Compare(a.Kind, b.Kind); c != 0 {
			return c
		}
		return strings.Compare(a.Key, b.Key)
	})
	return all, h.newest.revision
}

// Revision of now.
func (h *Hub) Revision() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.content.revision
}

// Node is a node as it is in the state of now.
func (h *Hub) Node(name string) (api.Node, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.content.nodes[name]; n != nil {
		return *n, true
	}
	return api.Node{}, false
}

// Age is how long ago this controller learned of a revision; 0 when that is not
// kept any more.
func (h *Hub) Age(revision uint64) time.Duration {
	if c := h.From(revision); c != nil && c.revision == revision {
		return time.Since(c.at)
	}
	return 0
}

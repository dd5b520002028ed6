package apps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/deploy"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/jobs"
	"github.com/weirproject/weir/controller/scheduler"
	"github.com/weirproject/weir/controller/store"
)

// Catalog follows the store and has the View of now.
type Catalog struct {
	store store.Store
	log   *slog.Logger
	ready chan struct{} // closed when there is a view

	mu       sync.RWMutex // guards what follows
	view     *View
	revision uint64        // that the view has of prefix
	moved    chan struct{} // closed when the view moves on
	events   *events
}

// NewCatalog knows nothing until Run has begun.
func NewCatalog(s store.Store, log *slog.Logger) (*Catalog, error) {
	if s == nil || log == nil {
		return nil, errors.New("make a catalog of apps: a store and a log are needed")
	}
	return &Catalog{store: s, log: log.With("component", "apps"), ready: make(chan struct{}), view: newView(), moved: make(chan struct{}), events: newEvents()}, nil
}

// Run follows the store until ctx ends. While the store is away the view stays
// what it was.
func (c *Catalog) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := c.follow(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("the apps are read anew", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

func (c *Catalog) follow(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	own, revision, err := c.store.Peek(ctx, prefix)
	if err != nil {
		return fmt.Errorf("read the apps: %w", err)
	}
	tasks, tasksRevision, err := c.store.Peek(ctx, hub.TaskKey(""))
	if err != nil {
		return fmt.Errorf("read the tasks: %w", err)
	}
	c.reset(append(own, tasks...), revision)
	ownChanges := c.store.Watch(ctx, prefix, revision)
	taskChanges := c.store.Watch(ctx, hub.TaskKey(""), tasksRevision)
	for {
		var batch store.Batch
		var ok, mine bool
		select {
		case batch, ok = <-ownChanges:
			mine = true
		case batch, ok = <-taskChanges:
		}
		if !ok || batch.Err != nil {
			return fmt.Errorf("watch the apps: %w", errors.Join(batch.Err, ctx.Err()))
		}
		c.take(batch, mine)
	}
}

func (c *Catalog) reset(entries []store.Entry, revision uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.view = newView()
	for i := range entries {
		c.view.enter(&store.Event{Entry: entries[i]})
	}
	c.revision = revision
	c.events.begin(revision)
	c.tell()
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
}

func (c *Catalog) take(batch store.Batch, own bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range batch.Events {
		e := &batch.Events[i]
		c.events.before(c.view, e)
		c.view.enter(e)
		c.events.after(c.view, e, batch.Revision)
	}
	if own {
		c.revision = batch.Revision
	}
	c.tell()
}

// tell wakes who waits; mu is held.
func (c *Catalog) tell() {
	close(c.moved)
	c.moved = make(chan struct{})
}

// Ready is closed when there is a view.
func (c *Catalog) Ready() <-chan struct{} { return c.ready }

// Read calls do with the view of now, which stays so meanwhile: be short.
func (c *Catalog) Read(do func(*View)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	do(c.view)
}

// Moved is closed when the view is another.
func (c *Catalog) Moved() <-chan struct{} {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.moved
}

// Wait until the view has a revision of the store.
func (c *Catalog) Wait(ctx context.Context, revision uint64) error {
	for {
		c.mu.RLock()
		have, moved := c.revision, c.moved
		c.mu.RUnlock()
		if have >= revision {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for revision %d of the apps: %w", revision, ctx.Err())
		case <-moved:
		}
	}
}

// put keeps what an event brings of one kind.
func put[T any](all map[string]*T, key string, e *store.Event) *T {
	if e.Deleted {
		delete(all, key)
		return nil
	}
	value := new(T)
	if json.Unmarshal(e.Value, value) != nil {
		return nil // a newer release's
	}
	all[key] = value
	return value
}

// enter takes one event of the store.
func (v *View) enter(e *store.Event) {
	if e.Deleted {
		delete(v.versions, e.Key)
	} else {
		v.versions[e.Key] = e.Version
	}
	if id, ok := strings.CutPrefix(e.Key, hub.TaskKey("")); ok {
		put(v.Wanted, id, e)
		return
	}
	if e.Key == gateKey {
		v.gate = e.Version
		return
	}
	kind, key, _ := strings.Cut(strings.TrimPrefix(e.Key, prefix), "/")
	switch kind + "/" {
	case strings.TrimPrefix(appPrefix, prefix):
		put(v.Apps, "/"+key, e)
	case strings.TrimPrefix(versionPrefix, prefix):
		app, version, _ := strings.Cut(key, "//")
		if v.Versions["/"+app] == nil {
			v.Versions["/"+app] = map[string]*api.App{}
		}
		if put(v.Versions["/"+app], version, e); len(v.Versions["/"+app]) == 0 {
			delete(v.Versions, "/"+app)
		}
	case strings.TrimPrefix(groupPrefix, prefix):
		put(v.Groups, "/"+key, e)
	case strings.TrimPrefix(deployPrefix, prefix):
		put[deploy.Deployment](v.Deployments, key, e)
	case strings.TrimPrefix(taskPrefix, prefix):
		v.enterTask(key, e)
	case strings.TrimPrefix(historyPrefix, prefix):
		put[scheduler.History](v.Histories, "/"+key, e)
	case strings.TrimPrefix(queuePrefix, prefix):
		put(v.Queues, "/"+key, e)
	case strings.TrimPrefix(failurePrefix, prefix):
		put(v.Failures, "/"+key, e)
	case strings.TrimPrefix(endedPrefix, prefix):
		put(v.Ended, key, e)
	case strings.TrimPrefix(jobPrefix, prefix):
		put[jobs.Job](v.Jobs, key, e)
	case strings.TrimPrefix(runPrefix, prefix):
		put[jobs.Run](v.Runs, key, e)
	case strings.TrimPrefix(askPrefix, prefix):
		put(v.asks, "/"+key, e)
	}
}

func (v *View) enterTask(id string, e *store.Event) {
	if old := v.Tasks[id]; old != nil {
		if delete(v.byApp[old.App], id); len(v.byApp[old.App]) == 0 {
			delete(v.byApp, old.App)
		}
	}
	if t := put(v.Tasks, id, e); t != nil {
		if v.byApp[t.App] == nil {
			v.byApp[t.App] = map[string]*Task{}
		}
		v.byApp[t.App][id] = t
	}
}

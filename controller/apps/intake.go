package apps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/store"
)

// Intake keeps what nodes report of their tasks. Every controller has one, for
// the nodes whose streams it holds.
type Intake struct {
	catalog *Catalog
	store   store.Store
	log     *slog.Logger
	came    chan struct{}

	mu      sync.Mutex // guards pending
	pending map[string]report
}

// report is the newest word on a task.
type report struct {
	node   string
	status api.TaskStatus
	came   time.Time
}

// early is for how long a report waits for its task: nodes may hear of a task
// before this controller's catalog does.
const early = 5 * time.Second

var errEarly = errors.New("tasks are not known yet")

// NewIntake keeps nothing until Run.
func NewIntake(c *Catalog, s store.Store, log *slog.Logger) *Intake {
	return &Intake{catalog: c, store: s, log: log.With("component", "apps"), came: make(chan struct{}, 1), pending: map[string]report{}}
}

// Tell takes what a node says of its tasks; with all these are all that it
// knows. It does not block.
func (i *Intake) Tell(node string, tasks []api.TaskStatus, all bool) {
	i.mu.Lock()
	said := map[string]bool{}
	for _, t := range tasks {
		said[t.ID] = true
		i.pending[t.ID] = report{node, t, time.Now()}
	}
	i.mu.Unlock()
	if all {
		i.missing(node, said)
	}
	select {
	case i.came <- struct{}{}:
	default:
	}
}

// missing tasks are those that a node once knew and does not know any more:
// they have ended without a word, as when its disk was lost.
func (i *Intake) missing(node string, said map[string]bool) {
	var lost []report
	i.catalog.Read(func(v *View) {
		for id, t := range v.Tasks {
			if t.Node == node && !said[id] && t.Status.State != "" && !t.Status.State.Ended() {
				status := t.Status
				status.State, status.Since, status.Reason = api.TaskLost, time.Now().UTC(), "its node does not know it any more"
				lost = append(lost, report{node, status, time.Now()})
			}
		}
	})
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, r := range lost {
		i.pending[r.status.ID] = r
	}
}

// retry is how long reports wait after the store did not take them.
const retry = 200 * time.Millisecond

// Run writes what comes until ctx ends.
func (i *Intake) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-i.came:
		}
		for {
			more, err := i.write(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err == nil && !more {
				break
			}
			wait := retry
			switch {
			case err == nil:
				wait = 0
			case errors.Is(err, store.ErrConflict):
				wait = 2 * time.Millisecond
			case errors.Is(err, errEarly):
				wait = 20 * time.Millisecond
			default:
				i.log.Warn("what nodes report of tasks is not kept yet", "error", err)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
		}
	}
}

// write some of what is pending.
func (i *Intake) write(ctx context.Context) (more bool, err error) {
	i.mu.Lock()
	batch := map[string]report{}
	for id, r := range i.pending {
		if len(batch) == store.MaxOps/2 {
			more = true
			break
		}
		batch[id] = r
		delete(i.pending, id)
	}
	i.mu.Unlock()
	var conditions []store.Condition
	var ops []store.Op
	waiting := map[string]report{}
	i.catalog.Read(func(v *View) {
		for id, r := range batch {
			t := v.Tasks[id]
			if t == nil && time.Since(r.came) < early {
				waiting[id] = r
			}
			if t == nil || t.Node != r.node || t.Status.State.Ended() || !news(&t.Status, &r.status) {
				continue
			}
			next := *t
			next.Status = r.status
			text, failed := json.Marshal(next)
			if failed != nil {
				err = failed
				continue
			}
			conditions = append(conditions, store.Condition{Key: taskPrefix + id, Version: v.versions[taskPrefix+id]})
			ops = append(ops, store.Op{Key: taskPrefix + id, Value: text})
		}
	})
	i.back(waiting)
	if len(ops) == 0 {
		if err == nil && len(waiting) > 0 {
			err = errEarly
		}
		return more, err
	}
	revision, err := i.store.Commit(ctx, conditions, ops)
	if err == nil {
		return more || len(waiting) > 0, i.catalog.Wait(ctx, revision)
	}
	i.back(batch)
	return true, fmt.Errorf("keep what nodes report of tasks: %w", err)
}

// back puts reports back that no newer ones have come for.
func (i *Intake) back(reports map[string]report) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for id, r := range reports {
		if _, newer := i.pending[id]; !newer {
			i.pending[id] = r
		}
	}
}

// news tells whether a report says something that is worth a write: use of
// resources and the time of a check that passes again are not.
func news(old, now *api.TaskStatus) bool {
	a, b := *old, *now
	for _, s := range []*api.TaskStatus{&a, &b} {
		s.CPUSeconds, s.Memory = 0, 0
		checks := append([]api.CheckStatus(nil), s.Checks...)
		for n := range checks {
			checks[n].Last = time.Time{}
		}
		s.Checks = checks
		if len(checks) == 0 {
			s.Checks = nil
		}
	}
	return !reflect.DeepEqual(a, b)
}

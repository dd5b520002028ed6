package apps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/deploy"
	"github.com/weirproject/weir/controller/jobs"
	"github.com/weirproject/weir/controller/store"
)

// Write is what people change in one go: all of it, or nothing. An app with its
// deployment is so either there or not.
type Write struct {
	Apps       map[string]*api.App // nil: deleted
	Groups     map[string]*Group   // nil: deleted
	Deployment *deploy.Deployment  // to begin with
	// Replaced are deployments that it takes the place of.
	Replaced []string
	// Asks of the leader, by app.
	Asks []Ask
	// Changed are deployments that go on otherwise, such as with a canary promoted.
	Changed []*deploy.Deployment
	// Jobs, nil: deleted; Runs, to begin with or to stop.
	Jobs map[string]*jobs.Job
	Runs []jobs.Run
	// More operations, such as an audit record.
	More []store.Op
}

// MaxApps is how many apps one write may change.
const MaxApps = 55

// ErrTooMany is of a write of more than MaxApps apps.
var ErrTooMany = fmt.Errorf("more than %d apps at once: write the groups below one by one", MaxApps)

// attempts of a write that others come before.
const attempts = 20

// Write asks decide for what to write, from the view of now, and commits it
// under the condition that nobody has written since; else it asks once more. It
// returns when this controller's view has it. An error of decide is returned as
// it is.
func (c *Catalog) Write(ctx context.Context, decide func(*View) (*Write, error)) error {
	select {
	case <-c.ready:
	case <-ctx.Done():
		return fmt.Errorf("%w: this controller does not know the apps yet", store.ErrUnavailable)
	}
	var err error
	for range attempts {
		var conditions []store.Condition
		var ops []store.Op
		var seen uint64
		c.Read(func(v *View) {
			var w *Write
			if w, err = decide(v); err == nil && w != nil {
				conditions, ops, err = w.ops(v)
			}
			seen = c.revision
		})
		if err != nil || len(ops) == 0 {
			return err
		}
		var revision uint64
		if revision, err = c.store.Commit(ctx, conditions, ops); err == nil {
			return c.Wait(ctx, revision)
		} else if !errors.Is(err, store.ErrConflict) {
			return fmt.Errorf("write the apps: %w", err)
		}
		late, stop := context.WithTimeout(ctx, 50*time.Millisecond)
		_ = c.Wait(late, seen+1)
		stop()
	}
	return fmt.Errorf("write the apps: %w", err)
}

func (w *Write) ops(v *View) ([]store.Condition, []store.Op, error) {
	if len(w.Apps) > MaxApps {
		return nil, nil, ErrTooMany
	}
	ops := []store.Op{{Key: gateKey, Value: []byte(time.Now().UTC().Format(time.RFC3339Nano))}}
	conditions := []store.Condition{{Key: gateKey, Version: v.gate}}
	var err error
	set := func(key string, value any) {
		text, failed := json.Marshal(value)
		err = errors.Join(err, failed)
		ops = append(ops, store.Op{Key: key, Value: text})
	}
	for id, a := range w.Apps {
		if a == nil {
			ops = append(ops, store.Op{Key: appPrefix + bare(id), Delete: true})
			continue
		}
		set(appPrefix+bare(id), a)
		set(versionKey(id, a.Version), a)
	}
	for id, g := range w.Groups {
		if g == nil {
			ops = append(ops, store.Op{Key: groupPrefix + bare(id), Delete: true})
			continue
		}
		set(groupPrefix+bare(id), g)
	}
	if w.Deployment != nil {
		set(deployPrefix+w.Deployment.ID, w.Deployment)
	}
	for id, j := range w.Jobs {
		if j == nil {
			ops = append(ops, store.Op{Key: jobPrefix + id, Delete: true})
			continue
		}
		conditions = append(conditions, store.Condition{Key: jobPrefix + id, Version: v.versions[jobPrefix+id]})
		set(jobPrefix+id, j)
	}
	for _, r := range w.Runs {
		conditions = append(conditions, store.Condition{Key: runPrefix + r.ID, Version: v.versions[runPrefix+r.ID]})
		set(runPrefix+r.ID, r)
	}
	for _, d := range w.Changed {
		conditions = append(conditions, store.Condition{Key: deployPrefix + d.ID, Version: v.versions[deployPrefix+d.ID]})
		set(deployPrefix+d.ID, d)
	}
	for _, id := range w.Replaced {
		key := deployPrefix + id
		conditions = append(conditions, store.Condition{Key: key, Version: v.versions[key]})
		ops = append(ops, store.Op{Key: key, Delete: true})
		if d := v.Deployments[id]; d != nil {
			set(endedPrefix+id, Ending{Deployment: cancelled(*d), At: time.Now().UTC()})
		}
	}
	for _, a := range w.Asks {
		if old := v.asks[a.App]; old != nil {
			a.Kill = append(slices.Clone(old.Kill), a.Kill...)
			a.Wipe, a.NoDelay, a.Rebalance = a.Wipe || old.Wipe, a.NoDelay || old.NoDelay, a.Rebalance || old.Rebalance
		}
		set(askPrefix+bare(a.App), a)
	}
	return conditions, append(ops, w.More...), err
}

func cancelled(d deploy.Deployment) deploy.Deployment {
	d.State, d.Reason = deploy.Failed, "cancelled"
	return d
}

func versionKey(id, version string) string { return versionPrefix + bare(id) + "//" + version }

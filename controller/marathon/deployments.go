package marathon

import (
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/weirproject/weir/controller/apps"
	"github.com/weirproject/weir/controller/deploy"
)

// shapeDeployment is a deployment as Marathon shows it; what Weir has more is
// in progress.
func shapeDeployment(d *deploy.Deployment) map[string]any {
	steps := []map[string]any{}
	for _, s := range d.Steps {
		steps = append(steps, map[string]any{"actions": s})
	}
	current := []map[string]any{}
	if d.Current >= 0 && d.Current < len(d.Steps) {
		for _, a := range d.Steps[d.Current] {
			current = append(current, map[string]any{"action": a.Type, "app": a.App, "readinessCheckResults": []struct{}{}})
		}
	}
	affected := d.Apps()
	if affected == nil {
		affected = []string{}
	}
	return map[string]any{
		"id": d.ID, "version": d.Version, "affectedApps": affected, "affectedPods": []string{}, "steps": steps, "currentActions": current,
		"currentStep": min(d.Current+1, len(d.Steps)), "totalSteps": len(d.Steps), "progress": d.Progress, "startedAt": apps.Stamp(d.Started),
	}
}

func (q *request) listDeployments() error {
	list := []map[string]any{}
	q.o.Catalog.Read(func(v *apps.View) {
		for _, d := range slices.SortedFunc(maps.Values(v.Deployments), func(a, b *deploy.Deployment) int { return a.Started.Compare(b.Started) }) {
			list = append(list, shapeDeployment(d))
		}
	})
	send(q.w, http.StatusOK, list)
	return nil
}

// stopDeployment takes a deployment back by one in the other direction; with
// force it just ends, and leaves what it has done.
func (q *request) stopDeployment(id string) error {
	force := q.flag("force", false)
	var back deploy.Deployment
	err := q.o.Catalog.Write(q.r.Context(), func(v *apps.View) (*apps.Write, error) {
		d := v.Deployments[id]
		if d == nil {
			return nil, noDeployment(id)
		}
		w := &apps.Write{Replaced: []string{id}}
		if q.o.Record != nil {
			op, err := q.o.Record(q.r, q.who, q.verb, q.noun)
			if err != nil {
				return nil, err
			}
			w.More = append(w.More, op)
		}
		if force {
			return w, nil
		}
		now := q.o.Now()
		back = d.Reverse(q.o.NewID(), now)
		w.Apps = apps.TakeBack(v, &back, now)
		if back.Version == "" {
			back.Version = apps.Stamp(now)
		}
		w.Deployment = &back
		return w, nil
	})
	if err != nil {
		return err
	}
	if force {
		q.w.WriteHeader(http.StatusAccepted)
		return nil
	}
	q.w.Header().Set("Marathon-Deployment-Id", back.ID)
	send(q.w, http.StatusOK, map[string]string{"version": back.Version, "deploymentId": back.ID})
	return nil
}

// promote lets a deployment's canaries be followed by the rest: POST with
// ?promote=APP, which Marathon does not have.
func (q *request) promote(id string) error {
	app := q.r.URL.Query().Get("promote")
	if app == "" {
		return refuse(http.StatusBadRequest, "say which app with ?promote=APP")
	}
	app = absolute("/", app)
	err := q.o.Catalog.Write(q.r.Context(), func(v *apps.View) (*apps.Write, error) {
		d := v.Deployments[id]
		if d == nil {
			return nil, noDeployment(id)
		}
		if !slices.Contains(d.Apps(), app) {
			return nil, noApp(app)
		}
		next := d.Promote(app)
		return &apps.Write{Changed: []*deploy.Deployment{&next}}, nil
	})
	if err == nil {
		q.w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (q *request) listQueue() error {
	list := []map[string]any{}
	now := q.o.Now()
	q.o.Catalog.Read(func(v *apps.View) {
		for _, id := range slices.Sorted(maps.Keys(v.Queues)) {
			a, one := v.Apps[id], v.Queues[id]
			if a == nil {
				continue
			}
			shape, err := shapeApp(v, a, embeds{})
			if err != nil {
				continue
			}
			list = append(list, shapeQueue(one, shape, now))
		}
	})
	send(q.w, http.StatusOK, map[string]any{"queue": list})
	return nil
}

func shapeQueue(one *apps.Queue, app raw, now time.Time) map[string]any {
	left := max(one.Next.Sub(now).Seconds(), 0)
	if one.Next.IsZero() {
		left = 0
	}
	rejected := []map[string]any{}
	declined := 0
	for _, r := range one.Reasons {
		rejected = append(rejected, map[string]any{"reason": r.Kind, "declined": r.Nodes, "processed": one.Nodes, "text": r.Text})
		declined += r.Nodes
	}
	shape := map[string]any{
		"app": app, "count": one.Count, "since": apps.Stamp(one.Since), "role": "*",
		"delay": map[string]any{"timeLeftSeconds": int(left + 0.999), "overdue": left == 0},
		"processedOffersSummary": map[string]any{
			"processedOffersCount": one.Nodes, "unusedOffersCount": declined, "lastUnusedOfferAt": nil, "lastUsedOfferAt": nil,
			"rejectSummaryLastOffers": rejected, "rejectSummaryLaunchAttempt": rejected,
		},
	}
	if !one.Next.IsZero() {
		shape["nextTry"] = apps.Stamp(one.Next)
	}
	return shape
}

package apps

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/deploy"
	"github.com/weirproject/weir/controller/store"
)

// Event is one event of Marathon's stream.
type Event struct {
	// ID is the revision of the store, a hyphen and a number: the same at every
	// controller, so that a client goes on at another where it was.
	ID   string
	Type string
	Data []byte // JSON
	// Light is Data without the definitions; nil: the same.
	Light []byte
}

// eventsKept are the newest events, for those that come back.
const eventsKept = 5000

// events are made of what changes in the store, in its order.
type events struct {
	ring  []Event
	start string // nothing is known of what was before
	was   any    // what the event being taken replaces
	count int
	at    uint64
}

func newEvents() *events { return &events{} }

func (e *events) begin(revision uint64) {
	e.ring, e.start = nil, fmt.Sprintf("%d-0", revision)
}

// Events after the one of an id, "" for the newest: what is there now, and the
// id to ask with again. gap tells that some are not kept any more.
func (c *Catalog) Events(after string) (list []Event, last string, gap bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ring := c.events.ring
	last = c.events.start
	if len(ring) > 0 {
		last = ring[len(ring)-1].ID
	}
	if after == "" || after == last {
		return nil, last, false
	}
	for i := len(ring) - 1; i >= 0; i-- {
		if ring[i].ID == after {
			return append(list, ring[i+1:]...), last, false
		}
	}
	return append(list, ring...), last, after != c.events.start
}

func (e *events) before(v *View, change *store.Event) {
	e.was = nil
	switch key := change.Key; {
	case strings.HasPrefix(key, taskPrefix):
		if t := v.Tasks[key[len(taskPrefix):]]; t != nil {
			e.was = t
		}
	case strings.HasPrefix(key, deployPrefix):
		if d := v.Deployments[key[len(deployPrefix):]]; d != nil {
			e.was = d
		}
	}
}

func (e *events) after(v *View, change *store.Event, revision uint64) {
	key := change.Key
	switch {
	case strings.HasPrefix(key, appPrefix):
		id := "/" + key[len(appPrefix):]
		if change.Deleted {
			e.add(revision, "app_terminated_event", fields{"appId": id})
		} else if a := v.Apps[id]; a != nil {
			e.add(revision, "api_post_event", fields{"clientIp": "", "uri": "/v2/apps" + id, "appDefinition": a})
		}
	case strings.HasPrefix(key, groupPrefix):
		if g := v.Groups["/"+key[len(groupPrefix):]]; g != nil {
			e.add(revision, "group_change_success", fields{"groupId": g.ID, "version": g.Version})
		}
	case strings.HasPrefix(key, taskPrefix):
		old, _ := e.was.(*Task)
		e.task(revision, old, v.Tasks[key[len(taskPrefix):]])
	case strings.HasPrefix(key, deployPrefix):
		old, _ := e.was.(*deploy.Deployment)
		e.deployment(revision, old, v.Deployments[key[len(deployPrefix):]])
	case strings.HasPrefix(key, endedPrefix):
		if end := v.Ended[key[len(endedPrefix):]]; end != nil && end.Deployment.State == deploy.Done {
			e.add(revision, "deployment_success", fields{"id": end.Deployment.ID, "plan": Plan(&end.Deployment, false)})
		} else if end != nil {
			e.add(revision, "deployment_failed", fields{"id": end.Deployment.ID, "plan": Plan(&end.Deployment, false), "reason": end.Deployment.Reason})
		}
	}
}

type fields map[string]any

func (e *events) add(revision uint64, kind string, data fields) {
	if revision != e.at {
		e.at, e.count = revision, 0
	}
	e.count++
	data["eventType"], data["timestamp"] = kind, Stamp(time.Now())
	text, err := json.Marshal(data)
	if err != nil {
		return // cannot be: all of it was read from JSON
	}
	one := Event{ID: fmt.Sprintf("%d-%d", revision, e.count), Type: kind, Data: text}
	if plan, ok := data["plan"].(map[string]any); ok {
		delete(plan, "original")
		delete(plan, "target")
		one.Light, _ = json.Marshal(data)
	}
	if e.ring = append(e.ring, one); len(e.ring) > 2*eventsKept {
		e.ring = append([]Event(nil), e.ring[len(e.ring)-eventsKept:]...)
	}
}

// Stamp is a time as Marathon writes it.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func (e *events) task(revision uint64, old, t *Task) {
	if t == nil {
		return // what was to be said of it was said when it ended
	}
	if old == nil || old.State() != t.State() {
		e.add(revision, "status_update_event", fields{
			"slaveId": t.Node, "taskId": t.ID, "taskStatus": t.MarathonState(), "message": t.Status.Reason, "appId": t.App,
			"host": t.Host, "ipAddresses": t.IPAddresses(), "ports": t.HostPorts(), "version": t.Version,
		})
		e.add(revision, "instance_changed_event", fields{
			"instanceId": t.Instance(), "condition": t.Condition(), "runSpecId": t.App, "agentId": t.Node, "host": t.Host, "runSpecVersion": t.Version,
		})
	}
	if now := t.Status.Healthy; now != nil && (old == nil || old.Status.Healthy == nil || *old.Status.Healthy != *now) {
		e.add(revision, "health_status_changed_event", fields{"appId": t.App, "taskId": t.ID, "instanceId": t.Instance(), "version": t.Version, "alive": *now})
		e.add(revision, "instance_health_changed_event", fields{"instanceId": t.Instance(), "runSpecId": t.App, "runSpecVersion": t.Version, "healthy": *now})
	}
	if t.Kill != "" && (old == nil || old.Kill == "") && t.Status.Healthy != nil && !*t.Status.Healthy {
		e.add(revision, "unhealthy_task_kill_event", fields{"appId": t.App, "taskId": t.ID, "instanceId": t.Instance(), "version": t.Version, "reason": t.Kill, "host": t.Host, "slaveId": t.Node})
	}
}

func (e *events) deployment(revision uint64, old, d *deploy.Deployment) {
	switch {
	case d == nil: // its Ending is told
	case old == nil:
		e.add(revision, "deployment_info", fields{"plan": Plan(d, true), "currentStep": step(d, d.Current)})
	case old.Current != d.Current:
		e.add(revision, "deployment_step_success", fields{"plan": Plan(d, true), "currentStep": step(d, old.Current)})
		if d.Current < len(d.Steps) {
			e.add(revision, "deployment_info", fields{"plan": Plan(d, true), "currentStep": step(d, d.Current)})
		}
	}
}

func step(d *deploy.Deployment, n int) fields {
	actions := []deploy.Action{}
	if n >= 0 && n < len(d.Steps) {
		actions = d.Steps[n]
	}
	return fields{"actions": actions}
}

// Plan is a deployment as Marathon's events tell it; with whole, the apps before
// and after are in it.
func Plan(d *deploy.Deployment, whole bool) map[string]any {
	steps := []fields{}
	for n := range d.Steps {
		steps = append(steps, step(d, n))
	}
	plan := fields{"id": d.ID, "version": d.Version, "steps": steps}
	if whole {
		from, to := map[string]*api.App{}, map[string]*api.App{}
		for _, c := range d.Changes {
			if c.From != nil {
				from[c.App] = c.From
			}
			if c.To != nil {
				to[c.App] = c.To
			}
		}
		plan["original"], plan["target"] = Tree("/", from, nil, nil), Tree("/", to, nil, nil)
	}
	return plan
}

package marathon

import (
	"encoding/json"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/apps"
)

// task is a task as Marathon shows it.
type task struct {
	ID                 string           `json:"id"`
	AppID              string           `json:"appId"`
	Host               string           `json:"host"`
	Ports              []int            `json:"ports"`
	ServicePorts       []int            `json:"servicePorts"`
	StagedAt           *string          `json:"stagedAt"`
	StartedAt          *string          `json:"startedAt"`
	State              string           `json:"state"`
	Version            string           `json:"version"`
	SlaveID            string           `json:"slaveId"`
	IPAddresses        []apps.IPAddress `json:"ipAddresses"`
	HealthCheckResults []healthResult   `json:"healthCheckResults"`
	LocalVolumes       []struct{}       `json:"localVolumes"`
}

// healthResult is the last result of a check, as Marathon shows it.
type healthResult struct {
	Alive               bool    `json:"alive"`
	ConsecutiveFailures int     `json:"consecutiveFailures"`
	FirstSuccess        *string `json:"firstSuccess"`
	LastFailure         *string `json:"lastFailure"`
	LastSuccess         *string `json:"lastSuccess"`
	LastFailureCause    *string `json:"lastFailureCause"`
	InstanceID          string  `json:"instanceId"`
}

func stamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	text := apps.Stamp(t)
	return &text
}

func shapeTask(v *apps.View, t *apps.Task) task {
	s := task{
		ID: t.ID, AppID: t.App, Host: t.Host, Ports: t.HostPorts(), ServicePorts: []int{}, StagedAt: stamp(t.Launched),
		State: t.MarathonState(), Version: t.Version, SlaveID: t.Node, IPAddresses: t.IPAddresses(), HealthCheckResults: []healthResult{}, LocalVolumes: []struct{}{},
	}
	s.StartedAt = stamp(t.Status.Started)
	if a := v.Launched(t); a != nil {
		s.ServicePorts = apps.ServicePorts(a)
	}
	for _, c := range t.Status.Checks {
		r := healthResult{Alive: c.Healthy, ConsecutiveFailures: c.Failures, InstanceID: t.Instance()}
		if c.Healthy {
			r.LastSuccess, r.FirstSuccess = stamp(c.Last), stamp(c.Last)
		} else {
			r.LastFailure = stamp(c.Last)
			if c.Output != "" {
				r.LastFailureCause = &c.Output
			}
		}
		s.HealthCheckResults = append(s.HealthCheckResults, r)
	}
	return s
}

func shapeTasks(v *apps.View, list []*apps.Task) []task {
	all := make([]task, 0, len(list))
	for _, t := range list {
		all = append(all, shapeTask(v, t))
	}
	return all
}

// embeds are what an answer has beside the definitions.
type embeds struct{ tasks, counts, deployments, failure, readiness, stats bool }

// embedded reads embed=apps.tasks and the like; the prefix is app, apps or
// group.apps.
func embedded(values []string, base embeds) embeds {
	for _, v := range values {
		switch v[lastDot(v)+1:] {
		case "tasks":
			base.tasks = true
		case "counts":
			base.counts = true
		case "deployments":
			base.deployments = true
		case "lastTaskFailure":
			base.failure = true
		case "failures": // of old: tasks, counts, deployments and the failure
			base = embeds{true, true, true, true, base.readiness, base.stats}
		case "readiness":
			base.readiness = true
		case "taskStats":
			base.stats = true
		}
	}
	return base
}

func lastDot(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '.' {
			return i
		}
	}
	return -1
}

// empty are the values of keys that Marathon always answers with.
var empty = map[string]json.RawMessage{
	"labels": json.RawMessage("{}"), "env": json.RawMessage("{}"), "secrets": json.RawMessage("{}"), "constraints": json.RawMessage("[]"),
	"fetch": json.RawMessage("[]"), "healthChecks": json.RawMessage("[]"), "readinessChecks": json.RawMessage("[]"),
	"dependencies": json.RawMessage("[]"), "executor": json.RawMessage(`""`), "acceptedResourceRoles": json.RawMessage(`["*"]`), "role": json.RawMessage(`"*"`),
}

// shapeApp is an app as Marathon shows it.
func shapeApp(v *apps.View, a *api.App, e embeds) (raw, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	out := raw{}
	if err := json.Unmarshal(text, &out); err != nil {
		return nil, err
	}
	for key, value := range empty {
		if out[key] == nil {
			out[key] = value
		}
	}
	set(out, "ports", apps.ServicePorts(a))
	list := v.TasksOf(a.ID)
	if e.counts {
		var staged, running, healthy, unhealthy int
		for _, t := range list {
			count(t, &staged, &running, &healthy, &unhealthy)
		}
		set(out, "tasksStaged", staged)
		set(out, "tasksRunning", running)
		set(out, "tasksHealthy", healthy)
		set(out, "tasksUnhealthy", unhealthy)
	}
	if e.tasks {
		set(out, "tasks", shapeTasks(v, list))
	}
	if e.deployments {
		refs := []Ref{}
		for _, id := range v.Locks(a.ID) {
			refs = append(refs, Ref{id})
		}
		set(out, "deployments", refs)
	}
	if f := v.Failures[a.ID]; e.failure && f != nil {
		set(out, "lastTaskFailure", shapeFailure(f))
	}
	if e.readiness {
		set(out, "readinessCheckResults", readiness(a, list))
	}
	if e.stats {
		set(out, "taskStats", stats(a, list))
	}
	return out, nil
}

func count(t *apps.Task, staged, running, healthy, unhealthy *int) {
	switch s := t.State(); {
	case s == api.TaskStaging || s == api.TaskStarting:
		*staged++
	case s == api.TaskRunning:
		*running++
		if t.Checks > 0 && t.Status.Healthy != nil {
			if *t.Status.Healthy {
				*healthy++
			} else {
				*unhealthy++
			}
		}
	}
}

func shapeFailure(f *apps.Failure) map[string]any {
	one := apps.Task{ID: f.Task.ID, Node: f.Node, Host: f.Host, Status: f.Task}
	return map[string]any{
		"appId": f.Task.App, "host": f.Host, "message": f.Task.Reason, "state": one.MarathonState(), "taskId": f.Task.ID,
		"timestamp": apps.Stamp(f.At), "version": f.Version, "slaveId": f.Node,
	}
}

func readiness(a *api.App, list []*apps.Task) []map[string]any {
	all := []map[string]any{}
	for _, t := range list {
		if t.Status.Ready != nil && len(a.ReadinessChecks) > 0 {
			all = append(all, map[string]any{"name": a.ReadinessChecks[0].Name, "taskId": t.ID, "ready": *t.Status.Ready})
		}
	}
	return all
}

// stats are counts and life times of the tasks: of all, of the newest version,
// and of older ones.
func stats(a *api.App, list []*apps.Task) map[string]any {
	now := time.Now()
	of := func(keep func(*apps.Task) bool) map[string]any {
		var staged, running, healthy, unhealthy, n int
		var life float64
		for _, t := range list {
			if !keep(t) {
				continue
			}
			count(t, &staged, &running, &healthy, &unhealthy)
			if !t.Status.Started.IsZero() {
				n++
				life += now.Sub(t.Status.Started).Seconds()
			}
		}
		s := map[string]any{"counts": map[string]int{"staged": staged, "running": running, "healthy": healthy, "unhealthy": unhealthy}}
		if n > 0 {
			s["lifeTime"] = map[string]float64{"averageSeconds": life / float64(n)}
		}
		return map[string]any{"stats": s}
	}
	newest := ""
	if a.VersionInfo != nil {
		newest = a.VersionInfo.LastConfigChangeAt
	}
	return map[string]any{
		"totalSummary": of(func(*apps.Task) bool { return true }),
		"startedAfterLastScaling": of(func(t *apps.Task) bool {
			return a.VersionInfo != nil && apps.Stamp(t.Launched) >= a.VersionInfo.LastScalingAt
		}),
		"withLatestConfig":   of(func(t *apps.Task) bool { return t.Version == newest }),
		"withOutdatedConfig": of(func(t *apps.Task) bool { return t.Version != newest }),
	}
}

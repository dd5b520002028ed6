package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

// Plan is how to get from one group to another: what goes is stopped first, then
// each app follows those that it depends on. Apps are completed, and have their
// versions. An error names a circle of dependencies.
func Plan(from, to Group, id string, now time.Time) (Deployment, error) {
	before, after := from.flat(), to.flat()
	var changes []Change
	for _, app := range union(before, after) {
		c := Change{App: app, From: before[app].app(), To: after[app].app()}
		if c.From != nil && c.To != nil && c.From.Version == c.To.Version && reflect.DeepEqual(c.From, c.To) {
			continue
		}
		changes = append(changes, c)
	}
	known := map[string]bool{}
	for _, c := range changes {
		known[c.App] = true
	}
	for i := range changes {
		c := &changes[i]
		requires := slices.Concat(before[c.App].closure(before, nil), after[c.App].closure(after, nil))
		slices.Sort(requires)
		requires = slices.Compact(requires)
		c.Requires = slices.DeleteFunc(requires, func(app string) bool { return !known[app] || app == c.App })
	}
	if circle := circleIn(after); circle != nil {
		return Deployment{}, fmt.Errorf("plan deployment: apps depend on each other in a circle: %s", strings.Join(circle, " -> "))
	}
	return build(changes, id, now), nil
}

// build orders changes into steps.
func build(changes []Change, id string, now time.Time) Deployment {
	d := Deployment{ID: id, Version: now.UTC().Format("2006-01-02T15:04:05.000Z"), Changes: changes, State: Running, Started: now}
	var starts []Action
	var fades, grows []Change
	for _, c := range changes {
		switch {
		case c.To == nil || c.From != nil && c.To.Instances == 0 && c.From.Instances != 0:
			fades = append(fades, c)
		default:
			grows = append(grows, c)
			if c.From == nil {
				starts = append(starts, Action{Start, c.App})
			}
		}
	}
	down := layers(fades)
	slices.Reverse(down)
	d.Steps = down
	if len(starts) > 0 {
		d.Steps = append(d.Steps, starts)
	}
	d.Steps = append(d.Steps, layers(grows)...)
	return d
}

// layers are the actions of changes, each after those of what it depends on.
func layers(changes []Change) [][]Action {
	depth := map[string]int{}
	byApp := map[string]*Change{}
	for i := range changes {
		byApp[changes[i].App] = &changes[i]
	}
	// No way through n changes is longer than n: more is a circle, such as of
	// what was and what will be together, and its members go at once.
	for range changes {
		moved := false
		for i := range changes {
			for _, r := range changes[i].Requires {
				if byApp[r] != nil && depth[r] >= depth[changes[i].App] && depth[r] < len(changes) {
					depth[changes[i].App] = depth[r] + 1
					moved = true
				}
			}
		}
		if !moved {
			break
		}
	}
	steps := map[int][]Action{}
	for i := range changes {
		c := &changes[i]
		steps[depth[c.App]] = append(steps[depth[c.App]], Action{c.action(), c.App})
	}
	var all [][]Action
	for _, at := range slices.Sorted(maps.Keys(steps)) {
		all = append(all, steps[at])
	}
	return all
}

func (c *Change) action() ActionType {
	switch {
	case c.To == nil:
		return Stop
	case c.From == nil || scheduler.Version(c.From) == scheduler.Version(c.To):
		return Scale
	}
	return Restart
}

// onlyWords tells whether the change needs nothing of any task: other labels,
// say.
func (c *Change) onlyWords() bool {
	return c.From != nil && c.To != nil && c.action() == Scale && c.From.Instances == c.To.Instances
}

// SameTasks tells whether a's tasks are b's too, so that nothing need restart:
// whether they differ in labels, amounts of instances and what else is about
// the app and not about its tasks. Marathon restarts for most of these.
func SameTasks(a, b *api.App) bool {
	// As JSON, since what is empty is what is not there.
	x, errX := json.Marshal(bare(a))
	y, errY := json.Marshal(bare(b))
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// bare is an app without what tasks do not depend on.
func bare(a *api.App) api.App {
	b := *a
	b.Instances, b.Labels, b.Dependencies, b.UpgradeStrategy = 0, nil, nil, nil
	b.BackoffSeconds, b.BackoffFactor, b.MaxLaunchDelaySeconds = nil, nil, nil
	b.KillSelection, b.UnreachableStrategy, b.Version, b.VersionInfo = "", nil, "", nil
	b.ProgressDeadlineSeconds, b.Canary, b.BlueGreen, b.Spread = nil, nil, false, nil
	b.PortDefinitions = slices.Clone(a.PortDefinitions)
	for i := range b.PortDefinitions {
		b.PortDefinitions[i].Labels = nil
	}
	if a.Container != nil {
		c := *a.Container
		c.PortMappings = slices.Clone(c.PortMappings)
		for i := range c.PortMappings {
			c.PortMappings[i].Labels, c.PortMappings[i].ServicePort = nil, 0
		}
		b.Container = &c
	}
	return b
}

// Reverse takes a deployment back, from wherever it is: what it has begun is
// undone, and what it has not is left alone.
func (d Deployment) Reverse(id string, now time.Time) Deployment {
	changes := make([]Change, len(d.Changes))
	for i, c := range d.Changes {
		changes[i] = Change{App: c.App, From: c.To, To: c.From, Requires: c.Requires}
	}
	back := build(changes, id, now)
	back.RollbackOf = d.ID
	return back
}

// Promote lets an app go on from its canaries to the rest.
func (d Deployment) Promote(app string) Deployment {
	if !slices.Contains(d.Promoted, app) {
		d.Promoted = append(slices.Clone(d.Promoted), app)
	}
	return d
}

// Apps are the ids of the apps that the deployment changes, which it locks.
func (d Deployment) Apps() []string {
	ids := make([]string, len(d.Changes))
	for i, c := range d.Changes {
		ids[i] = c.App
	}
	return ids
}

// Conflicts are the deployments, of those that run, that lock an app of d.
func (d Deployment) Conflicts(running []Deployment) []Deployment {
	mine := d.Apps()
	var all []Deployment
	for _, r := range running {
		if r.State == Running && r.ID != d.ID && slices.ContainsFunc(r.Apps(), func(app string) bool { return slices.Contains(mine, app) }) {
			all = append(all, r)
		}
	}
	return all
}

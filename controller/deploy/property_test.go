package deploy_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/deploy"
	"github.com/weirproject/weir/controller/scheduler"
)

// Whatever new tasks do, the old ones hold the floor and all together stay below
// the ceiling; and when tasks behave again, the deployment ends.
func TestUpgradeHoldsFloorAndCeilingWhateverTasksDo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, 3)
		size := rapid.IntRange(1, 8).Draw(rt, "size")
		least := float64(rapid.IntRange(0, 10).Draw(rt, "least")) / 10
		over := float64(rapid.IntRange(0, 10).Draw(rt, "over")) / 10
		v1, v2 := app("/web", size, "1"), app("/web", size, "2", strategy(least, over), checked)
		w.start(v1)
		floor, ceiling := limits(size, least, over)
		wild := true
		w.outcome = func(i *scheduler.Instance) {
			if i.Version == "1" || !wild || i.Stopping() && rapid.Bool().Draw(rt, "ends") {
				behave(i)
				return
			}
			no, yes := false, true
			switch rapid.IntRange(0, 4).Draw(rt, "outcome") {
			case 0:
				i.State = api.TaskFailed
			case 1:
				i.State, i.Healthy, i.Checks = api.TaskRunning, &no, []api.CheckStatus{{Failures: 3}}
			case 2, 3:
				i.State, i.Healthy, i.Checks = api.TaskRunning, &yes, []api.CheckStatus{{Healthy: true}}
			}
		}
		// New ones that stop serving by themselves are not the deployment's doing:
		// what counts is what it ends itself.
		d := plan(t, group(v1), group(v2))
		for n := range 60 {
			wild = n < 30
			r := w.advance(d)
			d = r.Deployment
			_, _, before := w.versions("/web")
			w.place(r.Targets)
			all, total, after := w.versions("/web")
			if after < min(before, floor) {
				rt.Fatalf("%d served, %d do after the plan; the floor is %d: %v", before, after, floor, all)
			}
			if total > ceiling {
				rt.Fatalf("there are %d, the ceiling is %d: %v", total, ceiling, all)
			}
			if d.State != deploy.Running {
				break
			}
			w.pass()
		}
		if d.State != deploy.Done {
			rt.Fatalf("with tasks that behave it waits for %s", d.Wait())
		}
	})
}

func checked(a *api.App) { a.HealthChecks = []api.AppCheck{{Protocol: "HTTP"}} }

// limits are what the two shares mean, in tenths so that nothing is rounded.
func limits(size int, least, over float64) (floor, ceiling int) {
	floor = (size*int(least*10+0.5) + 9) / 10
	ceiling = size * (10 + int(over*10+0.5)) / 10
	if floor == ceiling {
		ceiling++
	}
	return floor, ceiling
}

// Every app comes after those that it depends on, and goes before them; and with
// tasks that behave, every deployment ends with what was asked for.
func TestEveryDeploymentEndsInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		from, to := drawGroup(rt, "from", "1"), drawGroup(rt, "to", "2")
		w := newWorld(t, 3)
		r := w.run(plan(t, deploy.Group{ID: "/"}, from), 60)
		if r.Deployment.State != deploy.Done {
			rt.Fatalf("at first it waits for %s", r.Deployment.Wait())
		}
		d := plan(t, from, to)
		w.after = func() { w.checkOrder(rt, to) }
		if r = w.run(d, 100); r.Deployment.State != deploy.Done {
			rt.Fatalf("steps %s: it waits for %s", steps(d), r.Deployment.Wait())
		}
		for _, a := range to.Apps {
			if all, total, _ := w.versions(a.ID); total != int(a.Instances) || all[a.Version] != total {
				rt.Fatalf("of %s there are %v", a.ID, all)
			}
		}
		for _, i := range w.state.Instances {
			if !slices.ContainsFunc(to.Apps, func(a api.App) bool { return a.ID == i.App }) {
				rt.Fatalf("%s is left", i.ID)
			}
		}
	})
}

// drawGroup is of some of five apps; those with higher numbers may depend on
// those with lower ones.
func drawGroup(rt *rapid.T, label, version string) deploy.Group {
	g := deploy.Group{ID: "/"}
	for n := range 5 {
		if !rapid.Bool().Draw(rt, label) {
			continue
		}
		a := app(fmt.Sprintf("/a%d", n), rapid.IntRange(0, 3).Draw(rt, "instances"), version)
		for k := range n {
			if rapid.IntRange(0, 2).Draw(rt, "depends") == 0 {
				a.Dependencies = append(a.Dependencies, fmt.Sprintf("/a%d", k))
			}
		}
		g.Apps = append(g.Apps, a)
	}
	return g
}

// checkOrder sees that a new version runs only when what it depends on does.
func (w *world) checkOrder(rt *rapid.T, to deploy.Group) {
	for _, a := range to.Apps {
		if all, _, _ := w.versions(a.ID); all[a.Version] == 0 {
			continue
		}
		for _, d := range a.Dependencies {
			at := slices.IndexFunc(to.Apps, func(b api.App) bool { return b.ID == d })
			if at < 0 {
				continue
			}
			if _, _, serving := w.versions(d); serving < int(to.Apps[at].Instances) {
				rt.Fatalf("%s runs, and of %s only %d do", a.ID, d, serving)
			}
		}
	}
}

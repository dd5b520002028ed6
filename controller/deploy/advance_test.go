package deploy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/deploy"
	"github.com/weirproject/weir/controller/scheduler"
)

func TestUpgradeKeepsFloorAndCeiling(t *testing.T) {
	for _, c := range []struct {
		n              int
		least, over    float64
		floor, ceiling int
	}{
		{4, 1, 0.5, 4, 6}, {4, 1, 1, 4, 8}, {4, 0.5, 0, 2, 4}, {4, 0, 0, 0, 4}, {4, 1, 0, 4, 5}, {10, 0.7, 0.1, 7, 11}, {1, 1, 0, 1, 2}, {3, 0.5, 0.5, 2, 4},
	} {
		w := newWorld(t, 3)
		v1, v2 := app("/web", c.n, "1"), app("/web", c.n, "2", strategy(c.least, c.over))
		w.start(v1)
		least, most := c.n, 0
		w.after = func() {
			_, total, serving := w.versions("/web")
			least, most = min(least, serving), max(most, total)
		}
		r := w.run(plan(t, group(v1), group(v2)), 60)
		if all, _, _ := w.versions("/web"); r.Deployment.State != deploy.Done || all["2"] != c.n || len(all) != 1 {
			t.Errorf("%+v: deployment is %s with %v: %s", c, r.Deployment.State, all, r.Deployment.Wait())
		}
		if least < c.floor || most > c.ceiling {
			t.Errorf("%+v: from %d that serve to %d in all", c, least, most)
		}
	}
}

func TestUpgradeReplacesUnhealthyOnesFirst(t *testing.T) {
	w := newWorld(t, 2)
	v1, v2 := app("/web", 4, "1"), app("/web", 4, "2", strategy(1, 0.25))
	w.start(v1)
	no := false
	w.state.Instances[2].Healthy = &no
	sick := w.state.Instances[2].ID
	w.after = func() {
		all, _, serving := w.versions("/web")
		if all["1"] < 4 && w.find(sick).ID == sick && !w.find(sick).Stopping() {
			t.Fatalf("healthy ones went before %s", sick)
		}
		if serving < 3 {
			t.Fatalf("%d serve", serving)
		}
	}
	r := w.advance(plan(t, group(v1), group(v2)))
	w.place(r.Targets)
	w.pass()
	w.place(w.advance(r.Deployment).Targets)
	if !w.find(sick).Stopping() {
		t.Errorf("%s is still wanted", sick)
	}
}

func TestDependentAppWaitsUntilTheOtherServes(t *testing.T) {
	w := newWorld(t, 2)
	slow := true
	w.outcome = func(i *scheduler.Instance) {
		if i.App != "/db" || !slow {
			behave(i)
		}
	}
	d := plan(t, group(), group(app("/db", 1, "1"), app("/web", 1, "1", after("/db"))))
	r := w.run(d, 5)
	if _, total, _ := w.versions("/web"); total != 0 || !strings.Contains(r.Deployment.Wait(), "/db: 0 of 1") {
		t.Errorf("web has %d instances before db serves; it waits for %q", total, r.Deployment.Wait())
	}
	slow = false
	if r = w.run(r.Deployment, 10); r.Deployment.State != deploy.Done {
		t.Errorf("deployment waits for %s", r.Deployment.Wait())
	}
}

func TestNewVersionThatNeverServesIsRolledBack(t *testing.T) {
	w := newWorld(t, 2)
	deadline := 20.0
	v1, v2 := app("/web", 4, "1"), app("/web", 4, "2", strategy(1, 0.5), func(a *api.App) { a.ProgressDeadlineSeconds = &deadline })
	w.start(v1)
	w.outcome = func(i *scheduler.Instance) {
		if i.Version == "1" || i.Stopping() {
			behave(i)
		}
	}
	w.after = func() {
		if _, _, serving := w.versions("/web"); serving < 4 {
			t.Fatalf("only %d serve", serving)
		}
	}
	r := w.run(plan(t, group(v1), group(v2)), 60)
	if r.Deployment.State != deploy.Failed || !strings.Contains(r.Deployment.Reason, "app /web made no progress for 20s: 0 of 4 new instances serve") {
		t.Fatalf("deployment is %s: %s", r.Deployment.State, r.Deployment.Reason)
	}
	if r.Rollback == nil || r.Rollback.RollbackOf != "d1" {
		t.Fatal("nothing is taken back")
	}
	r = w.run(*r.Rollback, 60)
	if all, _, _ := w.versions("/web"); r.Deployment.State != deploy.Done || all["1"] != 4 || len(all) != 1 {
		t.Errorf("after the rollback there are %v", all)
	}
}

func TestNewAppThatNeverServesFailsAndStays(t *testing.T) {
	w := newWorld(t, 1)
	w.outcome = func(*scheduler.Instance) {}
	v1 := app("/web", 1, "1")
	r := w.run(plan(t, group(), group(v1)), 700)
	if r.Deployment.State != deploy.Failed || r.Rollback != nil || len(r.Targets) != 1 || r.Targets[0].Count != 1 {
		t.Errorf("deployment is %+v, rollback %v", r.Deployment, r.Rollback)
	}
}

func TestCancelGoesBackAndForceLeavesWhatIsThere(t *testing.T) {
	w := newWorld(t, 2)
	v1, v2 := app("/web", 4, "1"), app("/web", 4, "2", strategy(0.5, 0))
	w.start(v1)
	w.outcome = func(i *scheduler.Instance) {
		if i.Version == "1" || i.Stopping() {
			behave(i)
		}
	}
	r := w.run(plan(t, group(v1), group(v2)), 5)
	if all, _, _ := w.versions("/web"); all["1"] != 2 || all["2"] != 2 {
		t.Fatalf("in the middle there are %v", all)
	}
	// With force nothing changes, and only what ends is replaced.
	w.place(deploy.Steady(&v2, w.state.Instances))
	w.pass()
	if all, _, _ := w.versions("/web"); all["1"] != 2 || all["2"] != 2 {
		t.Errorf("after stopping there are %v", all)
	}
	r = w.run(r.Deployment.Reverse("d2", w.now), 10)
	if all, _, _ := w.versions("/web"); r.Deployment.State != deploy.Done || all["1"] != 4 || len(all) != 1 {
		t.Errorf("after going back there are %v", all)
	}
}

func TestScaleAfterAStoppedUpgradeReplacesWhatIsLeft(t *testing.T) {
	w := newWorld(t, 2)
	v1, v2 := app("/web", 4, "1"), app("/web", 4, "2", strategy(1, 0.5))
	w.start(v1)
	w.run(plan(t, group(v1), group(v2)), 2)
	more := app("/web", 5, "3", func(a *api.App) { a.VersionInfo = &api.AppVersionInfo{LastConfigChangeAt: "2"} })
	w.after = func() {
		if _, _, serving := w.versions("/web"); serving < 4 {
			t.Fatalf("only %d serve", serving)
		}
	}
	d := plan(t, group(v2), group(more))
	if r := w.run(d, 20); r.Deployment.State != deploy.Done {
		t.Errorf("deployment waits for %s", r.Deployment.Wait())
	}
	if all, _, _ := w.versions("/web"); all["2"] != 5 || len(all) != 1 {
		t.Errorf("there are %v", all)
	}
}

func TestLabelsChangeWithoutATask(t *testing.T) {
	w := newWorld(t, 1)
	v1 := app("/web", 2, "1")
	w.start(v1)
	no := false
	w.state.Instances[0].Healthy = &no // which is no reason to wait
	v2 := app("/web", 2, "2", func(a *api.App) {
		a.Cmd, a.Labels = v1.Cmd, api.Labels{"team": "a"}
		a.VersionInfo = &api.AppVersionInfo{LastConfigChangeAt: "1"}
	})
	r := w.advance(plan(t, group(v1), group(v2)))
	if p := w.place(r.Targets); r.Deployment.State != deploy.Done || !p.Empty() {
		t.Errorf("deployment is %s with %+v", r.Deployment.State, p)
	}
}

func TestCanaryWaitsToBePromoted(t *testing.T) {
	for name, promote := range map[string]string{"by hand": "manual", "by time": "30s"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			v1, v2 := app("/web", 4, "1"), app("/web", 4, "2", func(a *api.App) {
				a.Canary = &api.AppCanary{Instances: 1, Promote: promote}
				deadline := 10.0
				a.ProgressDeadlineSeconds = &deadline
			})
			w.start(v1)
			r := w.run(plan(t, group(v1), group(v2)), 20)
			if all, _, _ := w.versions("/web"); all["2"] != 1 || all["1"] != 3 || r.Deployment.State != deploy.Running {
				t.Fatalf("before the promotion there are %v, and the deployment is %s", all, r.Deployment.State)
			}
			if promote == "manual" {
				r.Deployment = r.Deployment.Promote("/web")
			} else if r.Next.IsZero() {
				t.Error("nobody will ask when the time has come")
			}
			r = w.run(r.Deployment, 30)
			if all, _, _ := w.versions("/web"); all["2"] != 4 || r.Deployment.State != deploy.Done {
				t.Errorf("after it there are %v, and the deployment is %s", all, r.Deployment.State)
			}
		})
	}
}

func TestBlueGreenSwitchesTrafficWhole(t *testing.T) {
	w := newWorld(t, 2)
	v1, v2 := app("/web", 3, "1"), app("/web", 3, "2", func(a *api.App) { a.BlueGreen = true })
	w.start(v1)
	d := plan(t, group(v1), group(v2))
	var seen []string
	for range 20 {
		r := w.advance(d)
		d = r.Deployment
		traffic := ""
		for _, target := range r.Targets {
			if !target.Held && target.Count > 0 {
				traffic += target.App.Version
				if n, _, _ := w.versions("/web"); target.App.Version == "2" && n["2"] != 3 {
					t.Fatalf("traffic goes to %d new instances", n["2"])
				}
			}
		}
		if len(seen) == 0 || seen[len(seen)-1] != traffic {
			seen = append(seen, traffic)
		}
		if d.State != deploy.Running {
			break
		}
		w.place(r.Targets)
		w.pass()
	}
	if got := strings.Join(seen, " "); got != "1 2" || d.State != deploy.Done {
		t.Errorf("traffic goes to %s, and the deployment is %s: %s", got, d.State, d.Wait())
	}
}

func TestEveryNodeAppIsUpgradedNodeByNode(t *testing.T) {
	w := newWorld(t, 4)
	v1, v2 := app("/agent", int(api.EveryNode), "1"), app("/agent", int(api.EveryNode), "2", strategy(0.5, 0))
	w.start(v1)
	if _, _, serving := w.versions("/agent"); serving != 4 {
		t.Fatalf("%d serve at first", serving)
	}
	w.after = func() {
		if _, total, serving := w.versions("/agent"); serving < 2 || total > 4 {
			t.Fatalf("%d of %d serve", serving, total)
		}
	}
	r := w.run(plan(t, group(v1), group(v2)), 30)
	on := map[string]bool{}
	for _, i := range w.state.Instances {
		on[i.Node] = i.Version == "2"
	}
	if r.Deployment.State != deploy.Done || len(on) != 4 {
		t.Errorf("deployment is %s (%s), nodes are %v", r.Deployment.State, r.Deployment.Wait(), on)
	}
}

func TestLostNodeDoesNotHoldADeployment(t *testing.T) {
	w := newWorld(t, 3)
	v1, v2 := app("/web", 3, "1"), app("/web", 3, "2", strategy(0.5, 0))
	w.start(v1)
	w.state.Nodes[0].Health, w.state.Nodes[0].Since = api.NodeDead, w.now
	w.outcome = func(i *scheduler.Instance) {
		if i.Node != "n0" {
			behave(i)
		}
	}
	if r := w.run(plan(t, group(v1), group(v2)), 90); r.Deployment.State != deploy.Done {
		t.Errorf("after %s the deployment waits for %s", w.now.Sub(epoch).Round(time.Second), r.Deployment.Wait())
	}
}

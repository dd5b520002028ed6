package deploy_test

import (
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/deploy"
)

func after(ids ...string) func(*api.App) { return func(a *api.App) { a.Dependencies = ids } }

func TestStepsFollowDependencies(t *testing.T) {
	db, web := app("/db", 1, "1"), app("/web", 2, "1", after("/db"))
	other := app("/other", 1, "1")
	none := deploy.Group{ID: "/"}
	suspended := func(a api.App) api.App {
		a.Instances, a.Version = 0, "2"
		a.VersionInfo = &api.AppVersionInfo{LastConfigChangeAt: "1"}
		return a
	}
	nested := deploy.Group{ID: "/", Groups: []deploy.Group{
		{ID: "/back", Apps: []api.App{app("/back/db", 1, "1"), app("/back/queue", 1, "1")}},
		{ID: "/front", Dependencies: []string{"/back"}, Apps: []api.App{app("/front/web", 1, "1")}},
	}}
	for _, c := range []struct {
		name     string
		from, to deploy.Group
		want     string
	}{
		{"nothing", group(db), group(db), ""},
		{"start", none, group(db, web, other), "Start /db, Start /other, Start /web | Scale /db, Scale /other | Scale /web"},
		{"stop", group(db, web), none, "Stop /web | Stop /db"},
		{"suspend", group(db, web), group(suspended(db), suspended(web)), "Scale /web | Scale /db"},
		{"resume", group(suspended(db), suspended(web)), group(db, web), "Scale /db | Scale /web"},
		{"upgrade", group(db, web, other), group(app("/db", 1, "2"), app("/web", 2, "2", after("/db")), other), "Restart /db | Restart /web"},
		{"of groups", none, nested, "Start /back/db, Start /back/queue, Start /front/web | Scale /back/db, Scale /back/queue | Scale /front/web"},
		{"one goes, one comes", group(db), group(web), "Stop /db | Start /web | Scale /web"},
		{"through an app that stays", group(app("/a", 1, "1"), app("/b", 1, "1", after("/a")), app("/c", 1, "1", after("/b"))),
			group(app("/a", 1, "2"), app("/b", 1, "1", after("/a")), app("/c", 1, "2", after("/b"))), "Restart /a | Restart /c"},
	} {
		if got := steps(plan(t, c.from, c.to)); got != c.want {
			t.Errorf("%s: steps are\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestCircleOfDependenciesIsRefused(t *testing.T) {
	_, err := deploy.Plan(deploy.Group{ID: "/"}, group(app("/a", 1, "1", after("/b")), app("/b", 1, "1", after("/c")), app("/c", 1, "1", after("/a"))), "d", epoch)
	if err == nil || !strings.Contains(err.Error(), "/a -> /b -> /c -> /a") {
		t.Errorf("error is %v, want the circle", err)
	}
}

func TestReverseTakesBackEverything(t *testing.T) {
	from := group(app("/db", 1, "1"), app("/old", 1, "1"))
	to := group(app("/db", 1, "2"), app("/new", 1, "1"))
	back := plan(t, from, to).Reverse("d2", epoch)
	if got, want := steps(back), "Stop /new | Start /old | Restart /db, Scale /old"; got != want || back.RollbackOf != "d1" || back.ID != "d2" {
		t.Errorf("reversed, steps are %s of %+v, want %s", got, back, want)
	}
}

func TestDeploymentsThatShareAnAppConflict(t *testing.T) {
	one := plan(t, group(), group(app("/a", 1, "1"), app("/b", 1, "1")))
	two := plan(t, group(), group(app("/b", 1, "1")))
	three := plan(t, group(), group(app("/c", 1, "1")))
	two.ID, three.ID = "d2", "d3"
	if got := two.Conflicts([]deploy.Deployment{one, two, three}); len(got) != 1 || got[0].ID != "d1" {
		t.Errorf("conflicts are %v, want d1", got)
	}
	one.State = deploy.Done
	if got := two.Conflicts([]deploy.Deployment{one}); len(got) != 0 {
		t.Errorf("conflicts with what has ended: %v", got)
	}
}

func TestSameTasks(t *testing.T) {
	base := app("/a", 1, "1", func(a *api.App) {
		a.PortDefinitions = []api.AppPort{{Name: "http", Labels: api.Labels{"VIP_0": "web:80"}}}
	})
	for name, c := range map[string]struct {
		change func(*api.App)
		want   bool
	}{
		"instances":   {func(a *api.App) { a.Instances = 5 }, true},
		"label":       {func(a *api.App) { a.Labels = api.Labels{"a": "b"} }, true},
		"vip":         {func(a *api.App) { a.PortDefinitions = []api.AppPort{{Name: "http", Protocol: "tcp"}} }, true},
		"backoff":     {func(a *api.App) { a.BackoffSeconds = nil }, true},
		"version":     {func(a *api.App) { a.Version = "2" }, true},
		"upgrade":     {strategy(0, 0), true},
		"command":     {func(a *api.App) { a.Cmd = "other" }, false},
		"environment": {func(a *api.App) { a.Env = map[string]any{"A": "1"} }, false},
		"port":        {func(a *api.App) { a.PortDefinitions = []api.AppPort{{Name: "web", Protocol: "tcp"}} }, false},
		"memory":      {func(a *api.App) { a.Mem++ }, false},
		"check":       {func(a *api.App) { a.HealthChecks = []api.AppCheck{{Protocol: "TCP"}} }, false},
		"constraint":  {func(a *api.App) { a.Constraints = [][]string{{"hostname", "UNIQUE"}} }, false},
		"empty lists": {func(a *api.App) { a.Fetch = []api.AppFetch{} }, true},
	} {
		b := base
		c.change(&b)
		if got := deploy.SameTasks(&base, &b); got != c.want {
			t.Errorf("with another %s the tasks are the same: %v, want %v", name, got, c.want)
		}
	}
	if base.PortDefinitions[0].Labels == nil {
		t.Error("comparing took the labels away")
	}
}

package marathon_test

import (
	"testing"

	"github.com/weirproject/weir/api"
)

const web = `{"id": "/web", "cmd": "serve", "instances": 3, "cpus": 0.5, "mem": 64,
	"portDefinitions": [{"port": 0, "name": "http", "labels": {"VIP_0": "/web:80", "VIP_1": "192.168.99.10:80"}}],
	"healthChecks": [{"protocol": "MESOS_HTTP", "path": "/"}], "labels": {"tier": "front"}}`

func TestAppGoesFromItsDefinitionToRunningTasks(t *testing.T) {
	c := newCluster(t, 3)
	status, app, header := c.call("POST", "/service/marathon/v2/apps", web)
	if status != 201 || header.Get("Marathon-Deployment-Id") == "" || header.Get("Location") != "/service/marathon/v2/apps/web" || header.Get("X-Marathon-Leader") != "https://c1:8443" {
		t.Fatalf("got %d %v %v", status, app, header)
	}
	if app["deployments"].([]any)[0].(map[string]any)["id"] != header.Get("Marathon-Deployment-Id") || app["backoffFactor"] != 1.15 {
		t.Errorf("got %v", app)
	}
	c.settled()
	got := c.ok(200, "GET", "/v2/apps/web", "")["app"].(map[string]any)
	if got["tasksRunning"] != 3.0 || got["tasksHealthy"] != 3.0 || got["tasksStaged"] != 0.0 || len(got["tasks"].([]any)) != 3 {
		t.Errorf("got %v", got)
	}
	task := got["tasks"].([]any)[0].(map[string]any)
	if task["state"] != "TASK_RUNNING" || task["appId"] != "/web" || len(task["ports"].([]any)) != 1 || task["startedAt"] == nil {
		t.Errorf("got %v", task)
	}
	c.eventually("the services have their backends", func() bool {
		named, literal := c.service("web.marathon"), c.service("ip-192-168-99-10.marathon")
		return named != nil && literal != nil && len(named.Backends) == 3 && len(literal.Backends) == 3
	})
	if a := c.hub.State().Shared.VIPs["web.marathon"]; !a.V4.IsValid() {
		t.Errorf("the name has no address: %v", c.hub.State().Shared.VIPs)
	}
}

func TestLabelsChangeWithoutARestart(t *testing.T) {
	c := newCluster(t, 2)
	c.ok(201, "POST", "/v2/apps", web)
	c.settled()
	before := map[any]bool{}
	for _, one := range c.tasks("/web") {
		before[one["id"]] = true
	}
	c.ok(200, "PUT", "/v2/apps/web", `{"portDefinitions": [{"port": 0, "name": "http", "labels": {"VIP_0": "/site:80"}}], "labels": {"tier": "back"}}`)
	c.eventually("the VIP is another", func() bool {
		s := c.service("site.marathon")
		return s != nil && len(s.Backends) == 3 && c.service("web.marathon") == nil
	})
	c.settled()
	after := c.tasks("/web")
	for _, one := range after {
		if !before[one["id"]] {
			t.Errorf("task %v is new", one["id"])
		}
	}
	c.eventually("tasks have the new labels", func() bool {
		for _, one := range c.hub.State().Shared.Tasks {
			if one.Labels["tier"] != "back" {
				return false
			}
		}
		return len(after) == 3
	})
}

func TestUpgradeReplacesAllTasks(t *testing.T) {
	c := newCluster(t, 3)
	c.ok(201, "POST", "/v2/apps", web)
	c.settled()
	before := map[any]bool{}
	for _, one := range c.tasks("/web") {
		before[one["id"]] = true
	}
	c.ok(200, "PUT", "/v2/apps/web", `{"cmd": "serve better"}`)
	c.settled()
	c.eventually("only new tasks run", func() bool {
		all := c.tasks("/web")
		for _, one := range all {
			if before[one["id"]] {
				return false
			}
		}
		return len(all) == 3
	})
	if v := c.ok(200, "GET", "/v2/apps/web/versions", "")["versions"].([]any); len(v) != 2 {
		t.Errorf("got versions %v", v)
	}
}

func TestScaleSuspendAndDelete(t *testing.T) {
	c := newCluster(t, 3)
	c.ok(201, "POST", "/v2/apps", web)
	c.settled()
	c.ok(200, "PUT", "/v2/apps/web", `{"instances": 5}`)
	c.settled()
	c.eventually("five run", func() bool { return len(c.tasks("/web")) == 5 })
	c.ok(200, "PUT", "/v2/apps/web", `{"instances": 0}`)
	c.settled()
	c.eventually("none runs, and the name stays", func() bool {
		s := c.service("web.marathon")
		return len(c.tasks("/web")) == 0 && s != nil && len(s.Backends) == 0
	})
	c.ok(200, "DELETE", "/v2/apps/web", "")
	c.ok(404, "GET", "/v2/apps/web", "")
	c.eventually("the services are gone", func() bool { return c.service("web.marathon") == nil })
}

func TestFailedTaskIsReplacedAndRemembered(t *testing.T) {
	c := newCluster(t, 1)
	first := true
	c.mu.Lock()
	well := c.fate
	c.fate = func(s api.TaskSpec) (api.TaskState, *bool) {
		if first {
			first = false
			return api.TaskFailed, nil
		}
		return well(s)
	}
	c.mu.Unlock()
	c.ok(201, "POST", "/v2/apps", `{"id": "/once", "cmd": "x", "backoffSeconds": 0.01}`)
	c.settled()
	app := c.ok(200, "GET", "/v2/apps/once", "")["app"].(map[string]any)
	if app["tasksRunning"] != 1.0 || app["lastTaskFailure"] == nil || app["lastTaskFailure"].(map[string]any)["state"] != "TASK_FAILED" {
		t.Errorf("got %v", app)
	}
}

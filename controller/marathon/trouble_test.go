package marathon_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/apps"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/store"
)

func (c *cluster) judge(node string, h api.NodeHealth) {
	c.t.Helper()
	if _, err := c.store.Commit(context.Background(), nil, []store.Op{{Key: hub.HealthKey(node), Value: []byte(h)}}); err != nil {
		c.t.Fatal(err)
	}
}

func TestTasksOfALostNodeAreReplacedElsewhere(t *testing.T) {
	c := newCluster(t, 2)
	c.ok(201, "POST", "/v2/apps", `{"id": "/a", "cmd": "x", "instances": 2, "constraints": [["hostname", "MAX_PER", "2"]],
		"unreachableStrategy": {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0}, "portDefinitions": [{"port": 0, "labels": {"VIP_0": "/a:80"}}]}`)
	c.settled()
	c.judge("a1", api.NodeDead)
	c.eventually("two run on the other node", func() bool {
		n := 0
		for _, one := range c.tasks("/a") {
			if one["slaveId"] == "a2" && one["state"] == "TASK_RUNNING" {
				n++
			}
		}
		return n == 2
	})
	c.eventually("the service has these two up", func() bool {
		s, up := c.service("a.marathon"), 0
		for _, b := range s.Backends {
			if b.State == "" && b.Node == "a2" {
				up++
			}
		}
		return up == 2
	})
}

func TestVersionThatNeverServesIsTakenBack(t *testing.T) {
	c := newCluster(t, 2)
	c.ok(201, "POST", "/v2/apps", `{"id": "/a", "cmd": "good", "instances": 2, "healthChecks": [{"protocol": "TCP"}]}`)
	c.settled()
	c.mu.Lock()
	well := c.fate
	c.fate = func(s api.TaskSpec) (api.TaskState, *bool) {
		if s.Command == "bad" {
			return api.TaskRunning, new(bool)
		}
		return well(s)
	}
	c.mu.Unlock()
	before := c.tasks("/a")
	begun := c.ok(200, "PUT", "/v2/apps/a", `{"cmd": "bad", "progressDeadlineSeconds": 0.3}`)["deploymentId"].(string)
	c.eventually("the deployment has failed", func() (failed bool) {
		c.catalog.Read(func(v *apps.View) { failed = v.Ended[begun] != nil && v.Ended[begun].Follows != "" })
		return failed
	})
	c.settled()
	app := c.ok(200, "GET", "/v2/apps/a", "")["app"].(map[string]any)
	if app["cmd"] != "good" || app["tasksHealthy"] != 2.0 {
		t.Errorf("got %v", app)
	}
	for _, old := range before {
		found := false
		for _, one := range c.tasks("/a") {
			found = found || one["id"] == old["id"]
		}
		if !found {
			t.Errorf("task %v was replaced though it was good", old["id"])
		}
	}
}

func TestTaskThatItsNodeForgotIsReplaced(t *testing.T) {
	c := newCluster(t, 1)
	c.ok(201, "POST", "/v2/apps", `{"id": "/a", "cmd": "x"}`)
	c.settled()
	first := c.tasks("/a")[0]["id"]
	c.intake.Tell("a1", nil, true)
	c.eventually("another runs", func() bool {
		all := c.tasks("/a")
		return len(all) == 1 && all[0]["id"] != first && all[0]["state"] == "TASK_RUNNING"
	})
}

func TestTaskThatFailsItsChecksIsReplaced(t *testing.T) {
	c := newCluster(t, 1)
	c.ok(201, "POST", "/v2/apps", `{"id": "/a", "cmd": "x", "healthChecks": [{"protocol": "COMMAND", "command": {"value": "y"}, "maxConsecutiveFailures": 2}]}`)
	c.settled()
	first := c.tasks("/a")[0]["id"].(string)
	tell := func(failures int) {
		c.mu.Lock()
		one := c.status[first]
		no := false
		one.Healthy, one.Checks = &no, []api.CheckStatus{{Failures: failures, Last: time.Now()}}
		c.status[first] = one
		c.mu.Unlock()
		c.intake.Tell("a1", []api.TaskStatus{one}, false)
	}
	tell(1)
	c.eventually("it is unhealthy", func() bool {
		return c.ok(200, "GET", "/v2/apps/a", "")["app"].(map[string]any)["tasksUnhealthy"] == 1.0
	})
	if c.tasks("/a")[0]["id"] != first {
		t.Error("it was ended at the first failure")
	}
	tell(2)
	c.eventually("another serves in its place", func() bool {
		all := c.tasks("/a")
		return len(all) == 1 && all[0]["id"] != first && all[0]["state"] == "TASK_RUNNING"
	})
}

func FuzzAppDefinitions(f *testing.F) {
	f.Add(web)
	f.Add(`{"id": "/a", "container": {"docker": {"network": "BRIDGE", "portMappings": [{"containerPort": 1}]}}, "ports": [1], "uris": ["x"]}`)
	f.Add(`{"id": "../..", "instances": "*", "unreachableStrategy": "disabled", "resourceLimits": {"cpus": "x"}}`)
	c := newCluster(f, 0)
	f.Fuzz(func(t *testing.T, text string) {
		w := httptest.NewRecorder()
		c.server.Config.Handler.ServeHTTP(w, httptest.NewRequest("POST", "/v2/apps?dryRun=true&force=true", strings.NewReader(text)))
		if w.Code >= 500 || w.Code == 422 && !strings.Contains(w.Body.String(), `"details"`) {
			t.Errorf("%q: got %d %s", text, w.Code, w.Body)
		}
	})
}

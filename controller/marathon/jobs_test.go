package marathon_test

import (
	"slices"
	"testing"

	"github.com/weirproject/weir/api"
)

const nightly = `{"id": "backup.nightly", "description": "x", "labels": {"a": "b"}, "run": {"cmd": "backup", "cpus": 0.1, "mem": 32, "disk": 0,
	"artifacts": [{"uri": "https://files.example/a.tgz"}], "placement": {"constraints": [{"attribute": "@hostname", "operator": "LIKE", "value": "a.*"}]},
	"restart": {"policy": "ON_FAILURE", "activeDeadlineSeconds": 60}}}`

// finishing has tasks end by themselves, with these states one after the other.
func (c *cluster) finishing(states ...api.TaskState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fate = func(api.TaskSpec) (api.TaskState, *bool) {
		s := states[0]
		if len(states) > 1 {
			states = states[1:]
		}
		return s, nil
	}
}

func TestJobRunsToItsEnd(t *testing.T) {
	c := newCluster(t, 2)
	out := c.ok(201, "POST", "/v1/jobs", nightly)
	if out["id"] != "backup.nightly" || out["run"].(map[string]any)["restart"].(map[string]any)["policy"] != "ON_FAILURE" {
		t.Errorf("got %v", out)
	}
	c.ok(409, "POST", "/v1/jobs", nightly)
	c.finishing(api.TaskFailed, api.TaskFinished)
	run := c.ok(201, "POST", "/v1/jobs/backup.nightly/runs", "")
	c.eventually("the run has succeeded, after a failure", func() bool {
		return c.ok(200, "GET", "/v1/jobs/backup.nightly/runs/"+run["id"].(string), "")["status"] == "SUCCESS"
	})
	got := c.ok(200, "GET", "/v1/jobs/backup.nightly?embed=history&embed=activeRuns&embed=schedules", "")
	if got["history"].(map[string]any)["successCount"] != 1.0 || len(got["activeRuns"].([]any)) != 0 {
		t.Errorf("got %v", got)
	}
	c.eventually("no task is left", func() bool { return len(c.ok(200, "GET", "/v2/tasks", "")["tasks"].([]any)) == 0 })
}

func TestRunIsStopped(t *testing.T) {
	c := newCluster(t, 1)
	c.ok(201, "POST", "/v1/jobs", nightly)
	run := c.ok(201, "POST", "/v1/jobs/backup.nightly/runs", "")["id"].(string)
	c.eventually("it is active", func() bool { return c.ok(200, "GET", "/v1/jobs/backup.nightly/runs/"+run, "")["status"] == "ACTIVE" })
	c.ok(409, "DELETE", "/v1/jobs/backup.nightly", "")
	c.ok(200, "POST", "/v1/jobs/backup.nightly/runs/"+run+"/actions/stop", "")
	c.eventually("it has ended", func() bool { return c.ok(200, "GET", "/v1/jobs/backup.nightly/runs/"+run, "")["status"] == "FAILED" })
	c.ok(200, "DELETE", "/v1/jobs/backup.nightly", "")
	c.ok(404, "GET", "/v1/jobs/backup.nightly", "")
}

func TestSchedulesAreKept(t *testing.T) {
	c := newCluster(t, 0)
	c.ok(201, "POST", "/v1/jobs", nightly)
	c.ok(201, "POST", "/v1/jobs/backup.nightly/schedules", `{"id": "default", "cron": "0 3 * * *", "timezone": "Europe/Berlin", "concurrencyPolicy": "FORBID", "enabled": true}`)
	c.ok(409, "POST", "/v1/jobs/backup.nightly/schedules", `{"id": "default", "cron": "0 3 * * *", "enabled": true}`)
	c.ok(422, "POST", "/v1/jobs/backup.nightly/schedules", `{"id": "x", "cron": "often", "enabled": true}`)
	c.ok(200, "PUT", "/v1/jobs/backup.nightly/schedules/default", `{"cron": "0 4 * * *", "enabled": false}`)
	if s := c.ok(200, "GET", "/v1/jobs/backup.nightly/schedules/default", ""); s["cron"] != "0 4 * * *" || s["enabled"] != false {
		t.Errorf("got %v", s)
	}
	c.ok(200, "DELETE", "/v1/jobs/backup.nightly/schedules/default", "")
	c.ok(404, "GET", "/v1/jobs/backup.nightly/schedules/default", "")
}

func TestWrongJobsAreRefusedByPath(t *testing.T) {
	c := newCluster(t, 0)
	for text, want := range map[string]string{
		`{"id": "A", "run": {"cmd": "x"}}`:                                          "/id",
		`{"id": "a", "run": {}}`:                                                    "/run/cmd",
		`{"id": "a", "run": {"cmd": "x", "secrets": {"a": {"source": "b"}}}}`:       "/run/secrets",
		`{"id": "a", "run": {"cmd": "x", "restart": {"policy": "ALWAYS"}}}`:         "/run/restart/policy",
		`{"id": "a", "run": {"cmd": "x"}, "schedules": [{"id": "s", "cron": "x"}]}`: "/schedules(0)",
		`{"id": "a", "run": {"cmd": "x"}, "dependencies": [{"id": "a"}]}`:           "/dependencies(0)/id",
		`{"id": "a", "run": {"cmd": "x", "color": "red"}}`:                          "/color",
		`{"id": "a", "run": {"cmd": 7}}`:                                            "/run/cmd",
	} {
		status, out, _ := c.call("POST", "/v1/jobs", text)
		details, _ := out["details"].([]any)
		if status != 422 || !slices.ContainsFunc(details, func(d any) bool { return d.(map[string]any)["path"] == want }) {
			t.Errorf("%s: got %d %v, want %s", text, status, out, want)
		}
	}
}

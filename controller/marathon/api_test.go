package marathon_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

func TestDefinitionsOfTheFieldAreTaken(t *testing.T) {
	c := newCluster(t, 0)
	files, err := filepath.Glob("testdata/valid/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("got %d files, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		status, out, _ := c.call("POST", "/v2/apps", string(text))
		if status != 201 {
			t.Errorf("%s: got %d %v", file, status, out)
			continue
		}
		id := out["id"].(string)
		got := c.ok(200, "GET", "/v2/apps"+id, "")["app"]
		back, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		// What was got can be sent back, and changes nothing.
		if status, out, _ := c.call("PUT", "/v2/apps"+id+"?force=true", string(back)); status != 200 {
			t.Errorf("%s sent back: got %d %v", file, status, out)
		}
		if v := c.ok(200, "GET", "/v2/apps"+id+"/versions", "")["versions"].([]any); len(v) != 1 {
			t.Errorf("%s sent back made the versions %v", file, v)
		}
	}
}

func TestWrongDefinitionsAreRefusedByPath(t *testing.T) {
	c := newCluster(t, 0)
	text, err := os.ReadFile("testdata/invalid.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		App    json.RawMessage `json:"app"`
		Status int             `json:"status"`
		Path   string          `json:"path"`
		Error  string          `json:"error"`
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	for _, one := range cases {
		status, out, _ := c.call("POST", "/v2/apps", string(one.App))
		if one.Status == 0 {
			one.Status = 422
		}
		found := false
		details, _ := out["details"].([]any)
		for _, d := range details {
			detail := d.(map[string]any)
			found = found || detail["path"] == one.Path && strings.Contains(detail["errors"].([]any)[0].(string), one.Error)
		}
		if status != one.Status || !found {
			t.Errorf("%s: got %d %v, want %d with %s: %s", one.App, status, out, one.Status, one.Path, one.Error)
		}
	}
	if list := c.ok(200, "GET", "/v2/apps", "")["apps"].([]any); len(list) != 0 {
		t.Errorf("something was made of what was refused: %v", list)
	}
}

func TestWhatIsNoJSONIsABadRequest(t *testing.T) {
	c := newCluster(t, 0)
	for _, text := range []string{"", "{", "[]", `"x"`, "null x"} {
		status, out, _ := c.call("POST", "/v2/apps", text)
		if status != 400 && status != 422 {
			t.Errorf("%q: got %d %v", text, status, out)
		}
	}
	c.ok(405, "DELETE", "/v2/apps", "")
	c.ok(404, "GET", "/v2/nothing", "")
}

func TestLockedAppsAreRefusedUnlessForced(t *testing.T) {
	c := newCluster(t, 0) // so that deployments wait
	c.ok(201, "POST", "/v2/apps", `{"id": "/a", "cmd": "x"}`)
	status, out, _ := c.call("PUT", "/v2/apps/a", `{"instances": 2}`)
	if status != 409 || !strings.HasPrefix(out["message"].(string), "App is locked") || len(out["deployments"].([]any)) != 1 {
		t.Fatalf("got %d %v", status, out)
	}
	c.ok(409, "POST", "/v2/apps", `{"id": "/a", "cmd": "x"}`)
	c.ok(409, "POST", "/v2/apps", `{"id": "/a/b", "cmd": "x"}`)
	c.ok(200, "PUT", "/v2/apps/a?force=true", `{"instances": 2}`)
	list := c.deployments()
	if len(list) != 1 || list[0]["affectedApps"].([]any)[0] != "/a" {
		t.Errorf("got %v", list)
	}
}

func (c *cluster) deployments() []map[string]any {
	c.t.Helper()
	var list []map[string]any
	for _, one := range c.ok(200, "GET", "/v2/deployments", "")["list"].([]any) {
		list = append(list, one.(map[string]any))
	}
	return list
}

func TestDeploymentIsTakenBackOrJustEnded(t *testing.T) {
	c := newCluster(t, 1)
	c.ok(201, "POST", "/v2/apps", `{"id": "/a", "cmd": "x"}`)
	c.settled()
	huge := `{"cmd": "y", "cpus": 1000}` // fits nowhere
	out := c.ok(200, "PUT", "/v2/apps/a", huge)
	status, _, _ := c.call("DELETE", "/v2/deployments/"+out["deploymentId"].(string)+"?force=true", "")
	if status != 202 {
		t.Fatalf("got %d", status)
	}
	if app := c.ok(200, "GET", "/v2/apps/a", "")["app"].(map[string]any); app["cmd"] != "y" || len(app["deployments"].([]any)) != 0 {
		t.Errorf("got %v", app)
	}
	out = c.ok(200, "PUT", "/v2/apps/a", `{"cmd": "z"}`)
	back := c.ok(200, "DELETE", "/v2/deployments/"+out["deploymentId"].(string), "")
	if back["deploymentId"] == out["deploymentId"] || back["version"] == "" {
		t.Errorf("got %v", back)
	}
	if app := c.ok(200, "GET", "/v2/apps/a", "")["app"].(map[string]any); app["cmd"] != "y" {
		t.Errorf("got %v", app)
	}
	c.ok(404, "DELETE", "/v2/deployments/none", "")
}

func TestRollBackToAVersion(t *testing.T) {
	c := newCluster(t, 1)
	first := c.ok(201, "POST", "/v2/apps", `{"id": "/a", "cmd": "x"}`)["version"].(string)
	c.settled()
	c.ok(200, "PUT", "/v2/apps/a", `{"cmd": "y"}`)
	c.settled()
	c.ok(200, "PUT", "/v2/apps/a", `{"version": "`+first+`"}`)
	c.settled()
	if app := c.ok(200, "GET", "/v2/apps/a", "")["app"].(map[string]any); app["cmd"] != "x" || app["version"] == first {
		t.Errorf("got %v", app)
	}
	if v := c.ok(200, "GET", "/v2/apps/a/versions", "")["versions"].([]any); len(v) != 3 {
		t.Errorf("got %v", v)
	}
	if one := c.ok(200, "GET", "/v2/apps/a/versions/"+first, ""); one["cmd"] != "x" {
		t.Errorf("got %v", one)
	}
	c.ok(422, "PUT", "/v2/apps/a", `{"version": "2001-01-01T00:00:00.000Z"}`)
}

func TestGroupsNestAndDeployInOrder(t *testing.T) {
	c := newCluster(t, 2)
	shop := `{"id": "/shop", "groups": [{"id": "db", "apps": [{"id": "pg", "cmd": "x"}]},
		{"id": "front", "dependencies": ["/shop/db"], "apps": [{"id": "web", "cmd": "y"}]}]}`
	dry := c.ok(200, "PUT", "/v2/groups/shop?dryRun=true", shop)
	if len(dry["steps"].([]any)) < 2 || len(c.ok(200, "GET", "/v2/apps", "")["apps"].([]any)) != 0 {
		t.Fatalf("got %v", dry)
	}
	c.ok(201, "POST", "/v2/groups", shop)
	c.ok(409, "POST", "/v2/groups", shop)
	list := c.deployments()
	steps := list[0]["steps"].([]any)
	at := func(app string) int {
		return slices.IndexFunc(steps, func(s any) bool {
			return slices.ContainsFunc(s.(map[string]any)["actions"].([]any), func(a any) bool {
				m := a.(map[string]any)
				return m["app"] == app && m["action"] == "ScaleApplication"
			})
		})
	}
	if at("/shop/db/pg") < 0 || at("/shop/db/pg") >= at("/shop/front/web") {
		t.Errorf("got steps %v", steps)
	}
	c.settled()
	g := c.ok(200, "GET", "/v2/groups/shop", "")
	if len(g["groups"].([]any)) != 2 || g["id"] != "/shop" {
		t.Errorf("got %v", g)
	}
	c.ok(200, "PUT", "/v2/groups/shop", `{"scaleBy": 2}`)
	c.settled()
	if n := len(c.tasks("/shop/front/web")); n != 2 {
		t.Errorf("got %d tasks", n)
	}
	status, out, _ := c.call("PUT", "/v2/groups/shop", `{"id": "/shop", "apps": [{"id": "A", "cmd": "x"}, {"id": "b"}]}`)
	if status != 422 || out["details"].([]any)[0].(map[string]any)["path"] != "/apps(0)/id" {
		t.Errorf("got %d %v", status, out)
	}
	c.ok(200, "DELETE", "/v2/groups/shop", "")
	c.ok(404, "GET", "/v2/groups/shop", "")
	c.settled()
	c.eventually("no task is left", func() bool { return len(c.ok(200, "GET", "/v2/tasks", "")["tasks"].([]any)) == 0 })
	circle := `{"id": "/x", "apps": [{"id": "a", "cmd": "x", "dependencies": ["b"]}, {"id": "b", "cmd": "x", "dependencies": ["a"]}]}`
	c.ok(422, "POST", "/v2/groups", circle)
}

func TestQueueTellsWhyAnAppWaits(t *testing.T) {
	c := newCluster(t, 2)
	c.ok(201, "POST", "/v2/apps", `{"id": "/huge", "cmd": "x", "cpus": 100}`)
	c.eventually("the queue tells why", func() bool {
		list := c.ok(200, "GET", "/v2/queue", "")["queue"].([]any)
		if len(list) != 1 {
			return false
		}
		one := list[0].(map[string]any)
		reasons := one["processedOffersSummary"].(map[string]any)["rejectSummaryLastOffers"].([]any)
		return one["app"].(map[string]any)["id"] == "/huge" && one["count"] == 1.0 && len(reasons) == 1 && reasons[0].(map[string]any)["declined"] == 2.0
	})
	c.ok(204, "DELETE", "/v2/queue/huge/delay", "")
	c.ok(404, "DELETE", "/v2/queue/none/delay", "")
}

func TestTasksAreEndedOnRequest(t *testing.T) {
	c := newCluster(t, 2)
	c.ok(201, "POST", "/v2/apps", `{"id": "/a", "cmd": "x", "instances": 3}`)
	c.settled()
	first := c.tasks("/a")[0]["id"].(string)
	c.ok(200, "DELETE", "/v2/apps/a/tasks/"+first, "")
	c.eventually("another runs in its place", func() bool {
		all := c.tasks("/a")
		return len(all) == 3 && !slices.ContainsFunc(all, func(m map[string]any) bool { return m["id"] == first || m["state"] != "TASK_RUNNING" })
	})
	second := c.tasks("/a")[0]["id"].(string)
	c.ok(200, "POST", "/v2/tasks/delete?scale=true", `{"ids": ["`+second+`"]}`)
	c.settled()
	c.eventually("two are left", func() bool { return len(c.tasks("/a")) == 2 })
	if slices.ContainsFunc(c.tasks("/a"), func(m map[string]any) bool { return m["id"] == second }) {
		t.Errorf("the task that was named is still there")
	}
	c.ok(404, "DELETE", "/v2/apps/a/tasks/none", "")
	c.ok(400, "DELETE", "/v2/apps/a/tasks?scale=true&wipe=true", "")
	r, err := http.NewRequest("GET", c.server.URL+"/v2/tasks", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/plain")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	line, _ := bufio.NewReader(response.Body).ReadString('\n')
	if parts := strings.Split(strings.TrimRight(line, "\n"), "\t"); parts[0] != "a" || parts[1] != "10000" || !strings.HasPrefix(parts[2], "10.0.0.") || len(parts) != 5 {
		t.Errorf("got %q", parts)
	}
}

func TestFiltersAndSelectors(t *testing.T) {
	c := newCluster(t, 0)
	c.ok(201, "POST", "/v2/apps", `{"id": "/a", "cmd": "sleep 1", "labels": {"env": "test", "tier": "front"}}`)
	c.ok(201, "POST", "/v2/apps", `{"id": "/b", "cmd": "nginx", "labels": {"env": "live"}}`)
	for query, want := range map[string]string{
		"": "/a/b", "id=b": "/b", "cmd=sleep": "/a", "label=env==test": "/a", "label=env!=test": "/b", "label=tier": "/a", "label=!tier": "/b",
		"label=env%20in%20(test,live)": "/a/b", "label=env%20notin%20(live)": "/a", "label=env==test,tier==front": "/a", "label=none": "",
	} {
		got := ""
		for _, one := range c.ok(200, "GET", "/v2/apps?"+query, "")["apps"].([]any) {
			got += one.(map[string]any)["id"].(string)
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
	c.ok(400, "GET", "/v2/apps?label=a==b==c", "")
}

func TestEventsComeInOrderAndGoOn(t *testing.T) {
	c := newCluster(t, 1)
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	read := func(last string) *bufio.Scanner {
		r, err := http.NewRequestWithContext(ctx, "GET", c.server.URL+"/v2/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
		if response.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("got %v", response.Header)
		}
		return bufio.NewScanner(response.Body)
	}
	until := func(s *bufio.Scanner, want string) (kinds []string, first string) {
		for s.Scan() {
			if id, ok := strings.CutPrefix(s.Text(), "id: "); ok && first == "" {
				first = id
			}
			if kind, ok := strings.CutPrefix(s.Text(), "event: "); ok {
				if kinds = append(kinds, kind); kind == want {
					return kinds, first
				}
			}
		}
		t.Fatalf("the stream ended before %s: %v", want, kinds)
		return nil, ""
	}
	stream := read("")
	until(stream, "event_stream_attached")
	c.ok(201, "POST", "/v2/apps", `{"id": "/a", "cmd": "x"}`)
	kinds, first := until(stream, "deployment_success")
	at := -1
	for _, want := range []string{"api_post_event", "deployment_info", "status_update_event", "deployment_success"} {
		i := slices.Index(kinds, want)
		if i <= at {
			t.Errorf("%s is not where it should be: %v", want, kinds)
		}
		at = i
	}
	again, _ := until(read(first), "deployment_success")
	if len(again) < 3 {
		t.Errorf("after %s came %v", first, again)
	}
}

func TestWrongVIPLabelCostsTheAppThatVIPOnly(t *testing.T) {
	c := newCluster(t, 1)
	out := c.ok(201, "POST", "/v2/apps", `{"id": "/a", "cmd": "x", "portDefinitions": [{"port": 0, "labels": {"VIP_0": "/x:0", "VIP_1": "/a:80"}}]}`)
	if w := out["warnings"].([]any); len(w) != 1 || !strings.Contains(w[0].(string), "VIP_0") {
		t.Errorf("got %v", out["warnings"])
	}
	c.eventually("the other VIP is there", func() bool { s := c.service("a.marathon"); return s != nil && len(s.Backends) == 1 })
	// "/a/b" and "/ab" are one name in DNS.
	c.ok(201, "POST", "/v2/apps", `{"id": "/b", "cmd": "x", "portDefinitions": [{"port": 0, "labels": {"VIP_0": "/x/y:80"}}]}`)
	status, refused, _ := c.call("POST", "/v2/apps", `{"id": "/c", "cmd": "x", "portDefinitions": [{"port": 0, "labels": {"VIP_0": "/xy:80"}}]}`)
	if status != 422 || refused["details"].([]any)[0].(map[string]any)["path"] != "/portDefinitions(0)/labels/VIP_0" {
		t.Errorf("got %d %v", status, refused)
	}
}

func TestOneVIPOfSeveralAppsAndProtocols(t *testing.T) {
	c := newCluster(t, 2)
	for _, id := range []string{"/one", "/two"} {
		c.ok(201, "POST", "/v2/apps", `{"id": "`+id+`", "cmd": "x", "portDefinitions": [{"port": 0, "protocol": "udp,tcp", "labels": {"VIP_0": "/dns:53", "VIP_1": "/dns:54"}}]}`)
	}
	c.eventually("each VIP has the tasks of both", func() bool {
		n := 0
		for _, s := range c.hub.State().Shared.Services {
			if len(s.Backends) == 2 && s.VIPs[0].Name == "dns" {
				n++
			}
		}
		return n == 4 && len(c.hub.State().Shared.VIPs) == 1
	})
}

func TestSmallerRoutes(t *testing.T) {
	c := newCluster(t, 0)
	if out := c.ok(200, "GET", "/ping", ""); !strings.Contains(out["text"].(string), "pong") {
		t.Errorf("got %v", out)
	}
	if out := c.ok(200, "GET", "/marathon/v2/info", ""); out["leader"] != "https://c1:8443" || out["version"] == "" {
		t.Errorf("got %v", out)
	}
	if out := c.ok(200, "GET", "/v2/leader", ""); out["leader"] != "https://c1:8443" {
		t.Errorf("got %v", out)
	}
	c.ok(200, "GET", "/v2/plugins", "")
	c.ok(200, "GET", "/v2/pods", "")
	c.ok(501, "POST", "/v2/pods", "{}")
	c.ok(404, "DELETE", "/v2/leader", "")
}

func TestUnhealthyTasksGetNoTraffic(t *testing.T) {
	c := newCluster(t, 1)
	c.ok(201, "POST", "/v2/apps", web)
	c.settled()
	full := func(n int) func() bool {
		return func() bool {
			s, up := c.service("web.marathon"), 0
			for i := range s.Backends {
				if s.Backends[i].State == "" {
					up++
				}
			}
			return up == n
		}
	}
	c.eventually("all are up", full(3))
	c.mu.Lock()
	var one api.TaskStatus
	for _, one = range c.status {
		break
	}
	no := false
	one.Healthy, one.Checks = &no, []api.CheckStatus{{Failures: 1, Last: time.Now()}}
	c.status[one.ID] = one
	c.mu.Unlock()
	c.intake.Tell("a1", []api.TaskStatus{one}, false)
	c.eventually("one is drained", full(2))
	yes := true
	one.Healthy, one.Checks = &yes, []api.CheckStatus{{Healthy: true, Last: time.Now()}}
	c.intake.Tell("a1", []api.TaskStatus{one}, false)
	c.eventually("all are up again", full(3))
}

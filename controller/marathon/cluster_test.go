package marathon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/apps"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/marathon"
	"github.com/weirproject/weir/controller/metronome"
	"github.com/weirproject/weir/controller/store"
	"github.com/weirproject/weir/dnsproxy"
)

// cluster is a controller with nodes whose tasks run in words only.
type cluster struct {
	t       testing.TB
	store   *store.Mem
	hub     *hub.Hub
	catalog *apps.Catalog
	intake  *apps.Intake
	server  *httptest.Server

	mu     sync.Mutex
	status map[string]api.TaskStatus // of tasks, by id
	// fate decides what becomes of a task that is started.
	fate func(api.TaskSpec) (api.TaskState, *bool)
}

func newCluster(t testing.TB, nodes int) *cluster {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	c := &cluster{t: t, store: store.NewMem(), status: map[string]api.TaskStatus{}}
	c.fate = func(s api.TaskSpec) (api.TaskState, *bool) {
		healthy := true
		if len(s.Checks) == 0 {
			return api.TaskRunning, nil
		}
		return api.TaskRunning, &healthy
	}
	var err error
	must := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c.hub, err = hub.New(hub.Options{Store: c.store, Log: log})
	must()
	c.catalog, err = apps.NewCatalog(c.store, log)
	must()
	c.intake = apps.NewIntake(c.catalog, c.store, log)
	n := 0
	newID := func() string { n++; return fmt.Sprintf("back-%d", n) }
	loop, err := apps.NewLoop(apps.LoopOptions{
		Catalog: c.catalog, Hub: c.hub, Store: c.store, NewID: newID, Log: log,
		Range: netip.MustParsePrefix("198.18.0.0/15"), Range6: netip.MustParsePrefix("fd77::/112"), Names: dnsproxy.Options{Domain: "weir.internal"},
	})
	must()
	m, err := marathon.New(marathon.Options{Catalog: c.catalog, Log: log, Version: "test", Leader: func(context.Context) string { return "https://c1:8443" }})
	must()
	j, err := metronome.New(metronome.Options{Catalog: c.catalog, Log: log})
	must()
	mux := http.NewServeMux()
	for _, pattern := range marathon.Patterns() {
		mux.Handle(pattern, m)
	}
	for _, pattern := range metronome.Patterns() {
		mux.Handle(pattern, j)
	}
	c.server = httptest.NewServer(mux)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		stop()
		c.server.CloseClientConnections()
		c.server.Close()
		running.Wait()
		c.store.Close()
	})
	for i := range nodes {
		c.addNode(fmt.Sprintf("a%d", i+1), i+1)
	}
	running.Go(func() { _ = c.hub.Run(ctx) })
	running.Go(func() { _ = c.catalog.Run(ctx) })
	running.Go(func() { _ = c.intake.Run(ctx) })
	running.Go(func() { _ = c.store.Lead(ctx, "cluster", "c1", loop.Lead) })
	running.Go(func() { c.agents(ctx) })
	return c
}

func (c *cluster) addNode(name string, i int) {
	entry := hub.NodeEntry{ID: name, Node: api.Node{
		Name: name, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})},
		Resources: api.Resources{CPUs: 8, Memory: 16 << 30, Disk: 100 << 30, Ports: []api.PortSpan{{First: 31000, Last: 32000}}},
	}}
	text, err := json.Marshal(entry)
	if err == nil {
		_, err = c.store.Commit(context.Background(), nil, []store.Op{{Key: hub.NodeKey(name), Value: text}})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// agents do what nodes are told: they start tasks, and end them.
func (c *cluster) agents(ctx context.Context) {
	<-c.hub.Ready()
	for ctx.Err() == nil {
		revision := c.hub.Revision()
		state := c.hub.State()
		for _, n := range state.Shared.Nodes {
			if n.Health == api.NodeDead {
				continue
			}
			var news []api.TaskStatus
			for _, spec := range state.Snapshot(n.Name).Run {
				if s, ok := c.next(spec); ok {
					news = append(news, s)
				}
			}
			if len(news) > 0 {
				c.intake.Tell(n.Name, news, false)
			}
		}
		if c.hub.Wait(ctx, revision+1) != nil {
			return
		}
	}
}

func (c *cluster) next(spec api.TaskSpec) (api.TaskStatus, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, known := c.status[spec.ID]
	switch {
	case spec.Kill && !s.State.Ended():
		s.ID, s.App, s.State, s.Since = spec.ID, spec.App, api.TaskKilled, time.Now().UTC()
	case !known:
		s = api.TaskStatus{ID: spec.ID, App: spec.App, Since: time.Now().UTC(), Started: time.Now().UTC()}
		s.State, s.Healthy = c.fate(spec)
		if spec.Ready != nil {
			ready := true
			s.Ready = &ready
		}
	default:
		return s, false
	}
	c.status[spec.ID] = s
	return s, true
}

// call the API; the answer is decoded where it is JSON.
func (c *cluster) call(method, path, body string) (int, map[string]any, http.Header) {
	c.t.Helper()
	r, err := http.NewRequest(method, c.server.URL+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	_, _ = text.ReadFrom(response.Body)
	var value any
	_ = json.Unmarshal(text.Bytes(), &value)
	out, ok := value.(map[string]any)
	if !ok {
		out = map[string]any{"list": value, "text": text.String()}
	}
	return response.StatusCode, out, response.Header
}

// ok calls and wants a status.
func (c *cluster) ok(want int, method, path, body string) map[string]any {
	c.t.Helper()
	status, out, _ := c.call(method, path, body)
	if status != want {
		c.t.Fatalf("%s %s: got %d %v, want %d", method, path, status, out, want)
	}
	return out
}

// eventually waits until what is asked holds.
func (c *cluster) eventually(what string, holds func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			c.catalog.Read(func(v *apps.View) {
				for _, d := range v.Deployments {
					c.t.Logf("deployment: %+v", d)
				}
				for _, one := range v.Tasks {
					c.t.Logf("task: %+v", one)
				}
				for _, one := range v.Wanted {
					c.t.Logf("wanted: %+v", one.Task)
				}
				for _, one := range v.Histories {
					c.t.Logf("history: %+v", one)
				}
				for _, one := range v.Queues {
					c.t.Logf("queue: %+v", one)
				}
			})
			c.mu.Lock()
			for _, one := range c.status {
				c.t.Logf("status: %+v", one)
			}
			c.mu.Unlock()
			c.t.Fatalf("it is never so: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// settled waits until no deployment runs.
func (c *cluster) settled() {
	c.t.Helper()
	c.eventually("no deployment runs", func() (none bool) {
		c.catalog.Read(func(v *apps.View) { none = len(v.Deployments) == 0 })
		return none
	})
}

// tasks of an app, as the API tells.
func (c *cluster) tasks(app string) []map[string]any {
	c.t.Helper()
	var list []map[string]any
	for _, one := range c.ok(200, "GET", "/v2/apps"+app+"/tasks", "")["tasks"].([]any) {
		list = append(list, one.(map[string]any))
	}
	return list
}

// service in effect.
func (c *cluster) service(key string) *api.Service {
	for _, s := range c.hub.State().Shared.Services {
		if s.Key() == key {
			return &s
		}
	}
	return nil
}

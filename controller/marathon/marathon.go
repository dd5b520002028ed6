// Package marathon answers the API of Marathon, version 2, from the catalog of
// apps: what clients, libraries and files made for Marathon say is understood,
// and what they get back has its shapes, codes and headers. What Weir does not
// do is refused by name. It decides nothing about tasks; every accepted write is
// one transaction of the store, which the leader's loop in package apps finds.
package marathon

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/apps"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/store"
)

// Options of an API.
type Options struct {
	Catalog *apps.Catalog
	// Allow finds who asks and asks the Door; nil: everybody may everything.
	Allow func(r *http.Request, verb auth.Verb, noun string) (auth.Subject, error)
	// Record is the audit record of a write; nil: there are none.
	Record func(r *http.Request, who auth.Subject, verb auth.Verb, noun string) (store.Op, error)
	// Leader is the URL of the controller that leads; empty when none is known.
	Leader func(ctx context.Context) string
	// Abdicate gives the leadership up; nil: it cannot be.
	Abdicate func() bool
	// Networks has the names of the container networks there are; nil: any may be.
	Networks func() map[string]bool
	// NewID makes a deployment's id.
	NewID   func() string
	Version string
	Now     func() time.Time // time.Now when nil
	Log     *slog.Logger
}

// API answers.
type API struct {
	o   Options
	log *slog.Logger
}

// New makes an API of a catalog.
func New(o Options) (*API, error) {
	if o.Catalog == nil || o.Log == nil {
		return nil, errors.New("make the API of Marathon: Catalog and Log are needed")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.NewID == nil {
		o.NewID = newID
	}
	if o.Leader == nil {
		o.Leader = func(context.Context) string { return "" }
	}
	return &API{o: o, log: o.Log.With("component", "marathon")}, nil
}

// Patterns are where the API is to be mounted.
func Patterns() []string {
	return []string{"/service/marathon/", "/marathon/", "/v2/", "/ping"}
}

// maxBody of a request, in bytes.
const maxBody = 4 << 20

// ServeHTTP implements http.Handler.
func (m *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	for _, mount := range []string{"/service/marathon", "/marathon"} {
		if rest, ok := strings.CutPrefix(path, mount); ok && strings.HasPrefix(rest, "/") {
			path = rest
			break
		}
	}
	if leader := m.o.Leader(r.Context()); leader != "" {
		w.Header().Set("X-Marathon-Leader", leader)
	}
	w.Header().Set("X-Marathon-Via", "weir/"+m.o.Version)
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	q := &request{API: m, w: w, r: r, path: path}
	if err := q.route(); err != nil {
		m.fail(w, r, err)
	}
}

// request is one on its way.
type request struct {
	*API
	w    http.ResponseWriter
	r    *http.Request
	path string
	who  auth.Subject
	verb auth.Verb
	noun string
}

// methods of one resource.
type methods map[string]func() error

var verbs = map[string]auth.Verb{
	http.MethodGet: auth.Get, http.MethodHead: auth.Get, http.MethodPost: auth.Create, http.MethodPut: auth.Put, http.MethodPatch: auth.Put, http.MethodDelete: auth.Delete,
}

// do asks the door and calls the method.
func (q *request) do(noun string, all methods) error {
	method := q.r.Method
	if method == http.MethodHead && all[method] == nil {
		method = http.MethodGet
	}
	call := all[method]
	if call == nil {
		return refuse(http.StatusMethodNotAllowed, "%s is not allowed here", q.r.Method)
	}
	q.verb, q.noun = verbs[method], noun
	if q.o.Allow != nil {
		var err error
		if q.who, err = q.o.Allow(q.r, q.verb, noun); err != nil {
			return q.denied(err)
		}
	}
	return call()
}

func (q *request) denied(err error) error {
	var d *auth.Denied
	status := http.StatusUnauthorized
	switch {
	case errors.Is(err, store.ErrUnavailable):
		status = http.StatusServiceUnavailable
	case errors.As(err, &d) && d.Subject.ID != "":
		status = http.StatusForbidden
	}
	if status == http.StatusUnauthorized {
		q.w.Header().Set("WWW-Authenticate", `Bearer realm="weir"`)
	}
	return refuse(status, "%v", err)
}

func (q *request) route() error {
	rest, ok := strings.CutPrefix(q.path, "/v2/")
	if !ok {
		if q.path == "/ping" {
			return q.do(auth.NounHealth, methods{"GET": q.ping})
		}
		return refuse(http.StatusNotFound, "there is no %s", q.path)
	}
	noun, id, _ := strings.Cut(rest, "/")
	id = strings.Trim(id, "/")
	switch noun {
	case "apps":
		return q.routeApps(id)
	case "groups":
		return q.routeGroups(id)
	case "deployments":
		if id == "" {
			return q.do("deployments", methods{"GET": q.listDeployments})
		}
		return q.do("deployments/"+id, methods{"DELETE": func() error { return q.stopDeployment(id) }, "POST": func() error { return q.promote(id) }})
	case "tasks":
		if id == "delete" {
			return q.do("tasks", methods{"POST": q.deleteTasks})
		} else if id == "" {
			return q.do("tasks", methods{"GET": q.listTasks})
		}
	case "queue":
		if app, ok := strings.CutSuffix(id, "/delay"); ok {
			return q.do("apps/"+app, methods{"DELETE": func() error { return q.resetDelay("/" + app) }})
		} else if id == "" {
			return q.do("apps", methods{"GET": q.listQueue})
		}
	case "events":
		if id == "" {
			return q.do("apps", methods{"GET": q.events})
		}
	case "info", "leader", "plugins":
		if id == "" {
			return q.routeInfo(noun)
		}
	case "pods":
		return q.routePods(id)
	}
	return refuse(http.StatusNotFound, "there is no %s", q.path)
}

func (q *request) routeApps(id string) error {
	if id == "" {
		return q.do("apps", methods{"GET": q.listApps, "POST": q.createApp, "PUT": q.putApps, "PATCH": q.putApps})
	}
	app, task := "/"+id, ""
	switch {
	case strings.HasSuffix(app, "/restart"):
		app = strings.TrimSuffix(app, "/restart")
		return q.do("apps"+app, methods{"POST": func() error { return q.restartApp(app) }})
	case strings.HasSuffix(app, "/rebalance"):
		if q.r.Method == http.MethodPost {
			app = strings.TrimSuffix(app, "/rebalance")
			return q.do("apps"+app, methods{"POST": func() error { return q.ask(apps.Ask{App: app, Rebalance: true}) }})
		}
	case strings.HasSuffix(app, "/versions"):
		app = strings.TrimSuffix(app, "/versions")
		return q.do("apps"+app, methods{"GET": func() error { return q.listVersions(app) }})
	case strings.Contains(app, "/versions/"):
		app, version, _ := strings.Cut(app, "/versions/")
		return q.do("apps"+app, methods{"GET": func() error { return q.showVersion(app, version) }})
	case strings.HasSuffix(app, "/tasks"):
		app = strings.TrimSuffix(app, "/tasks")
		return q.do("apps"+app, methods{"GET": func() error { return q.tasksOf(app) }, "DELETE": func() error { return q.deleteTasksOf(app, "") }})
	case strings.Contains(app, "/tasks/"):
		app, task, _ = strings.Cut(app, "/tasks/")
		return q.do("apps"+app, methods{"DELETE": func() error { return q.deleteTasksOf(app, task) }})
	}
	return q.do("apps"+app, methods{
		"GET": func() error { return q.showApp(app) }, "PUT": func() error { return q.putApp(app, q.flag("partialUpdate", true)) },
		"PATCH": func() error { return q.putApp(app, true) }, "DELETE": func() error { return q.deleteApp(app) },
	})
}

// flag of the query.
func (q *request) flag(name string, otherwise bool) bool {
	switch value := q.r.URL.Query().Get(name); {
	case value == "true", value == "" && q.r.URL.Query().Has(name):
		return true
	case value == "false":
		return false
	}
	return otherwise
}

// networks that an app names must be there.
func (m *API) checkNetworks(list []Detail, below string, a *api.App) []Detail {
	if m.o.Networks == nil {
		return list
	}
	known := m.o.Networks()
	for i, n := range a.Networks {
		if n.Name != "" && !known[n.Name] {
			list = add(list, below+pathOf("networks["+itoa(i)+"].name"), "there is no network \""+n.Name+"\"")
		}
	}
	return list
}

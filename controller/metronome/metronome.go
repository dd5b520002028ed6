// Package metronome answers the API of Metronome, /v1/jobs, from the catalog of
// apps: jobs that run to their end, at once or by a schedule. Every write is one
// transaction of the store, which the leader's loop in package apps finds.
package metronome

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/controller/apps"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/jobs"
	"github.com/weirproject/weir/controller/store"
)

// Options of an API.
type Options struct {
	Catalog *apps.Catalog
	// Allow finds who asks and asks the Door; nil: everybody may everything.
	Allow func(r *http.Request, verb auth.Verb, noun string) (auth.Subject, error)
	// Record is the audit record of a write; nil: there are none.
	Record func(r *http.Request, who auth.Subject, verb auth.Verb, noun string) (store.Op, error)
	Now    func() time.Time // time.Now when nil
	Log    *slog.Logger
}

// API answers.
type API struct {
	o   Options
	log *slog.Logger
}

// New makes an API of a catalog.
func New(o Options) (*API, error) {
	if o.Catalog == nil || o.Log == nil {
		return nil, errors.New("make the API of Metronome: Catalog and Log are needed")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &API{o: o, log: o.Log.With("component", "metronome")}, nil
}

// Patterns are where the API is to be mounted.
func Patterns() []string { return []string{"/v1/jobs", "/v1/jobs/", "/service/metronome/v1/"} }

// refusal is an answer that is none.
type refusal struct {
	status  int
	Message string   `json:"message"`
	Details []detail `json:"details,omitempty"`
}

type detail struct {
	Path   string   `json:"path"`
	Errors []string `json:"errors"`
}

func (r *refusal) Error() string {
	text := r.Message
	for _, d := range r.Details {
		text += fmt.Sprintf("; %s: %s", d.Path, strings.Join(d.Errors, ", "))
	}
	return text
}

func refuse(status int, format string, args ...any) error {
	return &refusal{status: status, Message: fmt.Sprintf(format, args...)}
}

// maxBody of a request, in bytes.
const maxBody = 4 << 20

// ServeHTTP implements http.Handler.
func (m *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	path := strings.TrimPrefix(r.URL.Path, "/service/metronome")
	rest, ok := strings.CutPrefix(path, "/v1/jobs")
	err := error(refuse(http.StatusNotFound, "there is no %s", r.URL.Path))
	if ok {
		err = (&request{API: m, w: w, r: r}).route(strings.Split(strings.Trim(rest, "/"), "/"))
	}
	if err == nil {
		return
	}
	var known *refusal
	var denied *auth.Denied
	switch {
	case errors.As(err, &known):
	case errors.As(err, &denied) && denied.Subject.ID != "":
		known = &refusal{status: http.StatusForbidden, Message: err.Error()}
	case errors.As(err, &denied), errors.Is(err, auth.ErrUnauthenticated), errors.Is(err, auth.ErrRevoked):
		w.Header().Set("WWW-Authenticate", `Bearer realm="weir"`)
		known = &refusal{status: http.StatusUnauthorized, Message: err.Error()}
	case errors.Is(err, store.ErrUnavailable):
		known = &refusal{status: http.StatusServiceUnavailable, Message: err.Error()}
	default:
		m.log.Error("request failed", "path", r.URL.Path, "error", err)
		known = &refusal{status: http.StatusInternalServerError, Message: err.Error()}
	}
	send(w, known.status, known)
}

func send(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // who asked has gone
}

// request is one on its way.
type request struct {
	*API
	w    http.ResponseWriter
	r    *http.Request
	who  auth.Subject
	verb auth.Verb
	noun string
}

type methods map[string]func() error

var verbs = map[string]auth.Verb{http.MethodGet: auth.Get, http.MethodPost: auth.Create, http.MethodPut: auth.Put, http.MethodDelete: auth.Delete}

func (q *request) do(job string, all methods) (err error) {
	call := all[q.r.Method]
	if call == nil {
		return refuse(http.StatusMethodNotAllowed, "%s is not allowed here", q.r.Method)
	}
	q.verb, q.noun = verbs[q.r.Method], "jobs/"+job
	if q.o.Allow != nil {
		if q.who, err = q.o.Allow(q.r, q.verb, q.noun); err != nil {
			return err
		}
	}
	return call()
}

func (q *request) route(parts []string) error {
	id := parts[0]
	at := func(n int, words ...string) bool {
		return len(parts) == n && slices.Equal(words, parts[1:min(1+len(words), len(parts))])
	}
	switch {
	case len(parts) == 1 && id == "":
		return q.do("", methods{"GET": q.list, "POST": q.create})
	case len(parts) == 1:
		return q.do(id, methods{"GET": func() error { return q.show(id) }, "PUT": func() error { return q.put(id) }, "DELETE": func() error { return q.remove(id) }})
	case at(2, "schedules"):
		return q.do(id, methods{"GET": func() error { return q.listSchedules(id) }, "POST": func() error { return q.putSchedule(id, "") }})
	case at(3, "schedules"):
		return q.do(id, methods{
			"GET": func() error { return q.showSchedule(id, parts[2]) }, "PUT": func() error { return q.putSchedule(id, parts[2]) },
			"DELETE": func() error { return q.removeSchedule(id, parts[2]) },
		})
	case at(2, "runs"):
		return q.do(id, methods{"GET": func() error { return q.listRuns(id) }, "POST": func() error { return q.startRun(id) }})
	case at(3, "runs"):
		return q.do(id, methods{"GET": func() error { return q.showRun(id, parts[2]) }})
	case len(parts) == 5 && parts[1] == "runs" && parts[3] == "actions" && parts[4] == "stop":
		return q.do(id, methods{"POST": func() error { return q.stopRun(id, parts[2]) }})
	}
	return refuse(http.StatusNotFound, "there is no %s", q.r.URL.Path)
}

// body reads JSON, strictly.
func body[T any](q *request) (T, error) {
	var value T
	text, err := io.ReadAll(q.r.Body)
	if err != nil {
		return value, refuse(http.StatusRequestEntityTooLarge, "read the body: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err = d.Decode(&value)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return value, invalid("/"+strings.ReplaceAll(wrong.Field, ".", "/"), "a "+wrong.Value+" is not what is expected here")
	} else if err != nil {
		if _, name, ok := strings.Cut(err.Error(), "unknown field "); ok {
			return value, invalid("/"+strings.Trim(name, `"`), "is not supported")
		}
		return value, refuse(http.StatusBadRequest, "Invalid JSON: %v", err)
	}
	return value, nil
}

func invalid(path, reason string) error {
	return &refusal{status: http.StatusUnprocessableEntity, Message: "Object is not valid", Details: []detail{{path, []string{reason}}}}
}

func (q *request) write(decide func(*apps.View) (*apps.Write, error)) error {
	return q.o.Catalog.Write(q.r.Context(), func(v *apps.View) (*apps.Write, error) {
		w, err := decide(v)
		if err != nil || q.o.Record == nil {
			return w, err
		}
		op, err := q.o.Record(q.r, q.who, q.verb, q.noun)
		w.More = append(w.More, op)
		return w, err
	})
}

func noJob(id string) error { return refuse(http.StatusNotFound, "Job '%s' does not exist", id) }

// job calls do with the job, or refuses.
func (q *request) job(id string, do func(v *apps.View, j *jobs.Job) error) (err error) {
	q.o.Catalog.Read(func(v *apps.View) {
		if j := v.Jobs[id]; j == nil {
			err = noJob(id)
		} else {
			err = do(v, j)
		}
	})
	return err
}

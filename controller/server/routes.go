package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/store"
)

// Route is one route of the API: the mux, the Door and the OpenAPI document are
// all made of this table.
type Route struct {
	Method, Path string
	Verb         auth.Verb
	// Noun that the Door is asked about; of a node's own routes it is made of who
	// asks.
	Noun func(r *http.Request, who auth.Subject) string
	// Summary and what goes in and comes out, for the document.
	Summary       string
	Query         []string
	Body, Answer  any
	Stream        bool // lines of JSON, a value each
	Expired       bool // a certificate that has ended a while ago will do
	do            func(w http.ResponseWriter, r *http.Request, who auth.Subject) error
	bodyMost      int64 // bytes; 0 means maxBody
	withoutRecord bool  // a write that is not worth an audit record by itself
}

// maxBody of a request, in bytes.
const maxBody = 4 << 20

func noun(n string) func(*http.Request, auth.Subject) string {
	return func(*http.Request, auth.Subject) string { return n }
}

func own(part string) func(*http.Request, auth.Subject) string {
	return func(_ *http.Request, who auth.Subject) string {
		kind := who.Kind
		if kind == "" || kind == trust.Anonymous {
			kind = trust.Node
		}
		return auth.Own(kind, who.ID, part)
	}
}

func objectNoun(r *http.Request, _ auth.Subject) string {
	n := "objects"
	for _, part := range []string{r.PathValue("kind"), r.PathValue("key")} {
		if part != "" {
			n += "/" + part
		}
	}
	return n
}

func pathNoun(n, value string) func(*http.Request, auth.Subject) string {
	return func(r *http.Request, _ auth.Subject) string { return n + "/" + r.PathValue(value) }
}

// Routes are all routes of the API.
func Routes() []Route { return (&Server{}).routes() }

func (s *Server) routes() []Route {
	return []Route{
		{Method: "GET", Path: "/healthz", Verb: auth.Get, Noun: noun(auth.NounHealth), Summary: "Whether the process answers", do: s.healthz},
		{Method: "GET", Path: "/readyz", Verb: auth.Get, Noun: noun(auth.NounHealth), Summary: "Whether it knows the cluster's state", do: s.readyz},
		{Method: "GET", Path: "/metrics", Verb: auth.Get, Noun: noun("metrics"), Summary: "Metrics for Prometheus", do: s.serveMetrics},
		{Method: "GET", Path: client.PathCA, Verb: auth.Get, Noun: noun(auth.NounCA), Summary: "The authority's certificates", Answer: api.Authorities{}, do: s.serveCA},
		{Method: "GET", Path: client.PathCluster, Verb: auth.Get, Noun: noun("cluster"), Summary: "The cluster's id and revision", Answer: api.Cluster{}, do: s.showCluster},

		{Method: "POST", Path: client.PathJoin, Verb: auth.Create, Noun: noun(auth.NounJoin), Summary: "A node's first certificate, for a token", Body: api.Join{}, Answer: api.Joined{}, do: s.join(auth.RoleAgent)},
		{Method: "POST", Path: client.PathJoinController, Verb: auth.Create, Noun: noun(auth.NounJoin), Summary: "A controller's first certificate, for a token", Body: api.Join{}, Answer: api.Joined{}, do: s.join(auth.RoleController)},
		{Method: "POST", Path: client.PathJoinOperator, Verb: auth.Create, Noun: noun(auth.NounJoin), Summary: "An operator's certificate, for a token", Body: api.Join{}, Answer: api.Joined{}, do: s.join(auth.RoleOperator)},
		{Method: "POST", Path: client.PathRenew, Verb: auth.Create, Noun: own(auth.OwnCertificate), Summary: "The next certificate of who asks", Body: api.Join{}, Answer: api.Joined{}, Expired: true, do: s.renew},
		{Method: "POST", Path: client.PathLogin, Verb: auth.Create, Noun: noun(auth.NounLogin), Summary: "A bearer token for a while, for an operator's token", Body: api.LoginRequest{}, Answer: api.Login{}, do: s.login},

		{Method: "GET", Path: client.PathStream, Verb: auth.Watch, Noun: own(auth.OwnSnapshot), Summary: "A node's wanted state, and each change of it", Query: []string{"epoch", "revision", "packed"}, Answer: api.Frame{}, Stream: true, do: s.stream},
		{Method: "POST", Path: client.PathReport, Verb: auth.Put, Noun: own(auth.OwnStatus), Summary: "What a node observes", Body: api.Report{}, Stream: true, withoutRecord: true, bodyMost: -1, do: s.report},

		{Method: "GET", Path: client.PathObjects, Verb: auth.List, Noun: objectNoun, Summary: "All objects", Answer: api.ObjectList{}, do: s.listObjects},
		{Method: "GET", Path: client.PathObjects + "/{kind}", Verb: auth.List, Noun: objectNoun, Summary: "The objects of a kind", Answer: api.ObjectList{}, do: s.listObjects},
		{Method: "GET", Path: client.PathObjects + "/{kind}/{key...}", Verb: auth.Get, Noun: objectNoun, Summary: "One object; its version is the ETag", Answer: api.Stored{}, do: s.getObject},
		{Method: "PUT", Path: client.PathObjects + "/{kind}/{key...}", Verb: auth.Put, Noun: objectNoun, Summary: "Make or replace an object; If-Match and If-None-Match: * are heeded", Body: api.Service{}, Answer: api.Stored{}, do: s.putObject},
		{Method: "DELETE", Path: client.PathObjects + "/{kind}/{key...}", Verb: auth.Delete, Noun: objectNoun, Summary: "Delete an object; If-Match is heeded", do: s.deleteObject},
		{Method: "POST", Path: client.PathApply, Verb: auth.Put, Noun: noun("objects"), Summary: "Make or replace many objects, all or none", Body: api.Apply{}, Answer: api.Applied{}, bodyMost: 64 << 20, do: s.apply},
		{Method: "GET", Path: client.PathWatch, Verb: auth.Watch, Noun: noun("objects"), Summary: "Changes of objects, in order and without a gap", Query: []string{"kind", "after"}, Answer: api.WatchEvent{}, Stream: true, do: s.watch},

		{Method: "GET", Path: client.PathNodes, Verb: auth.List, Noun: noun("nodes"), Summary: "The nodes, with what they have applied", Query: []string{"here"}, Answer: api.NodeList{}, do: s.listNodes},
		{Method: "GET", Path: client.PathNodes + "/{name}", Verb: auth.Get, Noun: pathNoun("nodes", "name"), Summary: "One node", Answer: api.NodeState{}, do: s.showNode},
		{Method: "DELETE", Path: client.PathNodes + "/{name}", Verb: auth.Delete, Noun: pathNoun("nodes", "name"), Summary: "Remove a node: its certificate is refused from now on", do: s.removeNode},
		{Method: "PUT", Path: client.PathNodes + "/{name}/draining", Verb: auth.Put, Noun: pathNoun("nodes", "name"), Summary: "Drain a node, or end that", Body: api.NodeDrain{}, Answer: api.Stored{}, do: s.drainNode},

		{Method: "GET", Path: client.PathTokens, Verb: auth.List, Noun: noun("tokens"), Summary: "Tokens that still let somebody in", Answer: []api.Token{}, do: s.listTokens},
		{Method: "POST", Path: client.PathTokens, Verb: auth.Create, Noun: noun("tokens"), Summary: "A new token; the answer alone has its secret", Body: api.TokenRequest{}, Answer: api.Token{}, do: s.createToken},
		{Method: "DELETE", Path: client.PathTokens + "/{id}", Verb: auth.Delete, Noun: pathNoun("tokens", "id"), Summary: "Take a token back", do: s.deleteToken},

		{Method: "GET", Path: client.PathControllers, Verb: auth.List, Noun: noun("controllers"), Summary: "The controllers", Answer: []api.Controller{}, do: s.listControllers},
		{Method: "POST", Path: client.PathControllers, Verb: auth.Create, Noun: own(auth.OwnMembership), Summary: "A place among the controllers, for one with a certificate", Body: api.ControllerJoin{}, Answer: api.ControllerJoined{}, do: s.admitController},
		{Method: "DELETE", Path: client.PathControllers + "/{name}", Verb: auth.Delete, Noun: pathNoun("controllers", "name"), Summary: "Remove a controller, unless that costs the quorum", do: s.removeController},
		{Method: "GET", Path: client.PathBackup, Verb: auth.Get, Noun: noun("backup"), Summary: "A snapshot of the store, for weir-controller restore", do: s.backup},
		{Method: "GET", Path: client.PathAudit, Verb: auth.List, Noun: noun("audit"), Summary: "What was done and refused, the newest first", Query: []string{"limit"}, Answer: []api.AuditRecord{}, do: s.listAudit},
	}
}

// handle asks the Door, bounds the body, and answers errors as problems.
func (s *Server) handle(route Route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(client.HeaderCluster, s.o.Authority.ClusterID())
		find := s.o.Door.Subject
		if route.Expired {
			find = s.o.Door.Renewing
		}
		who, err := find(r)
		if err == nil {
			err = s.o.Door.Allow(who, route.Verb, route.Noun(r, who))
		}
		if err == nil {
			switch {
			case route.bodyMost == 0:
				r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			case route.bodyMost > 0:
				r.Body = http.MaxBytesReader(w, r.Body, route.bodyMost)
			}
			err = route.do(w, r, who)
		}
		s.metrics.requests.WithLabelValues(route.Path, strconv.Itoa(statusOf(err))).Inc()
		if err == nil {
			return
		}
		if status := statusOf(err); refused(status) || err != nil && writes(route.Verb) && status < 500 {
			s.o.Audit.Refuse(s.record(r, who, route.Verb, route.Noun(r, who), err))
		}
		s.problem(w, err)
	}
}

func refused(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

func writes(v auth.Verb) bool { return v == auth.Put || v == auth.Create || v == auth.Delete }

// record of what was done, or with err of what was refused.
func (s *Server) record(r *http.Request, who auth.Subject, verb auth.Verb, noun string, err error) api.AuditRecord {
	rec := api.AuditRecord{Subject: who.String(), Address: clientName(r), Verb: string(verb), Noun: noun}
	if err != nil {
		rec.Refused = err.Error()
	}
	return rec
}

// statusError is an error with the status that it is answered with.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func badRequest(format string, args ...any) error {
	return &statusError{http.StatusBadRequest, fmt.Errorf(format, args...)}
}

func statusOf(err error) int {
	var known *statusError
	var denied *auth.Denied
	var large *http.MaxBytesError
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge
	case errors.As(err, &known):
		return known.status
	case errors.As(err, &denied):
		if denied.Subject.Kind == trust.Anonymous || denied.Subject.Kind == "" {
			return http.StatusUnauthorized
		}
		return http.StatusForbidden
	case errors.Is(err, auth.ErrUnauthenticated), errors.Is(err, auth.ErrRevoked):
		return http.StatusUnauthorized
	case errors.Is(err, auth.ErrTaken), errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrQuorum):
		return http.StatusConflict
	case errors.Is(err, store.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, store.ErrCompacted):
		return http.StatusGone
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// problem answers with what went wrong (RFC 9457).
func (s *Server) problem(w http.ResponseWriter, err error) {
	status := statusOf(err)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="weir"`)
	}
	if status == http.StatusInternalServerError {
		s.log.Error("request failed", "error", err)
	}
	p := client.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: err.Error()}
	var faulty *faultyError
	if errors.As(err, &faulty) {
		p.Faults = faulty.faults
	}
	w.Header().Set("Content-Type", client.ProblemType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(p)
}

// faultyError is a refusal of documents, field by field.
type faultyError struct{ faults []api.Fault }

func (f *faultyError) Error() string {
	text := fmt.Sprintf("%d faults", len(f.faults))
	for i, one := range f.faults {
		if i == 0 {
			text = one.String()
		} else if i < 10 {
			text += "; " + one.String()
		}
	}
	return text
}

func answer(w http.ResponseWriter, value any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(value)
}

// read decodes a body strictly.
func read[T any](r *http.Request) (T, error) {
	var value T
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&value); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return value, err
		}
		return value, badRequest("read the body: %w", err)
	}
	return value, nil
}

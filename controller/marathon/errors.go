package marathon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/controller/apps"
	"github.com/weirproject/weir/controller/store"
)

// Refusal is an answer that is none, as clients of Marathon know it.
type Refusal struct {
	Status  int      `json:"-"`
	Message string   `json:"message"`
	Details []Detail `json:"details,omitempty"`
	// Deployments that hold a lock.
	Deployments []Ref `json:"deployments,omitempty"`
}

// Detail is what is wrong with one part of what was sent.
type Detail struct {
	Path   string   `json:"path"`
	Errors []string `json:"errors"`
}

// Ref names a deployment.
type Ref struct {
	ID string `json:"id"`
}

func (r *Refusal) Error() string {
	text := r.Message
	for _, d := range r.Details {
		text += fmt.Sprintf("; %s: %s", d.Path, strings.Join(d.Errors, ", "))
	}
	return text
}

func refuse(status int, format string, args ...any) *Refusal {
	return &Refusal{Status: status, Message: fmt.Sprintf(format, args...)}
}

func noApp(id string) error   { return refuse(http.StatusNotFound, "App '%s' does not exist", id) }
func noGroup(id string) error { return refuse(http.StatusNotFound, "Group '%s' does not exist", id) }
func noTask(id string) error  { return refuse(http.StatusNotFound, "Task '%s' does not exist", id) }
func noDeployment(id string) error {
	return refuse(http.StatusNotFound, "Deployment '%s' does not exist", id)
}

func locked(ids []string) error {
	r := refuse(http.StatusConflict, "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'.")
	for _, id := range ids {
		r.Deployments = append(r.Deployments, Ref{id})
	}
	return r
}

// invalid is a refusal of what was sent, by paths as Marathon writes them:
// /container/portMappings(0)/name.
func invalid(details []Detail) error {
	return &Refusal{Status: http.StatusUnprocessableEntity, Message: "Object is not valid", Details: details}
}

// detailsOf are the field errors inside an error, below a path; faults of one
// path stand together.
func detailsOf(below string, err error) []Detail {
	var list []Detail
	for _, f := range api.FieldErrors(err) {
		list = add(list, below+pathOf(f.Field), f.Reason)
	}
	if len(list) == 0 && err != nil {
		list = add(list, below+"/", err.Error())
	}
	return list
}

func add(list []Detail, path, reason string) []Detail {
	for i := range list {
		if list[i].Path == path {
			list[i].Errors = append(list[i].Errors, reason)
			return list
		}
	}
	return append(list, Detail{path, []string{reason}})
}

// pathOf is a field's path in Marathon's way of writing.
func pathOf(field string) string {
	return "/" + strings.NewReplacer(".", "/", "[", "(", "]", ")").Replace(field)
}

// answer an error.
func (m *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	var known *Refusal
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &known):
	case errors.As(err, &large):
		known = refuse(http.StatusRequestEntityTooLarge, "the body is longer than %d bytes", large.Limit)
	case errors.Is(err, apps.ErrTooMany):
		known = refuse(http.StatusRequestEntityTooLarge, "%v", err)
	case errors.Is(err, store.ErrConflict):
		known = refuse(http.StatusConflict, "%v", err)
	case errors.Is(err, store.ErrUnavailable):
		known = refuse(http.StatusServiceUnavailable, "%v", err)
	default:
		m.log.Error("request failed", "path", r.URL.Path, "error", err)
		known = refuse(http.StatusInternalServerError, "%v", err)
	}
	if strings.Contains(r.Header.Get("Accept"), client.ProblemType) {
		problem(w, known)
		return
	}
	send(w, known.Status, known)
}

// problem answers as Weir's own routes do (RFC 9457), for those who ask so.
func problem(w http.ResponseWriter, known *Refusal) {
	p := client.Problem{Type: "about:blank", Title: http.StatusText(known.Status), Status: known.Status, Detail: known.Error()}
	for _, d := range known.Details {
		for _, reason := range d.Errors {
			p.Faults = append(p.Faults, api.Fault{Kind: "app", Field: d.Path, Reason: reason})
		}
	}
	w.Header().Set("Content-Type", client.ProblemType)
	w.WriteHeader(known.Status)
	_ = json.NewEncoder(w).Encode(p) // who asked has gone
}

func send(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(value) // who asked has gone
}

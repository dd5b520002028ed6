package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// serveAPI serves the node's local API on the socket until ctx ends. Wanted
// state is written by nobody but the files' owner; all that the API changes is
// which backends this node drains.
func (a *Agent) serveAPI(ctx context.Context) error {
	path := filepath.Join(a.config.RunDir, "agent.sock")
	// We hold the lock, so a socket that is here belongs to an agent that died.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen on the API socket: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return err
	}
	return serve(ctx, l, a.handler())
}

func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+client.PathStatus, answer(func(*http.Request) (any, error) { return a.Status(), nil }))
	a.vipRoutes(mux)
	a.dnsRoutes(mux)
	a.zoneRoutes(mux)
	a.flowRoutes(mux)
	a.networkRoutes(mux)
	a.tasks.routes(mux)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !a.appliedAll() {
			problem(w, http.StatusServiceUnavailable, a.notReady())
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// notReady says what keeps the node from being ready.
func (a *Agent) notReady() error {
	s := a.Status()
	var why []string
	for _, r := range s.Refused {
		why = append(why, fmt.Sprintf("%s:%d: %s: %s", r.File, r.Line, r.Field, r.Reason))
	}
	for _, c := range s.Components {
		if c.Error != "" {
			why = append(why, c.Name+": "+c.Error)
		}
	}
	if len(why) == 0 {
		return errNotReady
	}
	return errors.New(strings.Join(why, "; "))
}

// httpError is an error with the status that it is answered with.
type httpError struct {
	status int
	err    error
}

func (e *httpError) Error() string { return e.err.Error() }

func answer(do func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		value, err := do(r)
		var known *httpError
		switch {
		case errors.As(err, &known):
			problem(w, known.status, known.err)
		case err != nil:
			problem(w, http.StatusInternalServerError, err)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(value)
		}
	}
}

// problem answers with an RFC 9457 problem document.
func problem(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(client.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: err.Error()})
}

func (a *Agent) queryDNS(r *http.Request) (any, error) {
	if a.dns.proxy == nil {
		return nil, &httpError{http.StatusServiceUnavailable, errors.New("the DNS proxy is off: dns.listen is empty")}
	}
	name, recordType := r.FormValue("name"), r.FormValue("type")
	if name == "" {
		return nil, &httpError{http.StatusBadRequest, errors.New("name is missing")}
	}
	if recordType == "" {
		recordType = "A"
	}
	result, err := a.dns.proxy.Query(r.Context(), name, recordType)
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, err}
	}
	return result, nil
}

// resolve keeps addresses as they are; zones.Explain knows nodes and zones.
func (a *Agent) resolve(_ *api.Snapshot, name string) string {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Unmap().String()
	}
	return strings.ToLower(name)
}

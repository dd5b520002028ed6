package agent

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/weirproject/weir/agent/executor"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

func (t *tasksComponent) routes(mux *http.ServeMux) {
	one := client.PathTasks + "/{id}"
	mux.HandleFunc("GET "+client.PathTasks, answer(func(*http.Request) (any, error) { return t.supervisor.Statuses(), nil }))
	mux.HandleFunc("GET "+one, answer(func(r *http.Request) (any, error) { return t.show(r.PathValue("id")) }))
	mux.HandleFunc("POST "+one+"/kill", answer(t.kill))
	mux.HandleFunc("GET "+one+"/logs", t.logs)
	mux.HandleFunc("POST "+one+"/exec", t.exec)
}

func (t *tasksComponent) show(id string) (api.LocalTask, error) {
	spec, err := t.supervisor.Spec(id)
	if err != nil {
		return api.LocalTask{}, taskError(err)
	}
	status, err := t.supervisor.Status(id)
	if err != nil {
		return api.LocalTask{}, taskError(err)
	}
	spec.Env = nil // it may hold secrets
	return api.LocalTask{Spec: spec, Status: status, Sandbox: filepath.Join(t.agent.config.DataDir, "sandbox", id)}, nil
}

func (t *tasksComponent) kill(r *http.Request) (any, error) {
	grace := time.Duration(-1)
	if text := r.FormValue("grace"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return nil, &httpError{http.StatusBadRequest, errors.New("grace " + strconv.Quote(text) + " is no duration, such as 10s")}
		}
		grace = d
	}
	if err := t.supervisor.Kill(r.PathValue("id"), grace); err != nil {
		return nil, taskError(err)
	}
	return t.show(r.PathValue("id"))
}

// logs streams what a task has written.
func (t *tasksComponent) logs(w http.ResponseWriter, r *http.Request) {
	stream := r.FormValue("stream")
	if stream == "" {
		stream = "stdout"
	}
	follow, _ := strconv.ParseBool(r.FormValue("follow"))
	offset, err := strconv.ParseInt(r.FormValue("offset"), 10, 64)
	if err != nil && r.FormValue("offset") != "" {
		problem(w, http.StatusBadRequest, errors.New("offset is no number"))
		return
	}
	log, err := t.supervisor.Logs(r.Context(), r.PathValue("id"), stream, follow, offset)
	if err != nil {
		known := taskError(err)
		problem(w, known.status, known.err)
		return
	}
	defer log.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	flusher := http.NewResponseController(w)
	_ = flusher.Flush()
	buffer := make([]byte, 32<<10)
	for {
		n, err := log.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
			_ = flusher.Flush()
		}
		if err != nil {
			return // io.EOF, or the client has gone
		}
	}
}

// taskError gives the supervisor's errors their status.
func taskError(err error) *httpError {
	switch {
	case errors.Is(err, executor.ErrNotFound):
		return &httpError{http.StatusNotFound, err}
	case errors.Is(err, executor.ErrEnded):
		return &httpError{http.StatusConflict, executor.ErrEnded}
	case errors.Is(err, os.ErrNotExist), errors.Is(err, io.EOF):
		return &httpError{http.StatusNotFound, err}
	default:
		return &httpError{http.StatusBadRequest, err}
	}
}

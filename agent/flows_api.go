package agent

import (
	"encoding/json"
	"net/http"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// flowRoutes are the API of flows and drops.
func (a *Agent) flowRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+client.PathFlows, a.flows.serve(func(f api.FlowFilter, line api.FlowLine) bool {
		return line.Flow != nil && f.Flow(line.Flow)
	}))
	mux.HandleFunc("GET "+client.PathDrops, a.flows.serve(func(f api.FlowFilter, line api.FlowLine) bool {
		return line.Drop != nil && f.Drop(line.Drop)
	}))
}

// serve tells of what is wanted, one JSON object a line, until who asked is gone.
func (w *flowWatch) serve(wants func(api.FlowFilter, api.FlowLine) bool) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		filter, err := client.FlowFilter(r.URL.Query())
		if err != nil {
			problem(rw, http.StatusBadRequest, err)
			return
		}
		lines, stop, err := w.follow(func(line api.FlowLine) bool { return wants(filter, line) })
		if err != nil {
			problem(rw, http.StatusServiceUnavailable, err)
			return
		}
		defer stop()
		rw.Header().Set("Content-Type", "application/jsonl")
		rw.WriteHeader(http.StatusOK)
		flush := http.NewResponseController(rw)
		encoder := json.NewEncoder(rw)
		for {
			// Flushed when nothing waits: a line each would cost a system call each.
			if len(lines) == 0 && flush.Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case line, more := <-lines:
				if !more || encoder.Encode(line) != nil {
					return
				}
			}
		}
	}
}

package agent

import (
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/document"
	"github.com/weirproject/weir/version"
)

// Status is what the node observes of itself.
func (a *Agent) Status() api.Status {
	s := api.Status{Version: version.String(), Started: a.started}
	s.Node.Name = a.config.Node.Name
	if snapshot := a.snapshot.Load(); snapshot != nil {
		s.Wanted, s.Node = snapshot.Revision, snapshot.Node
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Source, s.Refused = a.source, slices.Concat(a.refused, a.refusedConfig)
	s.Revision = s.Wanted
	for _, c := range a.order {
		s.Components = append(s.Components, c.status)
		s.Revision = min(s.Revision, c.status.Revision)
	}
	return s
}

// setRefused keeps why the files were not taken over; nil when they were.
func (a *Agent) setRefused(err error) {
	var refused []api.Refusal
	for _, e := range document.Errors(err) {
		refused = append(refused, api.Refusal{File: e.File, Line: e.Line, Column: e.Column, Field: e.Field, Reason: e.Reason})
	}
	a.mu.Lock()
	old := a.refused
	for i := range refused {
		refused[i].Since = time.Now()
		if j := slices.IndexFunc(old, func(r api.Refusal) bool { r.Since = refused[i].Since; return r == refused[i] }); j >= 0 {
			refused[i].Since = old[j].Since
		}
	}
	a.refused = refused
	a.mu.Unlock()
	a.metrics.refused.Set(float64(len(refused)))
	if !slices.Equal(old, refused) {
		for _, r := range refused {
			a.log.Error("state refused; the last good one stays in force", "file", r.File, "line", r.Line, "column", r.Column, "field", r.Field, "reason", r.Reason)
		}
		if len(refused) == 0 {
			a.log.Info("state files are good again")
		}
	}
}

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/zones"
	"github.com/weirproject/weir/zones/policyfile"
)

// zoneRoutes are the API of the zones.
func (a *Agent) zoneRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+client.PathZones, answer(a.listZones))
	mux.HandleFunc("GET "+client.PathZonesExplain, answer(a.explainZones))
	mux.HandleFunc("GET "+client.PathZonesMatrix, a.drawZones)
	mux.HandleFunc("GET "+client.PathZonesDrops, a.showDrops)
	mux.HandleFunc("GET "+client.PathZonesHistory, answer(a.zoneHistory))
	mux.HandleFunc("POST "+client.PathZonesCheck, answer(asked(a.checkZones)))
	mux.HandleFunc("POST "+client.PathZonesDiff, answer(asked(a.diffZones)))
	mux.HandleFunc("POST "+client.PathZonesApply, answer(asked(a.applyPolicy)))
	mux.HandleFunc("POST "+client.PathZonesConfirm, answer(func(*http.Request) (any, error) { return a.confirmPolicy() }))
	mux.HandleFunc("POST "+client.PathZonesRollback, answer(asked(a.rollBackTo)))
}

// asked reads what a request is about.
func asked[T, R any](do func(context.Context, T) (R, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		var what T
		decoder := json.NewDecoder(r.Body)
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&what); err != nil {
			return nil, &httpError{http.StatusBadRequest, fmt.Errorf("read the request: %w", err)}
		}
		return do(r.Context(), what)
	}
}

// present is the snapshot in force.
func (a *Agent) present() (*api.Snapshot, error) {
	if s := a.snapshot.Load(); s != nil {
		return s, nil
	}
	return nil, &httpError{http.StatusServiceUnavailable, errNotReady}
}

// withPolicy is the snapshot in force and what its policy means, names included.
func (a *Agent) withPolicy() (*api.Snapshot, *zones.View, error) {
	s, err := a.present()
	if err != nil {
		return nil, nil, err
	}
	if s.Policy == nil {
		return nil, nil, &httpError{http.StatusNotFound, errors.New("this node has no policy: nothing is filtered")}
	}
	view, _ := a.views(s, nil)
	return s, view, nil
}

func (a *Agent) explainZones(r *http.Request) (any, error) {
	s, view, err := a.withPolicy()
	if err != nil {
		return nil, err
	}
	port, err := api.ParsePortRange(r.FormValue("port"))
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, err}
	}
	o := zones.ExplainOptions{Via: r.FormValue("via"), Place: a.zones.policies.placeOf(s.Policy)}
	x, err := view.Explain(a.resolve(s, r.FormValue("from")), a.resolve(s, r.FormValue("to")), port, o)
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, err}
	}
	return api.ZoneExplained{ZoneExplanation: x.ZoneExplanation, Field: x.Field, Hook: string(x.Hook), File: x.File, Line: x.Line}, nil
}

// placeOf finds the places of a policy's fields; nil when they are not known.
func (p *policies) placeOf(policy *api.Policy) func(field string) (string, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil || digest(p.current.Policy) != digest(policy) {
		return nil
	}
	return p.current.Place
}

// checkZones looks at a policy's file with this node's state.
func (a *Agent) checkZones(_ context.Context, r api.ZonePolicyFile) ([]api.ZoneFinding, error) {
	s, err := a.present()
	if err != nil {
		return nil, err
	}
	f, err := policyfile.Parse(r.File, []byte(r.Text))
	if err != nil {
		return policyfile.Findings(err), nil
	}
	_, now := a.views(s, f.Policy)
	return append([]api.ZoneFinding{}, f.Check(now)...), nil
}

func (a *Agent) diffZones(_ context.Context, r api.ZonePolicyFile) (api.ZoneDiff, error) {
	s, err := a.present()
	if err != nil {
		return api.ZoneDiff{}, err
	}
	f, err := policyfile.Parse(r.File, []byte(r.Text))
	if err != nil {
		return api.ZoneDiff{}, &httpError{http.StatusUnprocessableEntity, err}
	}
	old, now := a.views(s, f.Policy)
	return policyfile.Diff(old, now), nil
}

func (a *Agent) drawZones(w http.ResponseWriter, r *http.Request) {
	_, view, err := a.withPolicy()
	if err != nil {
		answer(func(*http.Request) (any, error) { return nil, err })(w, r)
		return
	}
	text, media, err := view.Matrix().Draw(r.FormValue("format"))
	if err != nil {
		problem(w, http.StatusBadRequest, err)
		return
	}
	w.Header().Set("Content-Type", media)
	_, _ = w.Write(text)
}

// showDrops lists the last drops, or goes on telling of new ones, one JSON
// object a line.
func (a *Agent) showDrops(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("follow") == "" {
		answer(func(*http.Request) (any, error) { return a.zones.drops.recent() })(w, r)
		return
	}
	drops, stop := a.zones.drops.follow()
	defer stop()
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	encoder := json.NewEncoder(w)
	for flush.Flush() == nil {
		select {
		case <-r.Context().Done():
			return
		case d, more := <-drops:
			if !more || encoder.Encode(d) != nil {
				return
			}
		}
	}
}

// zoneHistory lists the changes, the newest first.
func (a *Agent) zoneHistory(*http.Request) (any, error) {
	p := a.zones.policies
	p.mu.Lock()
	defer p.mu.Unlock()
	all := []api.ZoneChange{}
	for _, e := range slices.Backward(p.history) {
		all = append(all, e.ZoneChange)
	}
	return all, nil
}

func (a *Agent) confirmPolicy() (api.ZoneChange, error) {
	change, err := a.zones.policies.confirm()
	if err == nil {
		a.readState()
	}
	return change, err
}

// rollBackTo takes the pending change back, or enforces one of the history.
func (a *Agent) rollBackTo(ctx context.Context, r api.ZoneRollback) (api.ZoneApplied, error) {
	pending := a.zones.policies.waiting()
	if r.ID == 0 || pending != nil && r.ID != pending.ID {
		by := r.By
		if by == "" {
			by = "hand"
		}
		before := a.snapshot.Load()
		if rolled := a.rollBack("taken back by " + by); r.ID == 0 {
			if !rolled {
				return api.ZoneApplied{}, &httpError{http.StatusNotFound, errors.New("no change waits to be confirmed: name one of weir zone history")}
			}
			a.readState()
			if now := a.snapshot.Load(); now != nil && before != nil {
				if err := a.awaitZones(ctx, before.Revision, now.Policy); err != nil {
					return api.ZoneApplied{}, fmt.Errorf("the change is taken back, and the kernel is not there yet: %w", err)
				}
			}
			e, err := a.zones.policies.entry(pending.ID)
			return api.ZoneApplied{ZoneChange: e.ZoneChange}, err
		}
		a.readState()
	}
	e, err := a.zones.policies.entry(r.ID)
	switch {
	case err != nil:
		return api.ZoneApplied{}, &httpError{http.StatusNotFound, err}
	case e.Text == "":
		return api.ZoneApplied{}, &httpError{http.StatusConflict, fmt.Errorf("change %d was to have no policy: take the policy's document out of the state's files", r.ID)}
	}
	return a.applyPolicy(ctx, api.ZoneApply{
		ZonePolicyFile: api.ZonePolicyFile{File: fmt.Sprintf("change %d of %s", e.ID, e.Time.Format(time.DateTime)), Text: e.Text},
		Confirm:        r.Confirm, Force: r.Force, By: r.By, SSH: r.SSH,
	})
}

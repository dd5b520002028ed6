package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/store"
	"github.com/weirproject/weir/vip"
	"github.com/weirproject/weir/wanted"
)

// Bounds of one commit, beside the gate and the record. What is more goes in
// several, one right after the other and none if somebody comes between.
const (
	commitOps   = store.MaxOps - 4
	commitBytes = store.MaxValue - 64<<10
	maxObjects  = 50_000 // of one write
)

// attempts of a commit that others come before.
const attempts = 20

// find looks up what is there now, and checks the versions.
func (s *Server) find(ctx context.Context, writes []*write) error {
	for _, w := range writes {
		before, err := s.o.Hub.Get(w.kind.Name, w.key)
		switch {
		case err == nil:
			w.key = before.Key
		case w.object == nil:
			if s.behind(ctx, w, before) {
				return store.ErrConflict
			}
			return err
		}
		w.before = before
		if w.version == nil || *w.version == before.Version {
			continue
		}
		if s.behind(ctx, w, before) {
			return store.ErrConflict
		}
		if *w.version == 0 {
			return &statusError{http.StatusPreconditionFailed, fmt.Errorf("%s %s is there already, at version %d", w.kind.Name, w.key, before.Version)}
		}
		return &statusError{http.StatusPreconditionFailed, fmt.Errorf("%s %s is at version %d, not at %d: somebody has changed it meanwhile; get it anew", w.kind.Name, w.key, before.Version, *w.version)}
	}
	return nil
}

// behind tells whether this controller has not yet heard of what the store holds
// of an object, so that nothing is refused for being newer than what it knows.
func (s *Server) behind(ctx context.Context, w *write, known api.Stored) bool {
	keys := []string{w.key}
	if w.kind.Name == "service" && known.Version == 0 {
		keys = append(keys, w.key+"/"+string(api.TCP), w.key+"/"+string(api.UDP))
	}
	for _, key := range keys {
		e, err := s.o.Store.Get(ctx, hub.ObjectKey(w.kind.Name, key))
		switch {
		case err == nil && e.Version != known.Version, errors.Is(err, store.ErrNotFound) && known.Version != 0:
			return true
		}
	}
	return false
}

// stored is the object after the write was committed, by itself, at a revision.
func (w *write) stored(revision uint64) api.Stored {
	if w.action() == api.ObjectUnchanged {
		return w.before
	}
	return api.Stored{Kind: w.kind.Name, Key: w.key, Version: revision, Object: w.raw}
}

// clashing tells whether a write could clash with other objects: all but
// services whose names and addresses stay what they were.
func (w *write) clashing() bool {
	if w.kind.Name != "service" || w.object == nil || w.before.Version == 0 {
		return true
	}
	old, err := w.kind.Decode(w.before.Object)
	if err != nil {
		return true
	}
	a, b := *old.(*api.Service), *w.object.(*api.Service)
	// Which families a name has depends on the backends.
	families := func(s api.Service) (v4, v6 bool) {
		for _, backend := range s.Backends {
			v4, v6 = v4 || backend.Address.Addr().Unmap().Is4(), v6 || !backend.Address.Addr().Unmap().Is4()
		}
		return v4, v6
	}
	a4, a6 := families(a)
	b4, b6 := families(b)
	if a4 != b4 || a6 != b6 || (a.Edge == nil) != (b.Edge == nil) || len(a.VIPs) != len(b.VIPs) {
		return true
	}
	for i := range a.VIPs {
		if a.VIPs[i] != b.VIPs[i] {
			return true
		}
	}
	return false
}

// commit makes the objects so, all or none, and waits until this controller
// knows of it. With dry it only checks.
func (s *Server) commit(ctx context.Context, writes []*write, record api.AuditRecord, dry bool) (uint64, error) {
	if len(writes) > maxObjects {
		return 0, badRequest("%d objects are too many at once: send at most %d", len(writes), maxObjects)
	}
	select {
	case <-s.o.Hub.Ready():
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: this controller does not know the state yet", store.ErrUnavailable)
	}
	var err error
	for range attempts {
		var revision uint64
		if revision, err = s.try(ctx, writes, record, dry); !errors.Is(err, store.ErrConflict) {
			return revision, err
		}
		// Somebody else came before; the hub will hear of it in a moment.
		wait, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		_ = s.o.Hub.Wait(wait, s.o.Hub.Revision()+1)
		cancel()
	}
	return 0, err
}

func (s *Server) try(ctx context.Context, writes []*write, record api.AuditRecord, dry bool) (uint64, error) {
	if err := s.find(ctx, writes); err != nil {
		return 0, err
	}
	conditions := map[string]store.Condition{}
	var ops []store.Op
	clashing := false
	for _, w := range writes {
		if w.action() == api.ObjectUnchanged {
			continue
		}
		clashing = clashing || w.clashing()
		key := hub.ObjectKey(w.kind.Name, w.key)
		conditions[key] = store.Condition{Key: key, Version: w.before.Version}
		ops = append(ops, store.Op{Key: key, Value: w.raw, Delete: w.object == nil})
	}
	if len(ops) == 0 {
		return s.o.Hub.Revision(), nil
	}
	clashing = clashing || len(ops) > commitOps
	if clashing {
		state := s.o.Hub.State()
		more, err := s.judge(state, writes)
		if err != nil {
			return 0, err
		}
		ops = append(more, ops...) // addresses before those who have them
		conditions[hub.GateKey] = store.Condition{Key: hub.GateKey, Version: state.Gate}
	}
	if dry {
		return s.o.Hub.Revision(), nil
	}
	revision, err := s.inParts(ctx, conditions, ops, record, clashing)
	if err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	s.wrote(revision)
	return revision, nil
}

// inParts commits the operations, each under the condition of its key. The gate
// keeps others out between two parts.
func (s *Server) inParts(ctx context.Context, conditions map[string]store.Condition, ops []store.Op, record api.AuditRecord, gated bool) (revision uint64, err error) {
	for len(ops) > 0 {
		var part []store.Op
		var under []store.Condition
		for bytes := 0; len(ops) > 0 && len(part) < commitOps; {
			if bytes += len(ops[0].Key) + len(ops[0].Value); bytes > commitBytes && len(part) > 0 {
				break
			}
			if c, ok := conditions[ops[0].Key]; ok {
				under = append(under, c)
			}
			part, ops = append(part, ops[0]), ops[1:]
		}
		if gated {
			under, part = append(under, conditions[hub.GateKey]), append(part, gate(record.Subject))
		}
		op, err := s.o.Audit.Op(record)
		if err != nil {
			return 0, err
		}
		if revision, err = s.o.Store.Commit(ctx, under, append(part, op)); err != nil {
			return 0, err
		}
		conditions[hub.GateKey] = store.Condition{Key: hub.GateKey, Version: revision}
	}
	return revision, nil
}

// judge makes the whole state that would be, refuses what no node could apply,
// and returns the allotments that belong to it.
func (s *Server) judge(state *hub.State, writes []*write) ([]store.Op, error) {
	next, err := state.With(changeOf(writes))
	if err != nil {
		return nil, err
	}
	was := next.VIPs
	if next.VIPs, err = vip.Allot(was, next.Services, s.o.Range, s.o.Range6); err != nil {
		return nil, &statusError{http.StatusUnprocessableEntity, fmt.Errorf("allot the addresses of named VIPs: %w", err)}
	}
	s.naming.Lock()
	options := s.o.Names
	options.Previous = s.names
	names, faults := wanted.Check(next, wanted.Options{Names: options, Now: time.Now()})
	s.names = names
	s.naming.Unlock()
	if len(faults) > 0 {
		var all []api.Fault
		for _, f := range faults {
			all = append(all, faultsOf(f.Kind, f.Key, f.Err)...)
		}
		return nil, &statusError{http.StatusUnprocessableEntity, &faultyError{all}}
	}
	var ops []store.Op
	for name, addresses := range next.VIPs {
		if was[name] != addresses {
			value, err := json.Marshal(addresses)
			if err != nil {
				return nil, err
			}
			ops = append(ops, store.Op{Key: hub.VIPKey(name), Value: value})
		}
	}
	for name := range was {
		if _, ok := next.VIPs[name]; !ok {
			ops = append(ops, store.Op{Key: hub.VIPKey(name), Delete: true})
		}
	}
	return ops, nil
}

// changeOf is what the writes change of a snapshot.
func changeOf(writes []*write) *api.SnapshotChange {
	c := &api.SnapshotChange{}
	for _, w := range writes {
		switch {
		case w.action() == api.ObjectUnchanged:
		case w.object == nil:
			switch w.kind.Name {
			case "service":
				c.Gone.Services = append(c.Gone.Services, w.key)
			case "record":
				c.Gone.Records = append(c.Gone.Records, w.key)
			case "policy":
				c.NoPolicy = true
			case "node":
				c.Gone.Nodes = append(c.Gone.Nodes, w.key)
			case "network":
				c.Gone.Networks = append(c.Gone.Networks, w.key)
			}
		default:
			switch o := w.object.(type) {
			case *api.Service:
				c.Services = append(c.Services, *o)
			case *api.Record:
				c.Records = append(c.Records, *o)
			case *api.Policy:
				c.Policy = o
			case *api.Node:
				c.Nodes = append(c.Nodes, *o)
			case *api.ContainerNetwork:
				c.Networks = append(c.Networks, *o)
			}
		}
	}
	return c
}

// maxNamed are the objects that an audit record names.
const maxNamed = 20

// writeAll is commit with its audit record.
func (s *Server) writeAll(r *http.Request, who auth.Subject, verb auth.Verb, writes []*write, dry bool) (uint64, error) {
	var names []string
	for _, w := range writes[:min(len(writes), maxNamed)] {
		names = append(names, w.kind.Name+"/"+w.key)
	}
	noun := "objects/" + strings.Join(names, " ")
	if len(writes) > maxNamed {
		noun += fmt.Sprintf(" and %d more", len(writes)-maxNamed)
	}
	return s.commit(r.Context(), writes, s.record(r, who, verb, noun, nil), dry)
}

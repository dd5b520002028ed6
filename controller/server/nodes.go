package server

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/store"
)

// othersWithin is how long another controller may take to tell of its nodes.
const othersWithin = 2 * time.Second

func (s *Server) listNodes(w http.ResponseWriter, r *http.Request, _ auth.Subject) error {
	if err := s.known(r); err != nil {
		return err
	}
	if r.FormValue("here") != "" {
		return answer(w, s.nodeList(s.streaming()))
	}
	list, err := s.allNodes(r.Context())
	if err != nil {
		return err
	}
	return answer(w, list)
}

func (s *Server) nodeList(nodes []api.NodeState) api.NodeList {
	return api.NodeList{ClusterID: s.o.Authority.ClusterID(), Revision: s.o.Hub.Revision(), Time: time.Now(), Nodes: nodes}
}

// streaming are the nodes whose stream is here, sorted by name.
func (s *Server) streaming() []api.NodeState {
	s.mu.Lock()
	sessions := make([]*session, 0, len(s.sessions))
	for _, one := range s.sessions {
		sessions = append(sessions, one)
	}
	s.mu.Unlock()
	all := make([]api.NodeState, 0, len(sessions))
	for _, one := range sessions {
		all = append(all, s.stateOf(one))
	}
	slices.SortFunc(all, func(a, b api.NodeState) int { return strings.Compare(a.Node.Name, b.Node.Name) })
	return all
}

// stateOf is a node as its stream shows it.
func (s *Server) stateOf(one *session) api.NodeState {
	one.mu.Lock()
	defer one.mu.Unlock()
	n := api.NodeState{
		Node: s.nodeOf(one.who), ID: one.who.ID, Health: api.NodeAlive, Since: one.began, Controller: s.o.Name,
		Applied: one.applied, Wanted: s.o.Hub.Revision(), Seen: one.seen,
	}
	states, since := s.o.Hub.Behind(one.applied)
	n.Behind, n.Lag = states, api.Duration(since)
	if n.Node.Health != "" {
		n.Health = n.Node.Health
	}
	if one.status == nil {
		return n
	}
	n.Version = one.status.Version
	for _, c := range one.status.Components {
		if c.Error != "" {
			n.Problems = append(n.Problems, c.Name+": "+c.Error)
		}
	}
	return n
}

// allNodes are all that have joined or are declared, with what the controllers
// that hold their streams tell of them.
func (s *Server) allNodes(ctx context.Context) (api.NodeList, error) {
	joined, err := s.o.Door.Identities(ctx, trust.Node)
	if err != nil {
		return api.NodeList{}, err
	}
	list := s.nodeList(nil)
	streams := map[string]api.NodeState{}
	for _, one := range s.streaming() {
		streams[one.Node.Name] = one
	}
	others, unreached := s.askOthers(ctx)
	for _, one := range others {
		if have, ok := streams[one.Node.Name]; !ok || one.Since.After(have.Since) {
			streams[one.Node.Name] = one
		}
	}
	state := s.o.Hub.State()
	byName := map[string]*api.NodeState{}
	for _, n := range state.Shared.Nodes {
		entry := state.Joined[n.Name]
		byName[n.Name] = &api.NodeState{Node: n, ID: entry.ID, Health: n.Health, Version: entry.Version, Wanted: list.Revision}
	}
	for _, one := range joined {
		if !one.Revoked.IsZero() {
			continue
		}
		n := byName[one.Name]
		if n == nil {
			n = &api.NodeState{Node: api.Node{Name: one.Name}, Wanted: list.Revision}
			byName[one.Name] = n
		}
		n.ID, n.Joined = one.ID, one.Joined
	}
	for name, n := range byName {
		if one, ok := streams[name]; ok {
			one.Node, one.Joined = n.Node, n.Joined
			*n = one
		}
		if n.Health == "" && n.Controller != "" {
			n.Health = api.NodeAlive
		}
		list.Nodes = append(list.Nodes, *n)
	}
	slices.SortFunc(list.Nodes, func(a, b api.NodeState) int { return strings.Compare(a.Node.Name, b.Node.Name) })
	list.Unreached = unreached
	return list, nil
}

// askOthers asks the other controllers for the nodes whose streams they hold.
func (s *Server) askOthers(ctx context.Context) (all []api.NodeState, unreached []string) {
	if s.o.Members == nil {
		return nil, nil
	}
	list, err := s.o.Members.List(ctx)
	if err != nil {
		return nil, []string{"the others"}
	}
	ctx, cancel := context.WithTimeout(ctx, othersWithin)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, c := range list {
		if c.Name == s.o.Name {
			continue
		}
		asking.Go(func() {
			nodes, err := s.askOther(ctx, c.URL)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.log.Debug("another controller does not tell of its nodes", "controller", c.Name, "error", err)
				unreached = append(unreached, c.Name)
			}
			all = append(all, nodes...)
		})
	}
	asking.Wait()
	slices.Sort(unreached)
	return all, unreached
}

// maxList is the longest answer of another controller, in bytes.
const maxList = 256 << 20

func (s *Server) askOther(ctx context.Context, url string) ([]api.NodeState, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+client.PathNodes+"?here=1", nil)
	if err != nil {
		return nil, err
	}
	response, err := s.others.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", response.Status)
	}
	var list api.NodeList
	err = json.NewDecoder(io.LimitReader(response.Body, maxList)).Decode(&list)
	return list.Nodes, err
}

// otherControllers is the client to ask them with.
func otherControllers(settings *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}}
}

func (s *Server) showNode(w http.ResponseWriter, r *http.Request, _ auth.Subject) error {
	if err := s.known(r); err != nil {
		return err
	}
	name := r.PathValue("name")
	list, err := s.allNodes(r.Context())
	if err != nil {
		return err
	}
	for _, n := range list.Nodes {
		if n.Node.Name == name {
			return answer(w, n)
		}
	}
	return fmt.Errorf("node %s: %w", name, store.ErrNotFound)
}

// removeNode refuses a node's certificate from now on and forgets what it told.
func (s *Server) removeNode(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	if err := s.known(r); err != nil {
		return err
	}
	name := r.PathValue("name")
	_, err := s.o.Door.Revoke(r.Context(), trust.Node, name)
	unknown := errors.Is(err, store.ErrNotFound)
	if err != nil && !unknown {
		return err
	}
	if _, known := s.o.Hub.Node(name); unknown && !known {
		return fmt.Errorf("node %s: %w", name, store.ErrNotFound)
	}
	record, err := s.o.Audit.Op(s.record(r, who, auth.Delete, "nodes/"+name, nil))
	if err != nil {
		return err
	}
	revision, err := s.o.Store.Commit(r.Context(), nil, []store.Op{
		{Key: hub.NodeKey(name), Delete: true}, {Key: hub.HealthKey(name), Delete: true}, {Key: hub.ObjectKey("node", name), Delete: true},
		gate(who.String()), record,
	})
	if err != nil {
		return fmt.Errorf("remove node %s: %w", name, err)
	}
	if s.o.Watcher != nil {
		s.o.Watcher.Forget(name)
	}
	s.wrote(revision)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// gate is written with each commit that could clash with another, or deletes.
func gate(by string) store.Op { return store.Op{Key: hub.GateKey, Value: []byte(by)} }

// drainNode declares a node to be draining, or not any more. What else is
// declared of it stays.
func (s *Server) drainNode(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	asked, err := read[api.NodeDrain](r)
	if err != nil {
		return err
	}
	if err := s.known(r); err != nil {
		return err
	}
	name := r.PathValue("name")
	if _, known := s.o.Hub.Node(name); !known {
		return fmt.Errorf("node %s: %w", name, store.ErrNotFound)
	}
	for range attempts {
		var stored api.Stored
		if stored, err = s.drain(r, who, name, asked.Draining); err == nil {
			return answer(w, stored)
		}
		if statusOf(err) != http.StatusPreconditionFailed {
			return err
		}
	}
	return err
}

func (s *Server) drain(r *http.Request, who auth.Subject, name string, draining bool) (api.Stored, error) {
	kind := hub.Kinds()["node"]
	declared := &api.Node{Name: name}
	before, err := s.o.Hub.Get("node", name)
	if err == nil {
		old, err := kind.Decode(before.Object)
		if err != nil {
			return before, err
		}
		declared = old.(*api.Node)
	}
	declared.Draining = draining
	raw, err := json.Marshal(declared)
	if err != nil {
		return before, err
	}
	one := &write{kind: kind, key: name, object: declared, raw: raw, version: &before.Version}
	revision, err := s.writeAll(r, who, auth.Put, []*write{one}, false)
	if err != nil {
		return before, err
	}
	return one.stored(revision), nil
}

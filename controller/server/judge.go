package server

import (
	"context"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/store"
)

const (
	// judgeRetry is how long a verdict waits after the store did not take it.
	judgeRetry = 200 * time.Millisecond
	// maxVerdicts in one commit, with two keys each.
	maxVerdicts = 100
	// orphansEvery is how often a leader looks for nodes without a stream.
	orphansEvery = time.Second
)

// Judge takes what is found of a node's health; it is written to the store in a
// moment, so that all controllers tell the same.
func (s *Server) Judge(node string, h api.NodeHealth) {
	s.mu.Lock()
	s.verdicts[node] = h
	s.mu.Unlock()
	select {
	case s.judged <- struct{}{}:
	default:
	}
}

// Run writes verdicts and, while leading, looks for nodes without a stream, until
// ctx ends.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.writeVerdicts(ctx) })
	g.Go(func() error { return s.lookForOrphans(ctx) })
	return g.Wait()
}

func (s *Server) writeVerdicts(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.judged:
		}
		for {
			if err := s.writeSome(ctx); err == nil {
				break
			} else if ctx.Err() == nil {
				s.log.Warn("what was found of nodes' health is not written yet", "error", err)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(judgeRetry):
			}
		}
	}
}

// writeSome writes the newest verdicts; those that are not written come again.
func (s *Server) writeSome(ctx context.Context) error {
	s.mu.Lock()
	verdicts := map[string]api.NodeHealth{}
	for node, h := range s.verdicts {
		if len(verdicts) == maxVerdicts {
			break
		}
		verdicts[node] = h
		delete(s.verdicts, node)
	}
	more := len(s.verdicts) > 0
	s.mu.Unlock()
	var ops []store.Op
	for node, h := range verdicts {
		n, known := s.o.Hub.Node(node)
		if !known || n.Health == h || n.Health == "" && h == api.NodeAlive {
			continue
		}
		ops = append(ops, store.Op{Key: hub.HealthKey(node), Value: []byte(h), Delete: h == api.NodeAlive})
	}
	if len(ops) > 0 {
		if _, err := s.o.Store.Commit(ctx, nil, append(ops, gate("health"))); err != nil {
			s.mu.Lock()
			maps.Copy(verdicts, s.verdicts) // a newer one counts
			s.verdicts = verdicts
			s.mu.Unlock()
			return err
		}
	}
	if more {
		return s.writeSome(ctx)
	}
	return nil
}

// Orphans are the nodes that no controller has a stream of, as the leader found
// a moment ago; none for a controller that does not lead.
func (s *Server) Orphans() []api.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.orphans
}

func (s *Server) lookForOrphans(ctx context.Context) error {
	ticker := time.NewTicker(orphansEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		var orphans []api.Node
		if s.o.Leads != nil && s.o.Leads() {
			orphans = s.findOrphans(ctx)
		}
		s.mu.Lock()
		s.orphans = orphans
		s.mu.Unlock()
	}
}

// findOrphans counts only nodes that have joined: of those that are declared
// alone nobody expects a word.
func (s *Server) findOrphans(ctx context.Context) []api.Node {
	select {
	case <-s.o.Hub.Ready():
	default:
		return nil
	}
	others, _ := s.askOthers(ctx)
	has := map[string]bool{}
	for _, n := range append(others, s.streaming()...) {
		has[n.Node.Name] = true
	}
	var orphans []api.Node
	state := s.o.Hub.State()
	for _, n := range state.Shared.Nodes {
		if _, joined := state.Joined[n.Name]; joined && !has[n.Name] {
			orphans = append(orphans, n)
		}
	}
	return orphans
}

package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/auth"
)

// maxReport is the longest line of a report, in bytes.
const maxReport = 16 << 20

// session is a node's stream and its reports, at this controller.
type session struct {
	who   auth.Subject
	began time.Time
	out   chan api.Frame // probes and commands, to go out beside the state

	mu      sync.Mutex // guards what follows
	applied uint64
	wanted  uint64
	seen    time.Time
	status  *api.Status
}

// outgoing frames beside the state that may wait.
const outgoing = 64

// open makes a node's session, in the place of one before: a node whose network
// went away comes back before the old stream is known to be dead.
func (s *Server) open(who auth.Subject) *session {
	one := &session{who: who, began: time.Now(), out: make(chan api.Frame, outgoing)}
	s.mu.Lock()
	s.sessions[who.Name] = one
	s.count()
	s.mu.Unlock()
	if s.o.Watcher != nil {
		s.o.Watcher.Opened(s.nodeOf(who))
	}
	return one
}

// count tells how many streams there are. It is called with the lock held.
func (s *Server) count() {
	s.metrics.streams.Set(float64(len(s.sessions)))
	s.o.Hub.SetFollowers(len(s.sessions))
}

// close ends it, unless another has taken its place.
func (s *Server) close(one *session) {
	s.mu.Lock()
	last := s.sessions[one.who.Name] == one
	if last {
		delete(s.sessions, one.who.Name)
	}
	s.count()
	s.mu.Unlock()
	if last && s.o.Watcher != nil {
		s.o.Watcher.Closed(one.who.Name)
	}
}

func (s *Server) session(node string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[node]
}

// nodeOf is the node as the state has it, or its name alone.
func (s *Server) nodeOf(who auth.Subject) api.Node {
	if n, ok := s.o.Hub.Node(who.Name); ok {
		return n
	}
	return api.Node{Name: who.Name}
}

// Send puts a frame on a node's stream; false when this controller does not
// hold it or too much waits.
func (s *Server) Send(node string, f api.Frame) bool {
	one := s.session(node)
	if one == nil {
		return false
	}
	select {
	case one.out <- f:
		return true
	default:
		return false
	}
}

// Ask sends a probe or a command to a node and gives each report with its
// answer to take, until that returns false.
func (s *Server) Ask(ctx context.Context, node, id string, f api.Frame, take func(api.Report) (more bool)) error {
	answers := make(chan api.Report, 16)
	s.mu.Lock()
	s.asked[id] = answers
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.asked, id)
		s.mu.Unlock()
	}()
	if !s.Send(node, f) {
		return fmt.Errorf("ask node %s: its stream is not at this controller", node)
	}
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("ask node %s: %w", node, ctx.Err())
		case r := <-answers:
			if !take(r) {
				return nil
			}
		}
	}
}

// Probe asks a node whether it reaches another.
func (s *Server) Probe(ctx context.Context, via string, p api.Probe) (reached bool, err error) {
	err = s.Ask(ctx, via, p.ID, api.Frame{Type: api.FrameProbe, Probe: &p}, func(r api.Report) bool {
		reached = r.Probe.Reached
		return false
	})
	return reached, err
}

// report takes what a node tells, line by line, as long as it goes on.
func (s *Server) report(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	ended, stop := s.o.Door.Ended(who)
	defer stop()
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(make([]byte, 64<<10), maxReport)
	// The body outlives every time limit; what ends it is the node, or this.
	done := make(chan struct{})
	control := http.NewResponseController(w)
	var ending sync.WaitGroup
	ending.Go(func() {
		select {
		case <-done:
			return
		case <-ended:
		case <-s.stop:
		}
		_ = control.SetReadDeadline(time.Now())
	})
	defer ending.Wait() // w is of no use after this
	defer close(done)
	facts := newFacts(s, who)
	defer facts.close()
	for lines.Scan() {
		var one api.Report
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return badRequest("read a report: %w", err)
		}
		s.hear(who, &one)
		if one.Status != nil {
			facts.tell(one.Status)
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && r.Context().Err() == nil {
		return badRequest("read the reports: %w", err)
	}
	return nil
}

// hear takes one report.
func (s *Server) hear(who auth.Subject, r *api.Report) {
	if one := s.session(who.Name); one != nil {
		one.mu.Lock()
		if r.Applied > one.applied {
			if lag := s.o.Hub.Age(r.Applied); one.applied > 0 && lag > 0 {
				s.metrics.lag.Observe(lag.Seconds())
			}
			one.applied = r.Applied
		}
		one.wanted, one.seen = max(one.wanted, r.Wanted), time.Now()
		if r.Status != nil {
			one.status = r.Status
		}
		one.mu.Unlock()
	}
	if s.o.Watcher != nil {
		s.o.Watcher.Heard(who.Name, r)
	}
	if s.o.Tasks != nil && (len(r.Tasks) > 0 || r.All) {
		s.o.Tasks(who.Name, r.Tasks, r.All)
	}
	id := ""
	switch {
	case r.Probe != nil:
		id = r.Probe.ID
	case r.Result != nil:
		id = r.Result.ID
	default:
		return
	}
	s.mu.Lock()
	answers := s.asked[id]
	s.mu.Unlock()
	if answers != nil {
		select {
		case answers <- *r:
		default: // nobody takes them any more
		}
	}
}

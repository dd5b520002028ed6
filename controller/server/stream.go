package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/hub"
)

const (
	// heartbeat is how often a stream without news shows that it is alive.
	heartbeat = time.Second
	// writeWithin is how long a node may take to take what is written.
	writeWithin = 10 * time.Second
)

// line is one stream's writer.
type line struct {
	server  *Server
	w       http.ResponseWriter
	control *http.ResponseController
	node    string
}

func (l *line) write(kind api.FrameType, text []byte) error {
	if err := l.control.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	l.server.metrics.frames.WithLabelValues(string(kind)).Inc()
	l.server.metrics.bytes.Add(float64(len(text)))
	_, err := l.w.Write(text)
	return err
}

func (l *line) frame(f api.Frame) error {
	f.Time = time.Now()
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return l.write(f.Type, append(text, '\n'))
}

// stream is a node's: its wanted state, and each change.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	if err := s.known(r); err != nil {
		return err
	}
	revision, _ := strconv.ParseUint(r.FormValue("revision"), 10, 64)
	one := s.open(who)
	defer s.close(one)
	ended, stop := s.o.Door.Ended(who)
	defer stop()
	w.Header().Set("Content-Type", "application/x-ndjson")
	l := &line{server: s, w: w, control: http.NewResponseController(w), node: who.Name}
	var from place
	if r.FormValue("epoch") == s.o.Hub.Epoch() && revision > 0 {
		from = place{s.o.Hub.From(revision), revision}
	}
	hello := api.Frame{
		Type: api.FrameHello, Epoch: s.o.Hub.Epoch(), Revision: s.o.Hub.Revision(), Resumed: from.at != nil,
		ClusterID: s.o.Authority.ClusterID(), Controllers: s.o.Controllers(),
	}
	if err := l.frame(hello); err != nil {
		return nil // it has gone
	}
	if err := s.follow(r.Context(), l, one, from, r.FormValue("packed") == "gzip", ended); err != nil && r.Context().Err() == nil {
		s.log.Info("stream ended", "node", who.Name, "error", err)
	}
	return nil
}

// follow writes what comes until somebody ends it.
func (s *Server) follow(ctx context.Context, l *line, one *session, p place, packed bool, ended <-chan struct{}) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		var err error
		if p, err = l.catchUp(p, packed); err != nil {
			return err
		}
		if err := l.control.Flush(); err != nil {
			return err
		}
		if s.session(l.node) != one {
			return fmt.Errorf("the node has opened another stream")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.at.Next():
		case <-beat.C:
			err = l.frame(api.Frame{Type: api.FrameHeartbeat, Revision: p.revision})
		case f := <-one.out:
			err = l.frame(f)
		case <-ended:
			_ = l.frame(api.Frame{Type: api.FrameBye, Bye: &api.Bye{Reason: "the node was removed from the cluster", Final: true}})
			return l.control.Flush()
		case <-s.stop:
			_ = l.frame(api.Frame{Type: api.FrameBye, Bye: &api.Bye{Reason: "this controller stops"}})
			return l.control.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// catchUp writes what has changed, or the whole state where no change leads to
// that of now.
func (l *line) catchUp(p place, packed bool) (place, error) {
	h := l.server.o.Hub
	for {
		if p.at == nil {
			state, crumb := h.Base()
			p = place{crumb, state.Shared.Revision}
			if err := l.write(api.FrameSnapshot, state.Whole(l.node, h.Epoch(), packed)); err != nil {
				return p, err
			}
		}
		texts, now, ok := h.Lines(l.node, p.revision, p.at)
		if !ok {
			p.at = nil
			continue
		}
		for _, text := range texts {
			if err := l.write(api.FrameChange, text); err != nil {
				return p, err
			}
		}
		p = place{now, max(p.revision, now.Revision())}
		return p, nil
	}
}

// place is where a node stands: at the crumb, or after it and before the next,
// since it may come from another controller.
type place struct {
	at       *hub.Crumb
	revision uint64
}

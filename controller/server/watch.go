package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/store"
)

// watch tells of changes of objects, in order and without a gap, from after a
// revision; without one, all that is there first. Lines of JSON, or events for
// browsers where these are asked for (text/event-stream).
func (s *Server) watch(w http.ResponseWriter, r *http.Request, _ auth.Subject) error {
	kind := r.FormValue("kind")
	if _, ok := hub.Kinds()[kind]; kind != "" && !ok {
		return noKind(kind)
	}
	after := r.FormValue("after")
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		after = last
	}
	out := &watching{w: w, control: http.NewResponseController(w), events: strings.Contains(r.Header.Get("Accept"), "text/event-stream")}
	prefix := hub.ObjectPrefix
	if kind != "" {
		prefix = hub.ObjectKey(kind, "")
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	revision, err := s.watchFrom(ctx, out, prefix, after)
	if err != nil {
		return err
	}
	return out.follow(ctx, s.o.Store, prefix, revision)
}

// watchFrom is the revision to begin after. Where none is asked for it tells
// what there is.
func (s *Server) watchFrom(ctx context.Context, out *watching, prefix, after string) (uint64, error) {
	if after != "" {
		revision, err := strconv.ParseUint(after, 10, 64)
		if err != nil {
			return 0, badRequest("after: %q is no revision", after)
		}
		return revision, nil
	}
	entries, revision, err := s.o.Store.List(ctx, prefix)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if err := out.tell("put", revision, store.Event{Entry: e}); err != nil {
			return 0, nil
		}
	}
	if err := out.send(api.WatchEvent{Type: "sync", Revision: revision}); err != nil {
		return 0, nil // it has gone
	}
	return revision, out.control.Flush()
}

// watching writes one watch.
type watching struct {
	w       http.ResponseWriter
	control *http.ResponseController
	events  bool
	begun   bool
}

func (o *watching) follow(ctx context.Context, s store.Store, prefix string, after uint64) error {
	beat := time.NewTicker(15 * heartbeat)
	defer beat.Stop()
	batches := s.Watch(ctx, prefix, after)
	for {
		select {
		case <-ctx.Done():
			return nil
		case batch, ok := <-batches:
			switch {
			case !ok:
				return nil
			case batch.Err != nil && !o.begun:
				return batch.Err
			case batch.Err != nil:
				_ = o.send(api.WatchEvent{Type: "error"})
				return nil
			}
			after = batch.Revision
			for _, e := range batch.Events {
				verb := "put"
				if e.Deleted {
					verb = "delete"
				}
				if o.tell(verb, batch.Revision, e) != nil {
					return nil
				}
			}
		case <-beat.C:
			if o.send(api.WatchEvent{Type: "heartbeat", Revision: after}) != nil {
				return nil
			}
		}
		if o.control.Flush() != nil || o.control.SetWriteDeadline(time.Time{}) != nil {
			return nil
		}
	}
}

func (o *watching) tell(verb string, revision uint64, e store.Event) error {
	kind, key, _ := strings.Cut(strings.TrimPrefix(e.Key, hub.ObjectPrefix), "/")
	object := &api.Stored{Kind: kind, Key: key, Version: e.Version}
	if !e.Deleted {
		object.Object = e.Value
	}
	return o.send(api.WatchEvent{Type: verb, Revision: revision, Object: object})
}

func (o *watching) send(e api.WatchEvent) error {
	if !o.begun {
		o.begun = true
		media := "application/x-ndjson"
		if o.events {
			media = "text/event-stream"
		}
		o.w.Header().Set("Content-Type", media)
		o.w.WriteHeader(http.StatusOK)
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := o.control.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	if o.events {
		_, err = fmt.Fprintf(o.w, "id: %d\nevent: %s\ndata: %s\n\n", e.Revision, e.Type, text)
	} else {
		_, err = o.w.Write(append(text, '\n'))
	}
	return err
}

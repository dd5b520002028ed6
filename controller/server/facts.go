package server

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/store"
)

// facts writes what a node says of itself into the store when it has changed,
// beside the reports so that these are not held up.
type facts struct {
	server *Server
	who    auth.Subject
	newest chan hub.NodeEntry
	stop   context.CancelFunc
	done   chan struct{}
}

func newFacts(s *Server, who auth.Subject) *facts {
	ctx, cancel := context.WithCancel(context.Background())
	f := &facts{server: s, who: who, newest: make(chan hub.NodeEntry, 1), stop: cancel, done: make(chan struct{})}
	go f.run(ctx)
	return f
}

func (f *facts) close() {
	f.stop()
	<-f.done
}

func (f *facts) tell(status *api.Status) {
	n := status.Node
	n.Name, n.Health, n.Draining = f.who.Name, "", false
	entry := hub.NodeEntry{ID: f.who.ID, Node: n, Version: status.Version}
	select {
	case <-f.newest:
	default:
	}
	f.newest <- entry
}

func (f *facts) run(ctx context.Context) {
	defer close(f.done)
	var written hub.NodeEntry
	for {
		select {
		case <-ctx.Done():
			return
		case entry := <-f.newest:
			if reflect.DeepEqual(entry, written) {
				continue
			}
			if err := f.write(ctx, entry); err != nil {
				if ctx.Err() == nil {
					f.server.log.Warn("what a node says of itself is not kept", "node", f.who.Name, "error", err)
				}
				continue // the next status brings it again
			}
			written = entry
		}
	}
}

// write keeps the entry while the node is a member.
func (f *facts) write(ctx context.Context, entry hub.NodeEntry) error {
	if len(entry.Node.Addresses) == 0 {
		return nil
	}
	value, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	// A node that is being removed must not come back by its last words.
	identity, err := f.server.o.Store.Get(ctx, auth.IdentityKey(f.who.Kind, f.who.ID))
	var member struct{ Revoked time.Time }
	if err == nil {
		err = json.Unmarshal(identity.Value, &member)
	}
	if err != nil || !member.Revoked.IsZero() {
		return err
	}
	key := hub.NodeKey(f.who.Name)
	old, err := f.server.o.Store.Get(ctx, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if string(old.Value) == string(value) {
		return nil
	}
	_, err = f.server.o.Store.Commit(ctx, []store.Condition{
		{Key: key, Version: old.Version}, {Key: identity.Key, Version: identity.Version},
	}, []store.Op{{Key: key, Value: value}})
	return err
}

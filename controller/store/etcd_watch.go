package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// retryWatch is how long a watch that broke waits before it goes on.
const retryWatch = 200 * time.Millisecond

// Watch goes on by itself where it was, over losses of the connection and of
// the quorum.
func (s *Etcd) Watch(ctx context.Context, prefix string, after uint64) <-chan Batch {
	out := make(chan Batch)
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			var err error
			if after, err = s.watch(ctx, prefix, after, out); err != nil {
				send(ctx, out, Batch{Err: err})
				return
			}
			select {
			case <-ctx.Done():
			case <-s.client.Ctx().Done():
				send(ctx, out, Batch{Err: errClosed})
				return
			case <-time.After(retryWatch):
			}
		}
	}()
	return out
}

// watch follows one watch of etcd until it breaks, and returns the last
// revision that was handed over. An error is the end.
func (s *Etcd) watch(ctx context.Context, prefix string, after uint64, out chan<- Batch) (uint64, error) {
	// Without WithRequireLeader a member that is cut off keeps a watch open in
	// which nothing comes, and the client would not turn to another endpoint.
	// It also parts the stream of this watch from all others.
	one, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	answers := s.client.Watch(one, s.prefix+prefix, clientv3.WithPrefix(), clientv3.WithRev(int64(after)+1), clientv3.WithProgressNotify())
	for answer := range answers {
		if answer.CompactRevision != 0 {
			return after, fmt.Errorf("watch %s from %d: %w", prefix, after+1, ErrCompacted)
		}
		if err := answer.Err(); err != nil {
			s.log.Debug("watch broke off", "prefix", prefix, "after", after, "error", err)
			return after, nil
		}
		for len(answer.Events) > 0 {
			var batch Batch
			batch, answer.Events = s.first(answer.Events)
			if batch.Revision <= after {
				continue
			}
			if !send(ctx, out, batch) {
				return after, nil
			}
			after = batch.Revision
		}
		if answer.IsProgressNotify() { // nothing of ours up to here
			after = max(after, uint64(answer.Header.Revision))
		}
	}
	return after, nil
}

// first takes the events of the first revision. etcd never parts a revision's
// events over two answers, unless it is asked to.
func (s *Etcd) first(events []*clientv3.Event) (Batch, []*clientv3.Event) {
	batch := Batch{Revision: uint64(events[0].Kv.ModRevision)}
	for len(events) > 0 && uint64(events[0].Kv.ModRevision) == batch.Revision {
		e := Event{Entry: s.entry(events[0].Kv), Deleted: events[0].Type == clientv3.EventTypeDelete}
		batch.Events, events = append(batch.Events, e), events[1:]
	}
	return batch, events
}

func (s *Etcd) entry(kv *mvccpb.KeyValue) Entry {
	return Entry{
		Key: strings.TrimPrefix(string(kv.Key), s.prefix), Value: kv.Value,
		Version: uint64(kv.ModRevision), Created: uint64(kv.CreateRevision),
	}
}

// ended tells whether a wait was ended by the caller or by Close.
func (s *Etcd) ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.client.Ctx().Err() != nil {
		return errClosed
	}
	return nil
}

// pause waits, or returns why not.
func (s *Etcd) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-s.client.Ctx().Done():
	}
	return s.ended(ctx)
}

var errNoLease = errors.New("the lease is over")

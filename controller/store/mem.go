package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// memHistory is how many revisions a store in memory keeps for watches.
const memHistory = 10_000

// Mem is a store in this process's memory, for tests and for a trial of one
// node. It is gone when the process ends.
type Mem struct {
	mu       sync.Mutex
	entries  map[string]Entry
	revision uint64
	first    uint64        // revision of history[0]
	history  []Batch       // one per revision
	changed  chan struct{} // closed at the next change
	closed   chan struct{} // closed by Close
}

// NewMem makes an empty store. Its first commit has the revision 2, as etcd's.
func NewMem() *Mem {
	return &Mem{entries: map[string]Entry{}, revision: 1, first: 2, changed: make(chan struct{}), closed: make(chan struct{})}
}

var errClosed = fmt.Errorf("%w: it is closed", ErrUnavailable)

func (m *Mem) usable(ctx context.Context) error {
	select {
	case <-m.closed:
		return errClosed
	default:
		return ctx.Err()
	}
}

// Get returns one key.
func (m *Mem) Get(ctx context.Context, key string) (Entry, error) {
	if err := m.usable(ctx); err != nil {
		return Entry{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return Entry{}, fmt.Errorf("get %s: %w", key, ErrNotFound)
	}
	return e.clone(), nil
}

// List returns the keys below a prefix.
func (m *Mem) List(ctx context.Context, prefix string) ([]Entry, uint64, error) {
	if err := m.usable(ctx); err != nil {
		return nil, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Entry
	for key, e := range m.entries {
		if strings.HasPrefix(key, prefix) {
			all = append(all, e.clone())
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	return all, m.revision, nil
}

// Peek is List.
func (m *Mem) Peek(ctx context.Context, prefix string) ([]Entry, uint64, error) {
	return m.List(ctx, prefix)
}

// Commit writes all or nothing.
func (m *Mem) Commit(ctx context.Context, conditions []Condition, ops []Op) (uint64, error) {
	if err := errors.Join(m.usable(ctx), check(conditions, ops)); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range conditions {
		if m.entries[c.Key].Version != c.Version {
			return 0, fmt.Errorf("commit: %s: %w", c.Key, ErrConflict)
		}
	}
	batch := Batch{Revision: m.revision + 1}
	for _, op := range ops {
		old, there := m.entries[op.Key]
		e := Entry{Key: op.Key, Version: batch.Revision, Created: batch.Revision}
		switch {
		case op.Delete && !there:
			continue
		case op.Delete:
			delete(m.entries, op.Key)
			e.Created = 0
		default:
			if there {
				e.Created = old.Created
			}
			e.Value = slices.Clone(op.Value)
			m.entries[op.Key] = e
		}
		batch.Events = append(batch.Events, Event{Entry: e, Deleted: op.Delete})
	}
	if len(batch.Events) > 0 {
		m.append(batch)
	}
	return m.revision, nil
}

// append makes the batch the newest revision. The caller holds mu.
func (m *Mem) append(batch Batch) {
	m.revision = batch.Revision
	m.history = append(m.history, batch)
	if spare := len(m.history) - memHistory; spare > memHistory/10 {
		m.forget(spare)
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

// forget drops the oldest revisions. The caller holds mu.
func (m *Mem) forget(n int) {
	m.first += uint64(n)
	m.history = slices.Clone(m.history[n:])
}

// Compact forgets the history before a revision.
func (m *Mem) Compact(ctx context.Context, revision uint64) error {
	if err := m.usable(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if revision > m.revision {
		return fmt.Errorf("compact: the revision %d is not there yet", revision)
	}
	if revision > m.first {
		m.forget(int(revision - m.first))
	}
	return nil
}

// Watch sends changes in order.
func (m *Mem) Watch(ctx context.Context, prefix string, after uint64) <-chan Batch {
	out := make(chan Batch)
	go func() {
		defer close(out)
		for {
			batch, changed := m.next(after)
			switch {
			case batch.Err != nil:
				send(ctx, out, batch)
				return
			case changed != nil:
				select {
				case <-changed:
					continue
				case <-m.closed:
					send(ctx, out, Batch{Err: errClosed})
					return
				case <-ctx.Done():
					return
				}
			}
			after = batch.Revision
			if batch = batch.below(prefix); len(batch.Events) > 0 && !send(ctx, out, batch) {
				return
			}
		}
	}()
	return out
}

// next is the batch after a revision, or what to wait on for one.
func (m *Mem) next(after uint64) (Batch, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case after+1 < m.first:
		return Batch{Err: fmt.Errorf("watch from %d: %w", after+1, ErrCompacted)}, nil
	case after >= m.revision:
		return Batch{}, m.changed
	default:
		return m.history[after+1-m.first], nil
	}
}

// send hands a batch over unless ctx ends first.
func send(ctx context.Context, out chan<- Batch, batch Batch) bool {
	select {
	case out <- batch:
		return true
	case <-ctx.Done():
		return false
	}
}

// below keeps the events below a prefix. Values are copied, so that no receiver
// spoils another's.
func (b Batch) below(prefix string) Batch {
	all := b.Events
	b.Events = nil
	for _, e := range all {
		if strings.HasPrefix(e.Key, prefix) {
			e.Entry = e.clone()
			b.Events = append(b.Events, e)
		}
	}
	return b
}

func (e Entry) clone() Entry {
	e.Value = slices.Clone(e.Value)
	return e
}

// Backup is not offered.
func (m *Mem) Backup(context.Context, io.Writer) error {
	return fmt.Errorf("back up a store in memory: %w", errors.ErrUnsupported)
}

// Health is always well until Close.
func (m *Mem) Health(ctx context.Context) (Health, error) {
	if err := m.usable(ctx); err != nil {
		return Health{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return Health{Revision: m.revision, Leader: true}, nil
}

// Close ends all watches with ErrUnavailable.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.closed:
	default:
		close(m.closed)
	}
	return nil
}

package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// fence is a leadership.
type fence Condition

func (f fence) Fence() Condition { return Condition(f) }

// Lead waits until nobody leads.
func (m *Mem) Lead(ctx context.Context, name, id string, do func(context.Context, Leadership) error) error {
	key := LeadPrefix + name + "/leader"
	for {
		m.mu.Lock()
		_, taken := m.entries[key]
		changed := m.changed
		m.mu.Unlock()
		if !taken {
			version, err := m.Commit(ctx, []Condition{{Key: key}}, []Op{{Key: key, Value: []byte(id)}})
			switch {
			case err == nil:
				return m.led(ctx, fence{Key: key, Version: version}, do)
			case !errors.Is(err, ErrConflict):
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-m.closed:
			return errClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// led runs do for as long as the fence holds, and takes it down after that.
func (m *Mem) led(ctx context.Context, held fence, do func(context.Context, Leadership) error) error {
	leading, stop := context.WithCancel(ctx)
	defer stop()
	watch := m.Watch(leading, held.Key, held.Version)
	go func() {
		<-watch // a change of the key, or the end of the store
		stop()
	}()
	defer func() {
		_, _ = m.Commit(context.WithoutCancel(ctx), []Condition{Condition(held)}, []Op{{Key: held.Key, Delete: true}})
	}()
	return do(leading, held)
}

// Leader is the id of the present leader.
func (m *Mem) Leader(ctx context.Context, name string) (string, error) {
	return leader(ctx, m, name)
}

// leader reads who was first among the candidates.
func leader(ctx context.Context, s Store, name string) (string, error) {
	all, _, err := s.List(ctx, LeadPrefix+name+"/")
	if err != nil {
		return "", err
	}
	var first Entry
	for _, e := range all {
		if strings.Contains(strings.TrimPrefix(e.Key, LeadPrefix+name+"/"), "/") {
			continue // of a longer name
		}
		if first.Key == "" || e.Created < first.Created {
			first = e
		}
	}
	if first.Key == "" {
		return "", fmt.Errorf("leader of %s: %w", name, ErrNotFound)
	}
	return string(first.Value), nil
}

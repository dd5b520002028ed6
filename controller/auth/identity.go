package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/store"
)

// Where the door keeps what it knows.
const (
	prefix         = "auth/"
	identityPrefix = prefix + "identity/" // kind/id: identity
	namePrefix     = prefix + "name/"     // kind/name: id
	tokenPrefix    = prefix + "token/"    // id: token
)

// identity is a node, an operator or a controller that has come in.
type identity struct {
	Name    string    `json:"name"`
	Key     string    `json:"key,omitempty"` // hash of its public key
	Joined  time.Time `json:"joined"`
	Token   string    `json:"token,omitempty"` // id of the token it came with
	Revoked time.Time `json:"revoked,omitzero"`

	version uint64 // in the store
}

// Identity is who has come in.
type Identity struct {
	Subject
	Joined  time.Time
	Revoked time.Time // zero while it is welcome
}

// IdentityKey is where the store keeps who came in.
func IdentityKey(kind trust.Kind, id string) string { return identityPrefix + string(kind) + "/" + id }

// NameKey is where the store keeps the id of who has a name.
func NameKey(kind trust.Kind, name string) string { return namePrefix + string(kind) + "/" + name }

// identity asks memory, then the store: somebody may have come in by another
// controller a moment ago.
func (d *Door) identity(ctx context.Context, kind trust.Kind, id string) (identity, error) {
	key := IdentityKey(kind, id)
	d.mu.RLock()
	known, ok := d.identities[key]
	d.mu.RUnlock()
	if ok {
		return known, nil
	}
	return load[identity](ctx, d.store, key)
}

// load reads one record.
func load[T any](ctx context.Context, s store.Store, key string) (T, error) {
	var record T
	e, err := s.Get(ctx, key)
	if err != nil {
		return record, err
	}
	return decode[T](e)
}

func decode[T any](e store.Entry) (T, error) {
	var record T
	if err := json.Unmarshal(e.Value, &record); err != nil {
		return record, fmt.Errorf("read %s: %w", e.Key, err)
	}
	switch r := any(&record).(type) {
	case *identity:
		r.version = e.Version
	case *token:
		r.version = e.Version
	}
	return record, nil
}

// Identities lists who has come in, those that were removed too.
func (d *Door) Identities(ctx context.Context, kind trust.Kind) ([]Identity, error) {
	entries, _, err := d.store.List(ctx, identityPrefix+string(kind)+"/")
	if err != nil {
		return nil, err
	}
	all := make([]Identity, 0, len(entries))
	for _, e := range entries {
		one, err := decode[identity](e)
		if err != nil {
			return nil, err
		}
		id := strings.TrimPrefix(e.Key, identityPrefix+string(kind)+"/")
		all = append(all, Identity{Subject: Subject{Kind: kind, Name: one.Name, ID: id}, Joined: one.Joined, Revoked: one.Revoked})
	}
	return all, nil
}

// Find returns who has a name now, or store.ErrNotFound.
func (d *Door) Find(ctx context.Context, kind trust.Kind, name string) (Subject, error) {
	e, err := d.store.Get(ctx, NameKey(kind, name))
	if err != nil {
		return Subject{}, fmt.Errorf("find %s %s: %w", kind, name, err)
	}
	return Subject{Kind: kind, Name: name, ID: string(e.Value)}, nil
}

// Revoke removes who has the name: its certificate is refused from now on, its
// streams end (see Ended), and the name is free. store.ErrNotFound when nobody
// has it.
func (d *Door) Revoke(ctx context.Context, kind trust.Kind, name string) (Subject, error) {
	s, err := d.Find(ctx, kind, name)
	if err != nil {
		return s, err
	}
	known, err := load[identity](ctx, d.store, IdentityKey(kind, s.ID))
	if err != nil {
		return s, err
	}
	conditions, ops, err := d.revocation(s, known)
	if err != nil {
		return s, err
	}
	ops = append(ops, store.Op{Key: NameKey(kind, name), Delete: true})
	if _, err := d.store.Commit(ctx, conditions, ops); err != nil {
		return s, fmt.Errorf("remove %s: %w", s, err)
	}
	return s, nil
}

func (d *Door) revocation(s Subject, known identity) ([]store.Condition, []store.Op, error) {
	key, version := IdentityKey(s.Kind, s.ID), known.version
	known.Revoked = d.now()
	value, err := json.Marshal(known)
	return []store.Condition{{Key: key, Version: version}}, []store.Op{{Key: key, Value: value}}, err
}

// Ended is closed when the subject is removed, or has joined anew with another
// key. stop frees it.
func (d *Door) Ended(s Subject) (ended <-chan struct{}, stop func()) {
	key, c := IdentityKey(s.Kind, s.ID), make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, ok := d.identities[key]; ok && !known.Revoked.IsZero() {
		close(c)
		return c, func() {}
	}
	d.ended[key] = append(d.ended[key], c)
	return c, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ended[key] = without(d.ended[key], c)
		if len(d.ended[key]) == 0 {
			delete(d.ended, key)
		}
	}
}

func without(all []chan struct{}, one chan struct{}) []chan struct{} {
	var rest []chan struct{}
	for _, c := range all {
		if c != one {
			rest = append(rest, c)
		}
	}
	return rest
}

// Run keeps identities and tokens in memory until ctx ends, so that the door
// also knows them while the store is away.
func (d *Door) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := d.follow(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("identities are not followed, trying again", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

func (d *Door) follow(ctx context.Context) error {
	entries, revision, err := d.store.Peek(ctx, prefix)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.identities, d.tokens = map[string]identity{}, map[string]token{}
	for _, e := range entries {
		d.take(store.Event{Entry: e})
	}
	for key := range d.ended {
		if _, ok := d.identities[key]; !ok {
			d.end(key)
		}
	}
	d.mu.Unlock()
	for batch := range d.store.Watch(ctx, prefix, revision) {
		if batch.Err != nil {
			return batch.Err
		}
		d.mu.Lock()
		for _, e := range batch.Events {
			d.take(e)
		}
		d.mu.Unlock()
	}
	return errors.New("the watch has ended")
}

// take brings one change into memory. The caller holds mu.
func (d *Door) take(e store.Event) {
	switch {
	case strings.HasPrefix(e.Key, identityPrefix):
		one, err := decode[identity](e.Entry)
		old, had := d.identities[e.Key]
		if e.Deleted || err != nil || !one.Revoked.IsZero() || (had && old.Key != one.Key) {
			d.end(e.Key)
		}
		delete(d.identities, e.Key)
		if !e.Deleted && err == nil {
			d.identities[e.Key] = one
		}
	case strings.HasPrefix(e.Key, tokenPrefix):
		delete(d.tokens, e.Key)
		if one, err := decode[token](e.Entry); !e.Deleted && err == nil {
			d.tokens[e.Key] = one
		}
	}
}

// end tells those who wait that an identity is over. The caller holds mu.
func (d *Door) end(key string) {
	for _, c := range d.ended[key] {
		close(c)
	}
	delete(d.ended, key)
}

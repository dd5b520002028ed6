package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/store"
)

// attempts of a commit that others' commits got in the way of.
const attempts = 8

// ErrTaken is of a name or an id that somebody else has.
var ErrTaken = errors.New("taken")

// Join lets somebody in by a token for the role: it counts the use of the
// token, keeps the identity, both or neither, and signs a certificate. The
// error wraps ErrUnauthenticated for a bad token, ErrTaken for a name that
// another has, and names the field of what else is wrong. Who has lost its
// certificate but kept its key joins again under its name without Replace.
func (d *Door) Join(ctx context.Context, role Role, j api.Join) (api.Joined, Subject, error) {
	who := Subject{Kind: role.kind(), Name: j.Name, ID: j.ID}
	request, err := checkJoin(j)
	if err != nil {
		return api.Joined{}, who, err
	}
	for range attempts {
		if err = d.admit(ctx, role, who, j, keyHash(request.RawSubjectPublicKeyInfo)); !errors.Is(err, store.ErrConflict) {
			break
		}
	}
	if err != nil {
		return api.Joined{}, who, fmt.Errorf("let %s in: %w", who, err)
	}
	joined, err := d.authority.sign(request, who, j.Hosts)
	return joined, who, err
}

// admit counts the token and keeps the identity in one commit.
func (d *Door) admit(ctx context.Context, role Role, who Subject, j api.Join, key string) error {
	// From the store, not from memory: the condition needs its newest version.
	shown, kept, err := d.checkToken(ctx, j.Token, role)
	if err != nil {
		return err
	}
	if kept, err = load[token](ctx, d.store, tokenPrefix+shown.ID); err != nil {
		return err
	}
	if kept.Uses > 0 && kept.Used >= kept.Uses {
		return fmt.Errorf("%w: the token %s has been used already", ErrUnauthenticated, shown.ID)
	}
	if kept.Node != "" && kept.Node != who.Name {
		return fmt.Errorf("%w: the token %s is for the node %s", ErrUnauthenticated, shown.ID, kept.Node)
	}
	spent, err := kept.spend(shown.ID)
	if err != nil {
		return err
	}
	conditions, ops, err := d.place(ctx, who, identity{Name: who.Name, Key: key, Joined: d.now(), Token: shown.ID}, j.Replace)
	if err != nil {
		return err
	}
	conditions = append(conditions, spent.condition)
	if kept.Uses > 0 { // else many may come in at the same time
		ops = append(ops, spent.op)
	}
	_, err = d.store.Commit(ctx, conditions, ops)
	return err
}

// place finds room for an identity: its id and its name.
func (d *Door) place(ctx context.Context, who Subject, one identity, replace bool) ([]store.Condition, []store.Op, error) {
	old, err := load[identity](ctx, d.store, IdentityKey(who.Kind, who.ID))
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return nil, nil, err
	case old.Revoked.IsZero() && old.Key != one.Key && !(replace && old.Name == one.Name):
		return nil, nil, fmt.Errorf("id: %w: %s has it", ErrTaken, old.Name)
	}
	value, err := json.Marshal(one)
	if err != nil {
		return nil, nil, err
	}
	conditions := []store.Condition{{Key: IdentityKey(who.Kind, who.ID), Version: old.version}}
	ops := []store.Op{{Key: IdentityKey(who.Kind, who.ID), Value: value}}

	name, err := d.store.Get(ctx, NameKey(who.Kind, who.Name))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, nil, err
	}
	conditions = append(conditions, store.Condition{Key: NameKey(who.Kind, who.Name), Version: name.Version})
	ops = append(ops, store.Op{Key: NameKey(who.Kind, who.Name), Value: []byte(who.ID)})
	if other := string(name.Value); err == nil && other != who.ID {
		more, out, err := d.sendAway(ctx, Subject{Kind: who.Kind, Name: who.Name, ID: other}, replace)
		if err != nil {
			return nil, nil, err
		}
		conditions, ops = append(conditions, more...), append(ops, out...)
	}
	if old.version != 0 && old.Name != who.Name { // it comes back under another name
		if before, err := d.store.Get(ctx, NameKey(who.Kind, old.Name)); err == nil && string(before.Value) == who.ID {
			conditions = append(conditions, store.Condition{Key: before.Key, Version: before.Version})
			ops = append(ops, store.Op{Key: before.Key, Delete: true})
		}
	}
	return conditions, ops, nil
}

// sendAway frees a name that somebody else has.
func (d *Door) sendAway(ctx context.Context, other Subject, replace bool) ([]store.Condition, []store.Op, error) {
	if !replace {
		return nil, nil, fmt.Errorf("name: %w: %s %s has joined under it; remove it, or join with replace", ErrTaken, other.Kind, other.Name)
	}
	known, err := load[identity](ctx, d.store, IdentityKey(other.Kind, other.ID))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	return d.revocation(other, known)
}

// Renew signs a new certificate for a subject that Renewing has found. It must
// be for the same key, so that an answer that is lost does no harm.
func (d *Door) Renew(ctx context.Context, who Subject, j api.Join) (api.Joined, error) {
	j.ID, j.Name = who.ID, who.Name
	request, err := checkJoin(j)
	if err != nil {
		return api.Joined{}, err
	}
	known, err := d.identity(ctx, who.Kind, who.ID)
	if err != nil {
		return api.Joined{}, fmt.Errorf("renew the certificate of %s: %w", who, err)
	}
	if known.Key != keyHash(request.RawSubjectPublicKeyInfo) {
		return api.Joined{}, fmt.Errorf("renew the certificate of %s: request: it is for another key; join anew for that", who)
	}
	return d.authority.sign(request, who, j.Hosts)
}

// Login takes an operator's token, counts its use, and gives a token for
// sessionTTL that is shown as a bearer.
func (d *Door) Login(ctx context.Context, text string) (api.Login, error) {
	for range attempts {
		shown, _, err := d.checkToken(ctx, text, RoleOperator)
		if err != nil {
			return api.Login{}, err
		}
		kept, err := load[token](ctx, d.store, tokenPrefix+shown.ID)
		if err != nil {
			return api.Login{}, err
		}
		if kept.Uses > 0 && kept.Used >= kept.Uses {
			return api.Login{}, fmt.Errorf("%w: the token %s has been used already", ErrUnauthenticated, shown.ID)
		}
		spent, err := kept.spend(shown.ID)
		if err != nil {
			return api.Login{}, err
		}
		made, err := d.keepToken(ctx, token{Role: RoleOperator, Expires: d.now().Add(sessionTTL), Of: shown.ID}, spent)
		if err == nil {
			return api.Login{Token: made.Secret, Expires: made.Expires}, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return api.Login{}, err
		}
	}
	return api.Login{}, fmt.Errorf("log in: %w", store.ErrConflict)
}

// Tidy forgets tokens a day after their end, and removed identities when no
// certificate of theirs could be renewed any more. The leader calls it.
func (d *Door) Tidy(ctx context.Context, held store.Leadership) error {
	entries, _, err := d.store.List(ctx, prefix)
	if err != nil {
		return err
	}
	d.mu.RLock()
	tokens, identities := d.tokens, d.identities
	var over []store.Entry
	for _, e := range entries {
		t, isToken := tokens[e.Key]
		i, isIdentity := identities[e.Key]
		if (isToken && t.Expires.Add(24*time.Hour).Before(d.now())) ||
			(isIdentity && !i.Revoked.IsZero() && i.Revoked.Add(RenewGrace+CertificateTTL).Before(d.now())) {
			over = append(over, e)
		}
	}
	d.mu.RUnlock()
	for _, e := range over {
		conditions := []store.Condition{held.Fence(), {Key: e.Key, Version: e.Version}}
		if _, err := d.store.Commit(ctx, conditions, []store.Op{{Key: e.Key, Delete: true}}); err != nil {
			return fmt.Errorf("forget %s: %w", e.Key, err)
		}
	}
	return nil
}

// Adopt keeps the identity of a controller that makes its own certificates: of
// the first one, and of one that starts again.
func (d *Door) Adopt(ctx context.Context, id, name string) error {
	who := Subject{Kind: trust.Controller, Name: name, ID: id}
	known, err := load[identity](ctx, d.store, IdentityKey(who.Kind, id))
	switch {
	case err == nil && !known.Revoked.IsZero():
		return fmt.Errorf("%w: controller %s; join it again with a token", ErrRevoked, name)
	case err == nil && known.Name == name:
		return nil
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return err
	}
	if err != nil {
		known.Joined = d.now()
	}
	conditions, ops, err := d.place(ctx, who, identity{Name: name, Key: known.Key, Joined: known.Joined, Token: known.Token}, false)
	if err != nil {
		return err
	}
	_, err = d.store.Commit(ctx, conditions, ops)
	return err
}

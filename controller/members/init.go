package members

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/store"
)

// Init begins a cluster of this controller alone. Called again it changes
// nothing, wherever it was cut off before.
func Init(o Options) (clusterID string, err error) {
	if err := o.complete(); err != nil {
		return "", err
	}
	kept, err := o.read()
	if err == nil {
		return kept.ClusterID, nil
	} else if !errors.Is(err, ErrNotInitialised) {
		return "", err
	}
	key, err := auth.EnsureSealKey(o.CAKeyFile)
	if err != nil {
		return "", err
	}
	authority, err := o.openAuthority(key)
	if errors.Is(err, fs.ErrNotExist) {
		if authority, err = auth.NewAuthority(newID(o.Now()), key, o.Now); err == nil {
			err = o.saveAuthority(authority)
		}
	}
	if err != nil {
		return "", err
	}
	kept = keptController{ID: newID(o.Now()), Name: o.Name, ClusterID: authority.ClusterID(), First: true}
	return kept.ClusterID, o.write(kept)
}

// Attach uses the store of a controller that runs on this machine, by its
// socket, or opens it where none runs. It is for whoever may read the data
// folder: to make a token when there is nobody who could.
func Attach(ctx context.Context, o Options) (*Member, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	socket, err := socketOf(o.path("etcd"))
	if err != nil || len(o.Endpoints) > 0 {
		return Open(ctx, o)
	}
	kept, err := o.read()
	if err != nil {
		return nil, err
	}
	m := &Member{ID: kept.ID, Name: kept.Name, ClusterID: kept.ClusterID, options: o}
	if m.key, err = auth.ReadSealKey(o.CAKeyFile); err != nil {
		return nil, err
	}
	if m.Authority, err = o.openAuthority(m.key); err != nil {
		return nil, err
	}
	m.etcd, err = store.NewEtcd(store.ClientOptions{Endpoints: []string{"unix://" + socket}, Log: o.Log})
	if err != nil {
		return nil, err
	}
	m.Store = m.etcd
	m.Door, err = auth.NewDoor(auth.Options{Store: m.Store, Authority: m.Authority, Log: o.Log, Now: o.Now})
	m.Audit = auth.NewAudit(m.Store, o.Log, o.Now)
	return m, err
}

// Backup writes a snapshot of the store of the running controller.
func (m *Member) Backup(ctx context.Context, w io.Writer) error { return m.Store.Backup(ctx, w) }

// Restore makes this controller the only one of a cluster as a backup has it:
// the same cluster id, authority, tokens and all that people declared. Other
// controllers must join anew. The authority's key must be at hand in CAKeyFile.
func Restore(ctx context.Context, o Options, backup io.Reader) (clusterID string, err error) {
	if err := o.complete(); err != nil {
		return "", err
	}
	if len(o.Endpoints) > 0 {
		return "", errors.New("restore: an etcd outside of Weir is restored by its own tools")
	}
	key, err := auth.ReadSealKey(o.CAKeyFile)
	if err != nil {
		return "", fmt.Errorf("restore: copy the key of the certificate authority here from a controller or from where it is kept: %w", err)
	}
	err = store.Restore(ctx, backup, store.RestoreOptions{
		Dir: o.path("etcd"), Name: o.Name, Peer: o.Peer, Log: o.Log,
		Adapt: func(ctx context.Context, s *store.Etcd) error {
			clusterID, err = o.adapt(ctx, s, key)
			return err
		},
	})
	return clusterID, err
}

// adapt makes a restored store this controller's own.
func (o *Options) adapt(ctx context.Context, s store.Store, key auth.SealKey) (clusterID string, err error) {
	e, err := s.Get(ctx, auth.AuthorityKey)
	if err != nil {
		return "", fmt.Errorf("the backup is of no Weir cluster: %w", err)
	}
	authority, err := auth.OpenAuthority(e.Value, key, o.Now)
	if err != nil {
		return "", err
	}
	kept := keptController{ID: newID(o.Now()), Name: o.Name, ClusterID: authority.ClusterID(), First: true}
	if old, err := s.Get(ctx, auth.NameKey(trust.Controller, o.Name)); err == nil {
		kept.ID = string(old.Value)
	}
	if err := o.newEpoch(ctx, s); err != nil {
		return "", err
	}
	return kept.ClusterID, errors.Join(o.saveAuthority(authority), o.write(kept))
}

// newEpoch also forgets the controllers that were.
func (o *Options) newEpoch(ctx context.Context, s store.Store) error {
	e, err := s.Get(ctx, clusterKey)
	if err != nil {
		return err
	}
	var r record
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return fmt.Errorf("read the cluster: %w", err)
	}
	r.Epoch = newID(o.Now())
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	ops := []store.Op{{Key: clusterKey, Value: value}}
	gone, _, err := s.List(ctx, controllerPrefix)
	if err != nil {
		return err
	}
	for _, c := range gone {
		ops = append(ops, store.Op{Key: c.Key, Delete: true})
		var one api.Controller
		if json.Unmarshal(c.Value, &one) == nil && one.Name != o.Name {
			id := strings.TrimPrefix(c.Key, controllerPrefix)
			ops = append(ops, store.Op{Key: auth.NameKey(trust.Controller, one.Name), Delete: true},
				store.Op{Key: auth.IdentityKey(trust.Controller, id), Delete: true})
		}
	}
	_, err = s.Commit(ctx, nil, ops)
	return err
}

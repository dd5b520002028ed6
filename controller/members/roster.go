package members

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/store"
)

// Leader is the leadership among the controllers; the store tells its id.
const Leader = "controller"

// alive is the leadership that each controller has of itself alone, as long as
// it lives: who holds it is there.
func alive(id string) string { return "alive-" + id }

// How often the leader looks after members, and after what is over.
const (
	promoteEvery = time.Second
	tidyEvery    = 10 * time.Minute
	renewCheck   = 10 * time.Minute
)

// register writes where this controller is.
func (m *Member) register(ctx context.Context) error {
	value, err := json.Marshal(api.Controller{ID: m.ID, Name: m.Name, URL: m.options.URL, Peer: m.options.Peer, Version: versionText()})
	if err != nil {
		return err
	}
	old, err := m.Store.Get(ctx, controllerPrefix+m.ID)
	if err == nil && string(old.Value) == string(value) {
		return nil
	}
	if _, err := m.Store.Commit(ctx, nil, []store.Op{{Key: controllerPrefix + m.ID, Value: value}}); err != nil {
		return fmt.Errorf("register the controller: %w", err)
	}
	return nil
}

// Run keeps this controller's place until ctx ends: it is seen to be alive,
// knows who may come in, renews its certificates, and, while it leads the
// controllers, runs lead (which may be nil) beside its own chores.
func (m *Member) Run(ctx context.Context, lead func(context.Context, store.Leadership) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.Door.Run(ctx) })
	g.Go(func() error { return m.Audit.Run(ctx) })
	g.Go(func() error { return m.Authority.Run(ctx, m.Store, m.authorityChanged) })
	g.Go(func() error { return m.renew(ctx) })
	g.Go(func() error {
		return m.keepLeading(ctx, alive(m.ID), func(ctx context.Context, _ store.Leadership) error {
			<-ctx.Done()
			return nil
		})
	})
	g.Go(func() error {
		return m.keepLeading(ctx, Leader, func(ctx context.Context, held store.Leadership) error {
			m.options.Log.Info("leading the controllers")
			inner, ctx := errgroup.WithContext(ctx)
			inner.Go(func() error { return m.chores(ctx, held) })
			if lead != nil {
				inner.Go(func() error { return lead(ctx, held) })
			}
			return inner.Wait()
		})
	})
	return g.Wait()
}

// keepLeading leads again after each loss, until ctx ends.
func (m *Member) keepLeading(ctx context.Context, name string, do func(context.Context, store.Leadership) error) error {
	for ctx.Err() == nil {
		err := m.Store.Lead(ctx, name, m.ID, do)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			m.options.Log.Warn("no longer leading", "name", name, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second): // let another one try
		}
	}
	return nil
}

// chores of the leader.
func (m *Member) chores(ctx context.Context, held store.Leadership) error {
	promote, tidy := time.NewTicker(promoteEvery), time.NewTicker(tidyEvery)
	defer promote.Stop()
	defer tidy.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-promote.C:
			if m.embedded() {
				if err := m.etcd.Promote(ctx); err != nil && ctx.Err() == nil {
					m.options.Log.Debug("no vote given", "error", err)
				}
			}
		case <-tidy.C:
			if err := m.Door.Tidy(ctx, held); err != nil && ctx.Err() == nil {
				m.options.Log.Warn("old tokens and identities stay", "error", err)
			}
		}
	}
}

func (m *Member) embedded() bool { return m.etcd != nil && m.options.Peer != "" }

// renew writes new certificates for the store's member in time.
func (m *Member) renew(ctx context.Context) error {
	ticker := time.NewTicker(renewCheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if _, _, _, next, err := m.Authority.Files(); err != nil || !next.Equal(m.renewal) {
				m.authorityChanged()
				m.renewal = next
			}
		}
	}
}

// authorityChanged writes what is on disk of the authority anew.
func (m *Member) authorityChanged() {
	if m.etcd == nil {
		return // all in memory
	}
	err := errors.Join(m.options.saveAuthority(m.Authority), m.options.writeCertificates(m.Authority))
	if err != nil {
		m.options.Log.Error("certificates of the store are not renewed", "error", err)
	}
}

// List tells of all controllers, sorted by name.
func (m *Member) List(ctx context.Context) ([]api.Controller, error) {
	entries, _, err := m.Store.List(ctx, controllerPrefix)
	if err != nil {
		return nil, err
	}
	leader, err := m.Store.Leader(ctx, Leader)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	all := make([]api.Controller, 0, len(entries))
	for _, e := range entries {
		var c api.Controller
		if err := json.Unmarshal(e.Value, &c); err != nil {
			return nil, fmt.Errorf("read %s: %w", e.Key, err)
		}
		c.Leader = c.ID == leader
		_, err := m.Store.Leader(ctx, alive(c.ID))
		c.Healthy = err == nil
		if c.ID == m.ID {
			if h, err := m.Store.Health(ctx); err == nil {
				c.StoreSize = h.Size
			}
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b api.Controller) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Admit makes room for a controller that has a certificate, and hands it the
// authority. The server has asked the door before: who may create
// auth.OwnMembership of that id.
func (m *Member) Admit(ctx context.Context, who auth.Subject, j api.ControllerJoin) (api.ControllerJoined, error) {
	answer := api.ControllerJoined{ClusterID: m.ClusterID, CAKey: m.key[:]}
	if who.Kind != trust.Controller || who.ID != j.ID || who.Name != j.Name {
		return api.ControllerJoined{}, fmt.Errorf("id: %s asks for a place of %s %s", who, j.Name, j.ID)
	}
	if _, err := hostOf("url", j.URL); err != nil {
		return api.ControllerJoined{}, err
	}
	var err error
	if answer.Authority, err = m.Authority.Sealed(); err != nil {
		return api.ControllerJoined{}, err
	}
	if m.embedded() {
		if _, err := hostOf("peer", j.Peer); err != nil {
			return api.ControllerJoined{}, err
		}
		if answer.Cluster, err = m.etcd.AddMember(ctx, j.Name, j.Peer); err != nil {
			return api.ControllerJoined{}, err
		}
	}
	return answer, nil
}

// Remove takes a controller out by its name: its store's vote, its identity and
// its place in the list. store.ErrQuorum where too few would be left,
// store.ErrNotFound when there is none.
func (m *Member) Remove(ctx context.Context, name string) error {
	who, err := m.Door.Find(ctx, trust.Controller, name)
	if err != nil {
		return err
	}
	if who.ID == m.ID { // its store would stop in the middle of it
		return fmt.Errorf("remove %s: %w: a controller does not take itself out, ask another one", name, store.ErrQuorum)
	}
	if m.embedded() {
		if err := m.removeMember(ctx, name); err != nil {
			return err
		}
	}
	if _, err := m.Store.Commit(ctx, nil, []store.Op{{Key: controllerPrefix + who.ID, Delete: true}}); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	_, err = m.Door.Revoke(ctx, trust.Controller, name)
	return err
}

func (m *Member) removeMember(ctx context.Context, name string) error {
	list, err := m.etcd.Members(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(one store.Member) bool { return one.Name == name })
	if i < 0 {
		return nil // removed before, or it never came up
	}
	return m.etcd.RemoveMember(ctx, list[i].ID)
}

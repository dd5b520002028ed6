package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// ErrOutside is of a change of members of an etcd that is not ours.
var ErrOutside = errors.New("the store is an etcd outside of Weir: its members are changed there")

// Members lists those of an embedded store.
func (s *Etcd) Members(ctx context.Context) ([]Member, error) {
	all, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	lead := uint64(s.server.etcd.Server.Leader())
	members := make([]Member, 0, len(all))
	for _, m := range all {
		members = append(members, Member{ID: m.ID, Name: m.Name, Peers: m.PeerURLs, Learner: m.IsLearner, Leader: m.ID == lead})
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return members, nil
}

func (s *Etcd) members(ctx context.Context) ([]*etcdserverpb.Member, error) {
	if s.server == nil {
		return nil, ErrOutside
	}
	within, cancel := s.limited(ctx)
	defer cancel()
	answer, err := s.client.MemberList(within)
	if err != nil {
		return nil, explain("list the store's members", ctx, err)
	}
	return answer.Members, nil
}

// AddMember makes room for a learner.
func (s *Etcd) AddMember(ctx context.Context, name, peer string) (string, error) {
	all, err := s.members(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range all {
		if m.Name == name && !slices.Contains(m.PeerURLs, peer) {
			return "", fmt.Errorf("add the member %s: there is one of that name at %s", name, strings.Join(m.PeerURLs, ", "))
		}
		if slices.Contains(m.PeerURLs, peer) {
			if m.Name != "" && m.Name != name {
				return "", fmt.Errorf("add the member %s: %s is at %s", name, m.Name, peer)
			}
			return initialCluster(all, name, peer), nil
		}
	}
	within, cancel := s.limited(ctx)
	defer cancel()
	answer, err := s.client.MemberAddAsLearner(within, []string{peer})
	if err != nil {
		return "", changeOfMembers("add the member "+name, ctx, err)
	}
	s.log.Info("member added", "name", name, "peer", peer)
	return initialCluster(answer.Members, name, peer), nil
}

// initialCluster names who has started, and the new one.
func initialCluster(all []*etcdserverpb.Member, name, peer string) string {
	var parts []string
	for _, m := range all {
		for _, u := range m.PeerURLs {
			if u == peer {
				parts = append(parts, name+"="+peer)
			} else if m.Name != "" {
				parts = append(parts, m.Name+"="+u)
			}
		}
	}
	return strings.Join(parts, ",")
}

// Promote gives learners that have caught up a vote.
func (s *Etcd) Promote(ctx context.Context) error {
	all, err := s.members(ctx)
	if err != nil {
		return err
	}
	for _, m := range all {
		if !m.IsLearner || m.Name == "" {
			continue // what has not started has nothing
		}
		within, cancel := s.limited(ctx)
		_, err := s.client.MemberPromote(within, m.ID)
		cancel()
		switch {
		case errors.Is(err, rpctypes.ErrMemberLearnerNotReady), errors.Is(err, rpctypes.ErrMemberNotLearner):
		case err != nil:
			return changeOfMembers("give the member "+m.Name+" a vote", ctx, err)
		default:
			s.log.Info("member has a vote", "name", m.Name)
		}
	}
	return nil
}

// RemoveMember takes one out.
func (s *Etcd) RemoveMember(ctx context.Context, id uint64) error {
	all, err := s.members(ctx)
	if err != nil {
		return err
	}
	votes, one := 0, (*etcdserverpb.Member)(nil)
	for _, m := range all {
		if m.ID == id {
			one = m
		}
		if !m.IsLearner {
			votes++
		}
	}
	switch {
	case one == nil:
		return fmt.Errorf("remove the member %x: %w", id, ErrNotFound)
	case votes == 1 && !one.IsLearner:
		return fmt.Errorf("remove the member %s: %w: it is the last", one.Name, ErrQuorum)
	}
	within, cancel := s.limited(ctx)
	defer cancel()
	_, err = s.client.MemberRemove(within, id)
	if err == nil {
		s.log.Info("member removed", "name", one.Name)
	}
	return changeOfMembers("remove the member "+one.Name, ctx, err)
}

// changeOfMembers tells a refusal of etcd's, which knows whom it has heard of
// lately, from other errors.
func changeOfMembers(what string, ctx context.Context, err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrUnhealthy), errors.Is(err, rpctypes.ErrMemberNotEnoughStarted):
		return fmt.Errorf("%s: %w", what, ErrQuorum)
	case errors.Is(err, rpctypes.ErrTooManyLearners):
		return fmt.Errorf("%s: %w: another new member has not caught up yet", what, ErrConflict)
	case errors.Is(err, rpctypes.ErrMemberNotFound):
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	return explain(what, ctx, err)
}

// SetPeer tells the others where the member of a name is reached now.
func (s *Etcd) SetPeer(ctx context.Context, name, peer string) error {
	all, err := s.members(ctx)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Name != name || slices.Contains(m.PeerURLs, peer) {
			continue
		}
		within, cancel := s.limited(ctx)
		defer cancel()
		_, err := s.client.MemberUpdate(within, m.ID, []string{peer})
		return explain("tell the members where "+name+" is", ctx, err)
	}
	return nil
}

var _ interface {
	Store
	Members
} = (*Etcd)(nil)

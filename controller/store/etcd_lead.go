package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// retryLead is how long a candidate waits after an error.
const retryLead = 500 * time.Millisecond

// Lead holds a lease while it leads. One that dies is followed within about
// 2 s; one that ends do, at once.
func (s *Etcd) Lead(ctx context.Context, name, id string, do func(context.Context, Leadership) error) error {
	for {
		session, election, err := s.campaign(ctx, name, id)
		if err == nil {
			return s.led(ctx, session, election, do)
		}
		s.log.Debug("no candidate yet", "name", name, "error", err)
		if err := s.pause(ctx, retryLead); err != nil {
			return err
		}
	}
}

// campaign waits until it has won, or until its lease or ctx is over.
func (s *Etcd) campaign(ctx context.Context, name, id string) (*concurrency.Session, *concurrency.Election, error) {
	granting, cancel := s.limited(ctx)
	lease, err := s.client.Grant(granting, leaseTTL)
	cancel()
	if err != nil {
		return nil, nil, explain("get a lease", ctx, err)
	}
	session, err := concurrency.NewSession(s.client, concurrency.WithLease(lease.ID))
	if err != nil {
		return nil, nil, explain("keep the lease", ctx, err)
	}
	election := concurrency.NewElection(session, s.prefix+LeadPrefix+name)
	waiting, cancel := withEnd(ctx, session.Done())
	defer cancel()
	if err := election.Campaign(waiting, id); err != nil {
		s.leave(session)
		return nil, nil, explain("stand for "+name, ctx, err)
	}
	return session, election, nil
}

// led runs do until it returns, with a context that ends with the lease.
func (s *Etcd) led(ctx context.Context, session *concurrency.Session, election *concurrency.Election, do func(context.Context, Leadership) error) error {
	leading, cancel := withEnd(ctx, session.Done())
	defer cancel()
	defer s.leave(session)
	held := fence{Key: strings.TrimPrefix(election.Key(), s.prefix), Version: uint64(election.Rev())}
	return do(leading, held)
}

// leave gives the lease back, so that the next one leads at once.
func (s *Etcd) leave(session *concurrency.Session) {
	session.Orphan()
	within, cancel := context.WithTimeout(s.client.Ctx(), time.Second)
	defer cancel()
	if _, err := s.client.Revoke(within, session.Lease()); err != nil {
		s.log.Debug("the lease ends by itself", "error", err)
	}
}

// withEnd is a context that ends with another thing too.
func withEnd(ctx context.Context, over <-chan struct{}) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-over:
			cancel(errNoLease)
		case <-inner.Done():
		}
	}()
	return inner, func() { cancel(context.Canceled) }
}

// Leader is the id of the present leader.
func (s *Etcd) Leader(ctx context.Context, name string) (string, error) {
	within, cancel := s.limited(ctx)
	defer cancel()
	answer, err := s.client.Get(within, s.prefix+LeadPrefix+name+"/", clientv3.WithFirstCreate()...)
	if err != nil {
		return "", explain("leader of "+name, ctx, err)
	}
	if len(answer.Kvs) == 0 {
		return "", fmt.Errorf("leader of %s: %w", name, ErrNotFound)
	}
	return string(answer.Kvs[0].Value), nil
}

package store

import (
	"context"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Defragmentation stops this member for as long as it takes to copy what is in
// use, so it is done where it frees much.
const (
	maintainEvery = 10 * time.Minute
	defragAbove   = 64 << 20 // bytes that would be freed
	defragWithin  = time.Minute
)

// startMaintenance looks after an embedded member until Close.
func (s *Etcd) startMaintenance() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			// Members that started together do not stop together.
			wait := maintainEvery/2 + rand.N(maintainEvery)
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
				if err := s.maintainOnce(ctx, defragAbove); err != nil && ctx.Err() == nil {
					s.log.Warn("the store was not maintained", "error", err)
				}
			}
		}
	}()
	s.maintain = func() { cancel(); <-done }
}

// maintainOnce gives space back to the disk, and lets a member write again that
// had reached its quota and has room now.
func (s *Etcd) maintainOnce(ctx context.Context, above int64) error {
	within, cancel := context.WithTimeout(ctx, defragWithin)
	defer cancel()
	endpoint := s.client.Endpoints()[0]
	member, err := s.client.Status(within, endpoint)
	if err != nil {
		return explain("ask for the store's size", ctx, err)
	}
	full, err := s.full(within, member.Header.MemberId)
	if err != nil {
		return explain("ask for alarms", ctx, err)
	}
	// What is in use is counted at the last write, and a full store has none:
	// what a compaction freed does not show there.
	free := member.DbSize - member.DbSizeInUse
	if full == nil && (free < above || free < member.DbSize/2) {
		return nil
	}
	begin, before := time.Now(), member.DbSize
	if _, err := s.client.Defragment(within, endpoint); err != nil {
		return explain("defragment", ctx, err)
	}
	if member, err = s.client.Status(within, endpoint); err != nil {
		return explain("ask for the store's size", ctx, err)
	}
	s.log.Info("store defragmented", "before", before, "after", member.DbSize, "took", time.Since(begin))
	if full == nil || member.DbSize > s.quota/10*9 {
		return nil
	}
	if _, err := s.client.AlarmDisarm(within, full); err != nil {
		return explain("take the alarm back", ctx, err)
	}
	s.log.Info("store has room again")
	return nil
}

// full is this member's alarm for want of space, or nil.
func (s *Etcd) full(ctx context.Context, member uint64) (*clientv3.AlarmMember, error) {
	alarms, err := s.client.AlarmList(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range alarms.Alarms {
		if a.MemberID == member && a.Alarm == etcdserverpb.AlarmType_NOSPACE {
			return (*clientv3.AlarmMember)(a), nil
		}
	}
	return nil, nil
}

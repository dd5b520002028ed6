package store

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// three starts members c1 to c3, the later two by joining.
func three(t *testing.T) (members []*Etcd) {
	t.Helper()
	for i := range 3 {
		o := embedOptions(t)
		o.Name = fmt.Sprint("c", i+1)
		o.Election = time.Second // three servers share this machine with other tests
		if i > 0 {
			cluster := ""
			eventually(t, "room for "+o.Name, func() (err error) {
				cluster, err = members[0].AddMember(within(t), o.Name, o.Peer)
				return err
			})
			o.Cluster = cluster
		}
		s := startEtcd(t, o)
		members = append(members, s)
		eventually(t, o.Name+" has a vote", func() error {
			if err := members[0].Promote(within(t)); err != nil {
				return err
			}
			_, err := s.Get(within(t), "none")
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			return err
		})
	}
	return members
}

// eventually tries until there is no error.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestThreeMembers starts them once: etcd changes its members only after they
// have been in touch for 5 s.
func TestThreeMembers(t *testing.T) {
	members := three(t)
	list, err := members[2].Members(within(t))
	if err != nil || len(list) != 3 {
		t.Fatalf("members are %+v, %v", list, err)
	}
	leader := 0
	for i, m := range list {
		if m.Learner || m.Name != fmt.Sprint("c", i+1) {
			t.Errorf("member %d is %+v", i, m)
		}
		if m.Leader {
			leader = i
		}
	}
	others := append(append([]*Etcd{}, members[:leader]...), members[leader+1:]...)
	promise := func(name string, check func(*testing.T)) {
		if !t.Run(name, check) {
			t.FailNow()
		}
	}
	promise("lose no acknowledged write with their leader", func(t *testing.T) { loseNothing(t, members[leader], others) })
	promise("refuse to lose the quorum", func(t *testing.T) { refuseToLoseTheQuorum(t, others[0], list[leader].ID) })
	promise("without quorum read their own copies alone", func(t *testing.T) { readAlone(t, others[0], others[1]) })
}

// loseNothing stops the leader while another is written to.
func loseNothing(t *testing.T, leader *Etcd, others []*Etcd) {
	ctx := within(t)
	watch := others[1].Watch(ctx, "n/", put(t, others[0], "n/start", ""))
	acknowledged := map[string]uint64{}
	for i := range 200 {
		key := fmt.Sprintf("n/%03d", i)
		if r, err := others[0].Commit(ctx, []Condition{{Key: key}}, []Op{{Key: key}}); err == nil {
			acknowledged[key] = r
		}
		if i == 100 {
			go leader.server.etcd.Server.HardStop()
		}
	}
	if len(acknowledged) < 100 {
		t.Errorf("only %d writes were acknowledged", len(acknowledged))
	}
	eventually(t, "a new leader", func() error {
		_, err := others[0].Commit(ctx, nil, []Op{{Key: "n/end"}})
		return err
	})
	all, _, err := others[1].List(ctx, "n/")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]uint64{}
	for _, e := range all {
		found[e.Key] = e.Version
	}
	for key, r := range acknowledged {
		if found[key] != r {
			t.Errorf("%s was acknowledged at %d and is at %d", key, r, found[key])
		}
	}
	seen := uint64(0)
	for range all[1:] { // n/start was before
		b := next(t, watch)
		if b.Err != nil || b.Revision <= seen {
			t.Fatalf("the watch over the change of leaders: got %+v after %d", b, seen)
		}
		if seen = b.Revision; b.Events[0].Key == "n/end" {
			break // it may have been written twice
		}
		if found[b.Events[0].Key] != b.Revision {
			t.Errorf("the watch told of %s at %d, it is at %d", b.Events[0].Key, b.Revision, found[b.Events[0].Key])
		}
	}
}

// refuseToLoseTheQuorum tries with one of three away.
func refuseToLoseTheQuorum(t *testing.T, s *Etcd, away uint64) {
	ctx := within(t)
	list, err := s.Members(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.ID == away {
			continue
		}
		if err := s.RemoveMember(ctx, m.ID); !errors.Is(err, ErrQuorum) {
			t.Errorf("remove %s: got %v, want ErrQuorum", m.Name, err)
		}
	}
	if _, err := s.AddMember(ctx, "c4", "http://127.0.0.1:1"); !errors.Is(err, ErrQuorum) {
		t.Errorf("add c4: got %v, want ErrQuorum", err)
	}
	if err := s.RemoveMember(ctx, 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("remove nobody: got %v, want ErrNotFound", err)
	}
}

// readAlone takes the second of three away.
func readAlone(t *testing.T, s, other *Etcd) {
	ctx := within(t)
	r := put(t, s, "alone", "1")
	eventually(t, "it is in the own copy", func() error {
		all, _, err := s.Peek(ctx, "alone")
		if err == nil && len(all) == 0 {
			err = ErrNotFound
		}
		return err
	})
	watch := s.Watch(ctx, "alone", r)
	other.server.etcd.Server.HardStop()
	got := make(chan error, 2)
	go func() {
		_, err := s.Commit(ctx, nil, []Op{{Key: "alone", Value: []byte("2")}})
		got <- err
	}()
	go func() {
		_, err := s.Get(ctx, "alone")
		got <- err
	}()
	for range 2 {
		if err := <-got; !errors.Is(err, ErrUnavailable) {
			t.Errorf("commit or get: got %v, want ErrUnavailable", err)
		}
	}
	if all, _, err := s.Peek(ctx, "alone"); err != nil || len(all) != 1 || string(all[0].Value) != "1" {
		t.Errorf("peek: got %v, %v", all, err)
	}
	if h, err := s.Health(ctx); err != nil || len(h.Problems) == 0 {
		t.Errorf("health: got %+v, %v, want the quorum among its problems", h, err)
	}
	select {
	case b := <-watch:
		t.Errorf("the watch told %+v", b)
	default:
	}
}

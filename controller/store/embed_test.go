package store

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWhatIsAcknowledgedOutlivesTheProcess(t *testing.T) {
	o := embedOptions(t)
	s := startEtcd(t, o)
	revision := put(t, s, "kept/a", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = startEtcd(t, o)
	e, err := s.Get(within(t), "kept/a")
	if err != nil || string(e.Value) != "1" || e.Version != revision {
		t.Errorf("after a restart: got %+v, %v, want 1 of version %d", e, err, revision)
	}
	if b := next(t, s.Watch(within(t), "kept/", revision-1)); b.Revision != revision {
		t.Errorf("the history begins with %+v", b)
	}
}

func TestSocketWorksFromADeepFolder(t *testing.T) {
	o := embedOptions(t)
	o.Dir = filepath.Join(o.Dir, strings.Repeat("deep/", 30))
	s := startEtcd(t, o)
	put(t, s, "a", "1")
	other, err := NewEtcd(ClientOptions{Endpoints: []string{"unix://" + mustLink(t, o.Dir)}, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if e, err := other.Get(within(t), "a"); err != nil || string(e.Value) != "1" {
		t.Errorf("by the socket: got %s, %v", e.Value, err)
	}
	if _, err := other.Members(within(t)); !errors.Is(err, ErrOutside) {
		t.Errorf("members of a store elsewhere: got %v, want ErrOutside", err)
	}
}

func mustLink(t *testing.T, dir string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRestoreKeepsKeysAndForgetsHistory(t *testing.T) {
	o := embedOptions(t)
	s := startEtcd(t, o)
	put(t, s, "gone", "1")
	if _, err := s.Commit(within(t), nil, []Op{{Key: "gone", Delete: true}}); err != nil {
		t.Fatal(err)
	}
	kept := put(t, s, "kept", "1")
	var backup bytes.Buffer
	var last uint64
	// A leader's lease is in the backup and must not lead for ever after.
	err := s.Lead(within(t), "test", "old", func(ctx context.Context, _ Leadership) error {
		if err := s.Backup(ctx, &backup); err != nil {
			return err
		}
		last = put(t, s, "after", "lost")
		return s.Close()
	})
	if err != nil {
		t.Fatal(err)
	}

	o.Dir, o.Name, o.Peer = filepath.Join(t.TempDir(), "restored"), "c9", "http://"+freePort(t)
	restore := RestoreOptions{Dir: o.Dir, Name: o.Name, Peer: o.Peer, Log: quiet()}
	if err := Restore(within(t), bytes.NewReader(backup.Bytes()), restore); err != nil {
		t.Fatal(err)
	}
	s = startEtcd(t, o)
	all, revision, err := s.List(within(t), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 1 || all[0].Key != "kept" || all[0].Version != kept || revision < last {
		t.Errorf("got %+v at %d, want kept of version %d and a revision after %d", all, revision, kept, last)
	}
	if b := next(t, s.Watch(within(t), "", last)); !errors.Is(b.Err, ErrCompacted) {
		t.Errorf("a watch from before: got %+v, want ErrCompacted", b)
	}
	if r := put(t, s, "new", "1"); r != revision+1 {
		t.Errorf("the first new revision is %d, the last %d", r, revision)
	}
	members, err := s.Members(within(t))
	if err != nil || len(members) != 1 || members[0].Name != "c9" || members[0].Peers[0] != o.Peer {
		t.Errorf("members are %+v, %v, want c9 alone", members, err)
	}
	err = s.Lead(within(t), "test", "new", func(context.Context, Leadership) error { return nil })
	if err != nil {
		t.Errorf("lead: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = startEtcd(t, o) // once more
	if e, err := s.Get(within(t), "new"); err != nil || string(e.Value) != "1" {
		t.Errorf("after a restart: got %s, %v", e.Value, err)
	}
	if err := Restore(within(t), &backup, restore); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("over a store: got %v", err)
	}
}

func TestRestoreRefusesWhatIsDamaged(t *testing.T) {
	s := startEtcd(t, embedOptions(t))
	put(t, s, "a", "1")
	var whole bytes.Buffer
	if err := s.Backup(within(t), &whole); err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole.Bytes())
	flipped[len(flipped)/2] ^= 1
	for name, text := range map[string][]byte{
		"nothing": nil, "text": []byte("not a backup"), "cut": whole.Bytes()[:whole.Len()-100], "flipped": flipped, "half": whole.Bytes()[:whole.Len()/2],
	} {
		dir := t.TempDir()
		if err := Restore(within(t), bytes.NewReader(text), RestoreOptions{Dir: dir, Name: "c1", Peer: "http://127.0.0.1:1", Log: quiet()}); err == nil {
			t.Errorf("%s: restored", name)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
			t.Errorf("%s: %v is left", name, left)
		}
	}
}

func TestMaintenanceGivesSpaceBackAndQuotaIsTold(t *testing.T) {
	o := embedOptions(t)
	o.Quota = 16 << 20
	s := startEtcd(t, o)
	ctx := within(t)
	var err error
	for err == nil { // the same key again and again: its history fills the store
		_, err = s.Commit(ctx, nil, []Op{{Key: "big", Value: make([]byte, 512<<10)}})
	}
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "quota") {
		t.Fatalf("a full store: got %v, want ErrUnavailable and its quota", err)
	}
	h, err := s.Health(ctx)
	if err != nil || len(h.Problems) == 0 {
		t.Errorf("health of a full store: got %+v, %v", h, err)
	}
	if e, err := s.Get(ctx, "big"); err != nil || len(e.Value) == 0 {
		t.Errorf("a full store is read: got %v", err)
	}
	if err := s.Compact(ctx, h.Revision); err != nil {
		t.Fatal(err)
	}
	for mayMaintain(t, ctx, s); ; time.Sleep(50 * time.Millisecond) {
		if _, err := s.Commit(ctx, nil, []Op{{Key: "big", Value: []byte("small")}}); err == nil {
			break
		} else if ctx.Err() != nil {
			t.Fatalf("after maintenance: %v", err)
		}
		mayMaintain(t, ctx, s) // the compaction goes on in the background
	}
	after, err := s.Health(ctx)
	if err != nil || after.Size >= h.Size || len(after.Problems) > 0 {
		t.Errorf("size was %d, is %d, problems %q, %v", h.Size, after.Size, after.Problems, err)
	}
}

func mayMaintain(t *testing.T, ctx context.Context, s *Etcd) {
	t.Helper()
	if err := s.maintainOnce(ctx, 1<<20); err != nil {
		t.Fatal(err)
	}
}

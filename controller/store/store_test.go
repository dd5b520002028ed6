package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// patience of a test with a loaded machine.
const patience = 60 * time.Second

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// freePort is free for now: two tests at a time may still get into each other's
// way, and none here runs beside another.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func embedOptions(t *testing.T) EmbedOptions {
	return EmbedOptions{
		Dir: filepath.Join(t.TempDir(), "etcd"), Name: "c1", Peer: "http://" + freePort(t), Election: 200 * time.Millisecond, Log: quiet(),
	}
}

func startEtcd(t *testing.T, o EmbedOptions) *Etcd {
	t.Helper()
	s, err := StartEtcd(within(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestBothStoresKeepTheSamePromises runs every promise over both.
func TestBothStoresKeepTheSamePromises(t *testing.T) {
	promises := []struct {
		name  string
		check func(*testing.T, Store)
	}{
		{"keys are read as written", readsAsWritten},
		{"lists are sorted, whole, and of one revision", lists},
		{"a commit is all or nothing", commitsAllOrNothing},
		{"bad commits are refused", refusesBadCommits},
		{"a watch tells all, in order, once", watchesInOrder},
		{"a watch resumes from a revision", resumes},
		{"a watch from what is compacted says so", saysCompacted},
		{"a slow watcher misses nothing and holds nobody up", bearsSlowWatchers},
		{"deletions are told without a value", tellsDeletions},
		{"one leads at a time, the next one after it", leadsOneAtATime},
		{"who leads no longer cannot commit", fences},
		{"calls end with their context", endsWithContext},
		{"its health is told", tellsHealth},
		{"after Close it answers ErrUnavailable", closes}, // the last
	}
	stores := []struct {
		name string
		open func(*testing.T) Store
	}{
		{"mem", func(*testing.T) Store { return NewMem() }},
		{"etcd", func(t *testing.T) Store { return startEtcd(t, embedOptions(t)) }},
	}
	for _, kind := range stores {
		t.Run(kind.name, func(t *testing.T) {
			s := kind.open(t)
			for _, p := range promises {
				if !t.Run(p.name, func(t *testing.T) { p.check(t, s) }) {
					return
				}
			}
		})
	}
}

func put(t *testing.T, s Store, key, value string) uint64 {
	t.Helper()
	revision, err := s.Commit(within(t), nil, []Op{{Key: key, Value: []byte(value)}})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func readsAsWritten(t *testing.T, s Store) {
	ctx := within(t)
	if _, err := s.Get(ctx, "read/none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get of what is not there: got %v, want ErrNotFound", err)
	}
	first := put(t, s, "read/a", "1")
	second := put(t, s, "read/a", "2")
	if second <= first {
		t.Errorf("the second revision is %d, the first %d", second, first)
	}
	got, err := s.Get(ctx, "read/a")
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Value) != "2" || got.Version != second || got.Created != first || got.Key != "read/a" {
		t.Errorf("got %+v, want the value 2 of version %d, created at %d", got, second, first)
	}
	if _, err := s.Commit(ctx, nil, []Op{{Key: "read/a", Delete: true}}); err != nil {
		t.Fatal(err)
	}
	if third := put(t, s, "read/a", "3"); third <= second {
		t.Errorf("the third revision is %d", third)
	} else if got, _ := s.Get(ctx, "read/a"); got.Created != third {
		t.Errorf("made anew, it is of %d, want %d", got.Created, third)
	}
}

func lists(t *testing.T, s Store) {
	ctx, n := within(t), pageSize+pageSize/2
	for i := 0; i < n; i += MaxOps {
		var ops []Op
		for j := i; j < min(i+MaxOps, n); j++ {
			ops = append(ops, Op{Key: fmt.Sprintf("list/%05d", n-j), Value: []byte("x")})
		}
		if _, err := s.Commit(ctx, nil, ops); err != nil {
			t.Fatal(err)
		}
	}
	last := put(t, s, "listen", "not below list/")
	for name, list := range map[string]func(context.Context, string) ([]Entry, uint64, error){"list": s.List, "peek": s.Peek} {
		all, revision, err := list(ctx, "list/")
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != n || revision != last {
			t.Fatalf("%s: got %d keys at %d, want %d at %d", name, len(all), revision, n, last)
		}
		for i, e := range all {
			if want := fmt.Sprintf("list/%05d", i+1); e.Key != want {
				t.Fatalf("%s: key %d is %s, want %s", name, i, e.Key, want)
			}
		}
	}
	if all, _, err := s.List(ctx, "nothing/"); err != nil || len(all) != 0 {
		t.Errorf("nothing/: got %d keys, %v", len(all), err)
	}
}

func commitsAllOrNothing(t *testing.T, s Store) {
	ctx := within(t)
	v := put(t, s, "commit/a", "1")
	write := []Op{{Key: "commit/a", Value: []byte("2")}, {Key: "commit/b", Value: []byte("2")}}
	for _, wrong := range [][]Condition{
		{{Key: "commit/a", Version: v - 1}}, {{Key: "commit/a"}}, {{Key: "commit/b", Version: v}}, {{Key: "commit/a", Version: v}, {Key: "commit/b", Version: 1}},
	} {
		if _, err := s.Commit(ctx, wrong, write); !errors.Is(err, ErrConflict) {
			t.Errorf("with %v: got %v, want ErrConflict", wrong, err)
		}
	}
	if _, err := s.Get(ctx, "commit/b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a refused commit has written: %v", err)
	}
	revision, err := s.Commit(ctx, []Condition{{Key: "commit/a", Version: v}, {Key: "commit/b"}}, write)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := s.Get(ctx, "commit/a")
	b, _ := s.Get(ctx, "commit/b")
	if a.Version != revision || b.Version != revision {
		t.Errorf("versions are %d and %d, want both %d", a.Version, b.Version, revision)
	}
	var wins atomic.Int32
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			if _, err := s.Commit(ctx, []Condition{{Key: "commit/once"}}, []Op{{Key: "commit/once"}}); err == nil {
				wins.Add(1)
			}
		})
	}
	wait.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d of 16 made the same key, want 1", wins.Load())
	}
}

func refusesBadCommits(t *testing.T, s Store) {
	many := make([]Op, MaxOps+1)
	for i := range many {
		many[i].Key = fmt.Sprint("many/", i)
	}
	for name, ops := range map[string][]Op{
		"none": nil, "too many": many, "twice": {{Key: "a"}, {Key: "a"}}, "no key": {{Value: []byte("x")}},
		"too large": {{Key: "large", Value: make([]byte, MaxValue)}},
	} {
		_, err := s.Commit(within(t), nil, ops)
		if err == nil || errors.Is(err, ErrConflict) || errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := s.Commit(within(t), nil, many[:MaxOps]); err != nil {
		t.Errorf("%d operations: %v", MaxOps, err)
	}
}

// next takes a batch, or fails after the test's patience.
func next(t *testing.T, c <-chan Batch) Batch {
	t.Helper()
	select {
	case b, ok := <-c:
		if !ok {
			t.Fatal("the watch has ended")
		}
		return b
	case <-time.After(patience):
		t.Fatal("no batch came")
	}
	return Batch{}
}

func watchesInOrder(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(within(t))
	_, revision, err := s.List(ctx, "watch/")
	if err != nil {
		t.Fatal(err)
	}
	c := s.Watch(ctx, "watch/", revision)
	want := make([]uint64, 0, 100)
	for i := range 100 {
		r, err := s.Commit(ctx, nil, []Op{{Key: "watch/a", Value: fmt.Append(nil, i)}, {Key: fmt.Sprint("watch/", i)}, {Key: "elsewhere"}})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, r)
		put(t, s, "elsewhere", "")
	}
	for i, r := range want {
		b := next(t, c)
		if b.Revision != r || len(b.Events) != 2 || b.Err != nil {
			t.Fatalf("batch %d is %+v, want 2 events of the revision %d", i, b, r)
		}
		if e := b.Events[0]; e.Key != "watch/a" || string(e.Value) != fmt.Sprint(i) || e.Version != r {
			t.Fatalf("batch %d begins with %+v", i, e)
		}
	}
	cancel()
	for range c { // ends
	}
}

func resumes(t *testing.T, s Store) {
	a, b, c := put(t, s, "resume/a", "1"), put(t, s, "resume/b", "1"), put(t, s, "resume/c", "1")
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	for _, test := range []struct {
		after uint64
		want  []uint64
	}{{a - 1, []uint64{a, b, c}}, {a, []uint64{b, c}}, {b, []uint64{c}}} {
		watch := s.Watch(ctx, "resume/", test.after)
		for _, want := range test.want {
			if got := next(t, watch); got.Revision != want {
				t.Errorf("after %d: got the revision %d, want %d", test.after, got.Revision, want)
			}
		}
	}
}

func saysCompacted(t *testing.T, s Store) {
	a, _, c := put(t, s, "compact/a", "1"), put(t, s, "compact/a", "2"), put(t, s, "compact/a", "3")
	if err := s.Compact(within(t), c); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(within(t), c); err != nil {
		t.Errorf("a second time: %v", err)
	}
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	watch := s.Watch(ctx, "compact/", a)
	if b := next(t, watch); !errors.Is(b.Err, ErrCompacted) {
		t.Errorf("got %+v, want ErrCompacted", b)
	}
	if _, open := <-watch; open {
		t.Error("the watch goes on after its end")
	}
	if e, err := s.Get(ctx, "compact/a"); err != nil || string(e.Value) != "3" {
		t.Errorf("got %s, %v: the newest is kept", e.Value, err)
	}
	d := put(t, s, "compact/a", "4")
	if b := next(t, s.Watch(ctx, "compact/", c)); b.Revision != d {
		t.Errorf("from what is kept: got %d, want %d", b.Revision, d)
	}
}

func bearsSlowWatchers(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	_, revision, err := s.List(ctx, "slow/")
	if err != nil {
		t.Fatal(err)
	}
	slow, quick := s.Watch(ctx, "slow/", revision), s.Watch(ctx, "slow/", revision)
	const n = 500
	for i := range n {
		put(t, s, "slow/a", fmt.Sprint(i))
	}
	for range n {
		next(t, quick)
	}
	for i := range n {
		if b := next(t, slow); len(b.Events) != 1 || string(b.Events[0].Value) != fmt.Sprint(i) {
			t.Fatalf("batch %d is %+v", i, b)
		}
	}
}

func tellsDeletions(t *testing.T, s Store) {
	r := put(t, s, "delete/a", "1")
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	watch := s.Watch(ctx, "delete/", r)
	if same, err := s.Commit(ctx, nil, []Op{{Key: "delete/none", Delete: true}}); err != nil || same != r {
		t.Errorf("delete of what is not there: got %d, %v, want %d", same, err, r)
	}
	gone, err := s.Commit(ctx, []Condition{{Key: "delete/a", Version: r}}, []Op{{Key: "delete/a", Delete: true}})
	if err != nil {
		t.Fatal(err)
	}
	b := next(t, watch)
	if b.Revision != gone || len(b.Events) != 1 || !b.Events[0].Deleted || b.Events[0].Value != nil || b.Events[0].Key != "delete/a" {
		t.Errorf("got %+v, want the deletion of delete/a at %d", b, gone)
	}
}

func leadsOneAtATime(t *testing.T, s Store) {
	ctx := within(t)
	if _, err := s.Leader(ctx, "test"); !errors.Is(err, ErrNotFound) {
		t.Errorf("before anybody leads: got %v, want ErrNotFound", err)
	}
	var leading, led atomic.Int32
	var wait sync.WaitGroup
	for i := range 3 {
		wait.Go(func() {
			id := fmt.Sprint("c", i)
			err := s.Lead(ctx, "test", id, func(ctx context.Context, _ Leadership) error {
				if leading.Add(1) != 1 {
					t.Error("two lead")
				}
				defer leading.Add(-1)
				if got, err := s.Leader(ctx, "test"); got != id || err != nil {
					t.Errorf("leader: got %s, %v, want %s", got, err, id)
				}
				led.Add(1)
				return io.EOF
			})
			if !errors.Is(err, io.EOF) {
				t.Errorf("lead: got %v, want what do returned", err)
			}
		})
	}
	wait.Wait()
	if led.Load() != 3 {
		t.Errorf("%d have led, want 3", led.Load())
	}
	if _, err := s.Leader(ctx, "test"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after all: got %v, want ErrNotFound", err)
	}
}

func fences(t *testing.T, s Store) {
	var old Condition
	err := s.Lead(within(t), "fence", "c1", func(ctx context.Context, l Leadership) error {
		old = l.Fence()
		_, err := s.Commit(ctx, []Condition{l.Fence()}, []Op{{Key: "fenced", Value: []byte("1")}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(within(t), []Condition{old}, []Op{{Key: "fenced", Value: []byte("2")}}); !errors.Is(err, ErrConflict) {
		t.Errorf("after it led: got %v, want ErrConflict", err)
	}
	err = s.Lead(within(t), "fence", "c2", func(ctx context.Context, l Leadership) error {
		fence := l.Fence()
		if _, err := s.Commit(ctx, nil, []Op{{Key: fence.Key, Delete: true}}); err != nil { // as when the lease is lost
			return err
		}
		_, err := s.Commit(ctx, []Condition{fence}, []Op{{Key: "fenced", Value: []byte("3")}})
		if !errors.Is(err, ErrConflict) {
			t.Errorf("having lost it: got %v, want ErrConflict", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func endsWithContext(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, get := s.Get(ctx, "a")
	_, _, list := s.List(ctx, "a")
	_, commit := s.Commit(ctx, nil, []Op{{Key: "a"}})
	lead := s.Lead(ctx, "ended", "c1", func(ctx context.Context, _ Leadership) error { return ctx.Err() })
	for name, err := range map[string]error{"get": get, "list": list, "commit": commit, "lead": lead} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want the context's error", name, err)
		}
	}
	for range s.Watch(ctx, "a", 1) { // ends
	}
}

func tellsHealth(t *testing.T, s Store) {
	r := put(t, s, "health/a", "1")
	h, err := s.Health(within(t))
	if err != nil || h.Revision < r || len(h.Problems) > 0 || !h.Leader {
		t.Errorf("got %+v, %v", h, err)
	}
}

func closes(t *testing.T, s Store) {
	watch := s.Watch(within(t), "close/", put(t, s, "close/a", "1"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if b := next(t, watch); !errors.Is(b.Err, ErrUnavailable) {
		t.Errorf("watch: got %+v, want ErrUnavailable", b)
	}
	_, get := s.Get(t.Context(), "a")
	_, commit := s.Commit(t.Context(), nil, []Op{{Key: "a"}})
	lead := s.Lead(t.Context(), "closed", "c1", func(context.Context, Leadership) error { return nil })
	for name, err := range map[string]error{"get": get, "commit": commit, "lead": lead} {
		if !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: got %v, want ErrUnavailable", name, err)
		}
	}
}

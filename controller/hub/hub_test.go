package hub

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/store"
)

func running(t testing.TB, s store.Store) *Hub {
	t.Helper()
	h, err := New(Options{Store: s, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- h.Run(t.Context()) }()
	t.Cleanup(func() { <-done })
	<-h.Ready()
	return h
}

func put(t testing.TB, s store.Store, key string, value any) uint64 {
	t.Helper()
	op := store.Op{Key: key, Delete: value == nil}
	switch v := value.(type) {
	case nil:
	case string:
		op.Value = []byte(v)
	default:
		var err error
		if op.Value, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	revision, err := s.Commit(t.Context(), nil, []store.Op{op})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// node follows a hub as an agent does, by the lines alone.
type node struct {
	t        *testing.T
	name     string
	hub      *Hub
	at       *Crumb
	snapshot *api.Snapshot
}

func (n *node) take(line []byte) {
	n.t.Helper()
	var f api.Frame
	if err := json.Unmarshal(line, &f); err != nil {
		n.t.Fatal(err)
	}
	var err error
	switch f.Type {
	case api.FrameSnapshot:
		n.snapshot, err = f.Whole()
	case api.FrameChange:
		n.snapshot, err = n.snapshot.Apply(f.Change)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) catchUp() {
	n.t.Helper()
	if n.at == nil {
		state, crumb := n.hub.Base()
		n.at = crumb
		n.take(state.Whole(n.name, "e", true))
	}
	lines, now, ok := n.hub.Lines(n.name, n.snapshot.Revision, n.at)
	if !ok {
		n.t.Fatal("no change leads to now")
	}
	for _, line := range lines {
		n.take(line)
	}
	n.at = now
}

// randomWrite makes one change of any kind; it returns the revision.
func randomWrite(t *testing.T, r *rand.Rand, s store.Store) uint64 {
	i := r.IntN(6)
	gone := r.IntN(4) == 0
	value := func(v any) any {
		if gone {
			return nil
		}
		return v
	}
	name := fmt.Sprintf("n%d", r.IntN(3))
	service := api.Service{Name: fmt.Sprintf("s%d", i), Protocol: api.TCP, MaxConnections: uint32(r.IntN(3))}
	for j := range 1 + r.IntN(9) {
		service.Backends = append(service.Backends, api.Backend{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(3)), byte(j)}), 80)})
	}
	switch r.IntN(9) {
	case 0, 1:
		return put(t, s, ObjectKey("service", api.ServiceKey(&service)), value(service))
	case 2:
		return put(t, s, EffectKey("service", api.ServiceKey(&service)), value(service))
	case 3:
		rec := api.Record{Name: fmt.Sprintf("r%d", i), Type: api.RecordTXT, Data: []string{fmt.Sprint(r.IntN(5))}}
		return put(t, s, ObjectKey("record", rec.Key()), value(rec))
	case 4:
		return put(t, s, NodeKey(name), value(NodeEntry{ID: name, Node: api.Node{Name: name, Role: fmt.Sprint(r.IntN(3))}}))
	case 5:
		return put(t, s, ObjectKey("node", name), value(api.Node{Name: name, Draining: r.IntN(2) == 0, Attributes: map[string]string{"a": fmt.Sprint(r.IntN(3))}}))
	case 6:
		return put(t, s, HealthKey(name), value(string(api.NodeDead)))
	case 7:
		id := fmt.Sprintf("t%d", i)
		state := api.TaskRunning
		if r.IntN(3) == 0 {
			state = api.TaskFailed
		}
		return put(t, s, TaskKey(id), value(TaskEntry{Task: api.Task{ID: id, Node: name, State: state}, Spec: api.TaskSpec{ID: id, Kill: r.IntN(2) == 0}}))
	default:
		return put(t, s, VIPKey(fmt.Sprintf("v%d", i)), value(api.VIPAddresses{V4: netip.AddrFrom4([4]byte{198, 18, 0, byte(r.IntN(9))})}))
	}
}

func TestWhoFollowsHasWhatWhoComesAnewGets(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	s := store.NewMem()
	h := running(t, s)
	var nodes []*node
	for i := range 3 {
		nodes = append(nodes, &node{t: t, name: fmt.Sprintf("n%d", i), hub: h})
	}
	for i := range 600 {
		revision := randomWrite(t, r, s)
		if r.IntN(8) == 0 {
			if err := h.Wait(t.Context(), revision); err != nil {
				t.Fatal(err)
			}
		}
		// The last one is far behind most of the time.
		if n := r.IntN(40); n < 2 || n == 2 && i%100 == 0 {
			nodes[n].catchUp()
		}
		if i%200 != 199 {
			continue
		}
		if err := h.Wait(t.Context(), revision); err != nil {
			t.Fatal(err)
		}
		fresh := running(t, s)
		for _, n := range nodes {
			n.catchUp()
			want := &node{t: t, name: n.name, hub: fresh}
			want.catchUp()
			if c := n.snapshot.Change(want.snapshot); !c.Empty() {
				text, _ := json.Marshal(c)
				t.Fatalf("after %d writes node %s differs: %s", i+1, n.name, text)
			}
		}
	}
}

func TestANodeGoesOnAtAnotherControllerBetweenItsStates(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	s := store.NewMem()
	one, other := running(t, s), running(t, s)
	n := &node{t: t, name: "n1", hub: one}
	for range 10 {
		var revision uint64
		for range 12 {
			revision = randomWrite(t, r, s)
			if r.IntN(4) == 0 {
				time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
			}
		}
		for _, h := range []*Hub{one, other} {
			if err := h.Wait(t.Context(), revision); err != nil {
				t.Fatal(err)
			}
		}
		// The two see the same changes and make other states of them.
		if n.snapshot != nil {
			n.hub, n.at = other, other.From(n.snapshot.Revision)
			one, other = other, one
		}
		n.catchUp()
		want := &node{t: t, name: "n1", hub: n.hub}
		want.snapshot, want.at = n.hub.State().Snapshot("n1"), n.at
		if c := n.snapshot.Change(want.snapshot); !c.Empty() {
			text, _ := json.Marshal(c)
			t.Fatalf("it differs: %s", text)
		}
	}
}

func TestWhatWasChangedThereAndBackIsToldToWhoSawItInBetween(t *testing.T) {
	h, err := New(Options{Store: store.NewMem(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	event := func(revision uint64, data string) store.Event {
		text, _ := json.Marshal(api.Record{Name: "r", Type: api.RecordTXT, Data: []string{data}})
		return store.Event{Entry: store.Entry{Key: ObjectKey("record", "r/TXT"), Value: text, Version: revision}}
	}
	h.reset([]store.Entry{event(2, "old").Entry})
	// Another controller stopped at revision 3, with "new"; this one did not.
	h.apply([]store.Event{event(3, "new"), event(4, "old")}, 4)
	n := &node{t: t, name: "n", hub: h, at: h.From(3), snapshot: &api.Snapshot{
		Revision: 3, Node: api.Node{Name: "n"}, Records: []api.Record{{Name: "r", Type: api.RecordTXT, Data: []string{"new"}}},
	}}
	n.catchUp()
	if got := n.snapshot.Records[0].Data[0]; got != "old" || n.snapshot.Revision != 4 {
		t.Errorf("got %s at %d", got, n.snapshot.Revision)
	}
}

func TestNodesComeBackWhereTheyWere(t *testing.T) {
	s := store.NewMem()
	h, err := New(Options{Store: s, Log: slog.New(slog.DiscardHandler), RingBytes: 3000})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = h.Run(t.Context()) }()
	<-h.Ready()
	var revisions []uint64
	for i := range 30 {
		revisions = append(revisions, put(t, s, ObjectKey("record", "r"), api.Record{Name: "r", Type: api.RecordTXT, Data: []string{fmt.Sprint(i)}}))
		if err := h.Wait(t.Context(), revisions[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Wait(t.Context(), revisions[29]); err != nil {
		t.Fatal(err)
	}
	if c := h.From(revisions[28]); c == nil || c.After().Revision() != revisions[29] {
		t.Error("the last revision but one is not kept")
	}
	if h.From(revisions[0]) != nil {
		t.Error("all revisions are kept, whatever they take")
	}
	if c := h.From(revisions[29] + 5); c == nil || c.Revision() != revisions[29] {
		t.Error("a node that is ahead does not wait at the newest")
	}
	if n, lag := h.Behind(revisions[28]); n != 1 || lag <= 0 || lag > time.Hour {
		t.Errorf("%d states behind, for %s", n, lag)
	}
}

func TestObjectsAreFoundByTheirKeys(t *testing.T) {
	s := store.NewMem()
	h := running(t, s)
	for _, protocol := range []api.Protocol{api.TCP, api.UDP} {
		service := api.Service{Name: "dns", Protocol: protocol}
		put(t, s, ObjectKey("service", api.ServiceKey(&service)), service)
	}
	service := api.Service{Name: "web"}
	if err := h.Wait(t.Context(), put(t, s, ObjectKey("service", api.ServiceKey(&service)), service)); err != nil {
		t.Fatal(err)
	}
	if o, err := h.Get("service", "web.default"); err != nil || o.Key != "web.default/tcp" || o.Version == 0 {
		t.Errorf("got %+v, %v", o, err)
	}
	if o, err := h.Get("service", "dns.default"); err == nil {
		t.Errorf("one of two services was taken: %+v", o)
	}
	if all, _ := h.List("service"); len(all) != 3 || all[0].Key != "dns.default/tcp" {
		t.Errorf("got %+v", all)
	}
}

// BenchmarkOneBackendAmongAMillion is what a change of one backend costs a
// controller with 10,000 services of 100 backends.
func BenchmarkOneBackendAmongAMillion(b *testing.B) {
	h, err := New(Options{Store: store.NewMem(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	service := func(i, state int) []byte {
		s := api.Service{Name: fmt.Sprintf("s%05d", i), Protocol: api.TCP}
		for j := range 100 {
			s.Backends = append(s.Backends, api.Backend{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), 80), Node: "n"})
		}
		if state == 1 {
			s.Backends[7].State = api.Draining
		}
		text, _ := json.Marshal(s)
		return text
	}
	var entries []store.Entry
	for i := range 10_000 {
		entries = append(entries, store.Entry{Key: ObjectKey("service", fmt.Sprintf("s%05d.default/tcp", i)), Value: service(i, 0)})
	}
	h.reset(entries)
	changed := [][]byte{service(5000, 0), service(5000, 1)}
	_, crumb := h.Newest()
	b.ResetTimer()
	for i := range b.N {
		h.apply([]store.Event{{Entry: store.Entry{Key: entries[5000].Key, Value: changed[(i+1)%2]}}}, uint64(i+2))
		crumb = crumb.After()
		if got := crumb.Frame("n"); len(got) > 500 {
			b.Fatalf("the change takes %d bytes", len(got))
		}
	}
}

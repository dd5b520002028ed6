package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/store"
)

// fakeController lets nodes in as a real one does, and streams what a test puts
// into frames.
type fakeController struct {
	t      *testing.T
	door   *auth.Door
	server *httptest.Server
	frames chan api.Frame

	mu      sync.Mutex
	reports []api.Report
	queries []string
	streams int
}

func newFakeController(t *testing.T) *fakeController {
	t.Helper()
	authority, err := auth.NewAuthority("test-cluster", auth.NewSealKey(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	authority.Serve("c1", []string{"127.0.0.1"})
	door, err := auth.NewDoor(auth.Options{Store: store.NewMem(), Authority: authority, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeController{t: t, door: door, frames: make(chan api.Frame, 100)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+client.PathJoin, f.join)
	mux.HandleFunc("POST "+client.PathRenew, f.renew)
	mux.HandleFunc("GET "+client.PathStream, f.stream)
	mux.HandleFunc("POST "+client.PathReport, f.report)
	f.server = httptest.NewUnstartedServer(mux)
	f.server.TLS, f.server.EnableHTTP2 = authority.ServerTLS(), true
	f.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	f.server.StartTLS()
	t.Cleanup(func() { f.server.CloseClientConnections(); f.server.Close() })
	return f
}

func answerJoin(w http.ResponseWriter, joined api.Joined, err error) {
	if err != nil {
		problem(w, http.StatusForbidden, err)
		return
	}
	_ = json.NewEncoder(w).Encode(joined)
}

func (f *fakeController) join(w http.ResponseWriter, r *http.Request) {
	var j api.Join
	err := json.NewDecoder(r.Body).Decode(&j)
	var joined api.Joined
	if err == nil {
		joined, _, err = f.door.Join(r.Context(), auth.RoleAgent, j)
	}
	answerJoin(w, joined, err)
}

func (f *fakeController) renew(w http.ResponseWriter, r *http.Request) {
	var j api.Join
	err := json.NewDecoder(r.Body).Decode(&j)
	var joined api.Joined
	if err == nil {
		var who auth.Subject
		if who, err = f.door.Renewing(r); err == nil {
			joined, err = f.door.Renew(r.Context(), who, j)
		}
	}
	answerJoin(w, joined, err)
}

func (f *fakeController) stream(w http.ResponseWriter, r *http.Request) {
	if who, err := f.door.Subject(r); err != nil || who.Kind != trust.Node {
		problem(w, http.StatusUnauthorized, errors.New("no node"))
		return
	}
	f.mu.Lock()
	f.queries = append(f.queries, r.URL.RawQuery)
	f.streams++
	f.mu.Unlock()
	flush := http.NewResponseController(w)
	out := json.NewEncoder(w)
	beat := time.NewTicker(100 * time.Millisecond)
	defer beat.Stop()
	_ = flush.Flush()
	for {
		frame := api.Frame{Type: api.FrameHeartbeat}
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
		case frame = <-f.frames:
		}
		if out.Encode(frame) != nil || flush.Flush() != nil || frame.Type == api.FrameBye {
			return
		}
	}
}

func (f *fakeController) report(_ http.ResponseWriter, r *http.Request) {
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		var one api.Report
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			f.t.Errorf("a report that is none: %v: %s", err, lines.Text())
		}
		f.mu.Lock()
		f.reports = append(f.reports, one)
		f.mu.Unlock()
	}
}

// reported waits for a report that is as wanted.
func (f *fakeController) reported(what string, wanted func(api.Report) bool) api.Report {
	f.t.Helper()
	var found api.Report
	eventually(f.t, what, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, r := range f.reports {
			if wanted(r) {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func (f *fakeController) token() string {
	f.t.Helper()
	token, err := f.door.CreateToken(f.t.Context(), auth.TokenRequest{Role: auth.RoleAgent})
	if err != nil {
		f.t.Fatal(err)
	}
	return token.Secret
}

// quietConfig is an agent's that changes nothing in the kernel.
func quietConfig(t *testing.T) Config {
	t.Helper()
	c := DefaultConfig()
	c.Node.Name, c.Node.Addresses = "a1", []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	c.VIP.Dataplane, c.DNS.Listen, c.Zones.Mode, c.Metrics.Listen, c.Peers.Port = "off", nil, "off", "", 0
	c.RunDir, c.DataDir = t.TempDir(), t.TempDir()
	return c
}

func (f *fakeController) joined() Config {
	f.t.Helper()
	c := quietConfig(f.t)
	cluster, err := Join(f.t.Context(), c, JoinOptions{Controllers: []string{f.server.URL}, Token: f.token()})
	if err != nil || cluster != "test-cluster" {
		f.t.Fatalf("join: got %q, %v", cluster, err)
	}
	return c
}

func startAgent(t *testing.T, c Config) (a *Agent, stop func()) {
	t.Helper()
	a, err := New(Options{Config: c, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return a, stop
}

func TestAJoinedAgentFollowsTheStreamAndTellsWhatItApplied(t *testing.T) {
	f := newFakeController(t)
	c := f.joined()
	a, stop := startAgent(t, c)
	first := fleetOf(3)
	f.frames <- api.Frame{Type: api.FrameHello, ClusterID: "test-cluster", Controllers: []string{f.server.URL}}
	f.frames <- api.Frame{Type: api.FrameSnapshot, Epoch: "e1", Revision: 10, Snapshot: first}
	f.reported("revision 10 applied", func(r api.Report) bool { return r.Applied == 10 && r.Wanted == 10 })
	facts := f.reported("the node's facts", func(r api.Report) bool { return r.Status != nil }).Status
	if facts.Node.Name != "a1" || facts.Node.Resources.CPUs == 0 || facts.Node.Resources.Memory == 0 || facts.Node.Resources.Disk == 0 || facts.Version == "" {
		t.Errorf("got facts %+v", facts.Node)
	}
	changes, last := steps(t, first, 3)
	for _, change := range changes {
		f.frames <- api.Frame{Type: api.FrameChange, Epoch: "e1", Revision: change.Revision, Change: change}
	}
	f.reported("the changes applied", func(r api.Report) bool { return r.Applied == 13 })
	if !a.snapshot.Load().Equal(last) || a.Status().Source != "controller "+f.server.URL {
		t.Errorf("got revision %d from %q", a.snapshot.Load().Revision, a.Status().Source)
	}
	f.frames <- api.Frame{Type: api.FrameCommand, Command: &api.Command{ID: "7", Verb: "dance"}}
	if r := f.reported("an answer", func(r api.Report) bool { return r.Result != nil }).Result; r.ID != "7" || !r.Last || !strings.Contains(r.Error, "dance") {
		t.Errorf("an unknown command: got %+v", r)
	}
	f.frames <- api.Frame{Type: api.FrameProbe, Probe: &api.Probe{ID: "8"}}
	if r := f.reported("a probe's result", func(r api.Report) bool { return r.Probe != nil }).Probe; r.ID != "8" || r.Reached || r.Error == "" {
		t.Errorf("a probe of an agent that watches nobody: got %+v", r)
	}
	stop()
	f.reported("a farewell", func(r api.Report) bool { return r.Leaving })

	// The next agent starts from disk, and resumes.
	f.server.CloseClientConnections()
	again, _ := startAgent(t, c)
	eventually(t, "the state from disk", func() bool { return again.snapshot.Load() != nil })
	if got := again.snapshot.Load(); !got.Equal(last) || got.Revision != 13 || again.Status().Source != "disk" {
		t.Errorf("from disk: revision %d, source %q", got.Revision, again.Status().Source)
	}
	eventually(t, "a second stream", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.queries) > 1 })
	if q := f.queries[len(f.queries)-1]; q != "epoch=e1&packed=gzip&revision=13" {
		t.Errorf("it asked with %q", q)
	}
	f.frames <- api.Frame{Type: api.FrameHello, Epoch: "e1", Resumed: true}
	eventually(t, "the stream as source", func() bool { return strings.HasPrefix(again.Status().Source, "controller") })
}

func TestChangesThatDoNotFollowMakeItFetchTheWhole(t *testing.T) {
	f := newFakeController(t)
	a, _ := startAgent(t, f.joined())
	f.frames <- api.Frame{Type: api.FrameHello}
	f.frames <- api.Frame{Type: api.FrameSnapshot, Epoch: "e1", Snapshot: fleetOf(2)}
	f.frames <- api.Frame{Type: api.FrameChange, Epoch: "e1", Change: &api.SnapshotChange{From: 99, Revision: 100}}
	eventually(t, "another stream", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.streams > 1 })
	f.mu.Lock()
	if q := f.queries[1]; q != "packed=gzip" {
		t.Errorf("it asked with %q for the rest of what does not follow", q)
	}
	f.mu.Unlock()
	restored := fleetOf(1)
	restored.Revision = 4 // an earlier one, of another history
	f.frames <- api.Frame{Type: api.FrameHello}
	f.frames <- api.Frame{Type: api.FrameSnapshot, Epoch: "e2", Snapshot: restored}
	f.reported("the restored state", func(r api.Report) bool { return r.Applied == 4 })
	if len(a.snapshot.Load().Services) != 1 {
		t.Error("the restored state was not taken over")
	}
}

func TestARemovedNodeStaysAsItIsUntilItJoinsAnew(t *testing.T) {
	f := newFakeController(t)
	c := f.joined()
	a, stop := startAgent(t, c)
	f.frames <- api.Frame{Type: api.FrameHello}
	f.frames <- api.Frame{Type: api.FrameSnapshot, Epoch: "e1", Snapshot: fleetOf(2)}
	f.reported("the state", func(r api.Report) bool { return r.Applied == 10 })
	f.frames <- api.Frame{Type: api.FrameBye, Bye: &api.Bye{Reason: "removed by ann", Final: true}}
	eventually(t, "the removal", func() bool { return a.joined.identity.get().Removed == "removed by ann" })
	time.Sleep(300 * time.Millisecond)
	if a.snapshot.Load() == nil || f.streams != 1 {
		t.Errorf("it dropped its state or came back: %d streams", f.streams)
	}
	stop()
	if _, err := Join(t.Context(), c, JoinOptions{Controllers: []string{f.server.URL}, Token: f.token()}); err != nil {
		t.Fatal(err)
	}
	again, _ := startAgent(t, c)
	f.frames <- api.Frame{Type: api.FrameHello}
	eventually(t, "a stream again", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.streams == 2 })
	if again.joined.identity.get().NodeID != a.joined.identity.get().NodeID {
		t.Error("the node has another id after it joined anew")
	}
}

func TestADeadControllerIsLeftForTheNext(t *testing.T) {
	f := newFakeController(t)
	c := f.joined()
	c.Controllers = []string{"https://127.0.0.1:1", "https://127.0.0.1:2"} // nobody
	startAgent(t, c)
	f.frames <- api.Frame{Type: api.FrameHello}
	f.frames <- api.Frame{Type: api.FrameSnapshot, Epoch: "e1", Snapshot: fleetOf(1)}
	f.reported("the state", func(r api.Report) bool { return r.Applied == 10 })
}

func TestCertificatesAreRenewedForTheSameKey(t *testing.T) {
	f := newFakeController(t)
	a, err := New(Options{Config: f.joined(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	before := a.joined.identity.get()
	if len(before.PeerKey) != 32 {
		t.Errorf("the peers' key has %d bytes", len(before.PeerKey))
	}
	if err := a.joined.renewNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept, err := loadIdentity(a.config.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if after := kept.get(); after.Certificate == before.Certificate || after.NodeID != before.NodeID || string(after.PeerKey) != string(before.PeerKey) {
		t.Error("the certificate on disk is not a new one of the same node")
	}
	for _, name := range []string{keyFile, joinedFile, nodeIDFile} {
		if info, err := os.Stat(filepath.Join(a.config.DataDir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestNothingIsSentToAControllerOfAnotherCluster(t *testing.T) {
	real, other := newFakeController(t), newFakeController(t)
	c := quietConfig(t)
	_, err := Join(t.Context(), c, JoinOptions{Controllers: []string{other.server.URL}, Token: real.token()})
	if !errors.Is(err, trust.ErrPin) {
		t.Errorf("got %v, want %v", err, trust.ErrPin)
	}
	if _, err := New(Options{Config: c, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Errorf("a node that failed to join does not live by files: %v", err)
	}
	c.Controllers = []string{real.server.URL}
	if _, err := New(Options{Config: c, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "weir-agent join") {
		t.Errorf("a node with controllers that has not joined: got %v", err)
	}
	used := real.token()
	token, err := real.door.CreateToken(t.Context(), auth.TokenRequest{Role: auth.RoleAgent, Uses: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range []JoinOptions{
		{Controllers: []string{real.server.URL}, Token: token.Secret},
		{Controllers: []string{real.server.URL}, Token: token.Secret},
		{Controllers: []string{"http://x"}, Token: used},
		{Token: used},
		{Controllers: []string{real.server.URL}, Token: "nonsense"},
	} {
		if _, err := Join(t.Context(), quietConfig(t), o); (err == nil) != (i == 0) {
			t.Errorf("join %d: got %v", i, err)
		}
	}
}

package members

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/store"
)

const patience = 90 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func freeURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "https://" + l.Addr().String()
}

func options(t *testing.T, name string) Options {
	return Options{
		DataDir: filepath.Join(t.TempDir(), name), Name: name, URL: freeURL(t), Peer: freeURL(t), Election: time.Second,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// running is a controller with the two routes that joining needs.
type running struct {
	*Member
	url  string
	stop func()
}

func run(t *testing.T, o Options) *running {
	t.Helper()
	m, err := Open(within(t), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, nil) }()
	r := &running{Member: m}
	server := httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = m.Authority.ServerTLS()
	server.StartTLS()
	r.url = server.URL
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		server.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run of %s: %v", m.Name, err)
		}
		if err := m.Close(); err != nil {
			t.Errorf("close %s: %v", m.Name, err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

func (m *running) serve(w http.ResponseWriter, r *http.Request) {
	var answer any
	who, err := m.Door.Subject(r)
	switch r.URL.Path {
	case client.PathJoinController:
		var j api.Join
		if err = json.NewDecoder(r.Body).Decode(&j); err == nil {
			answer, _, err = m.Door.Join(r.Context(), auth.RoleController, j)
		}
	case client.PathControllers:
		var j api.ControllerJoin
		if err == nil {
			err = json.NewDecoder(r.Body).Decode(&j)
		}
		if err == nil {
			err = m.Door.Allow(who, auth.Create, auth.Own(trust.Controller, j.ID, auth.OwnMembership))
		}
		if err == nil {
			answer, err = m.Admit(r.Context(), who, j)
		}
	}
	switch {
	case errors.Is(err, store.ErrQuorum), errors.Is(err, store.ErrConflict):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusForbidden)
	default:
		_ = json.NewEncoder(w).Encode(answer)
	}
}

func TestInitIsDoneOnceAndOutlivesRestarts(t *testing.T) {
	o := options(t, "c1")
	if _, err := Open(within(t), o); !errors.Is(err, ErrNotInitialised) {
		t.Errorf("open before: got %v, want ErrNotInitialised", err)
	}
	cluster, err := Init(o)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Init(o); err != nil || again != cluster {
		t.Errorf("a second time: got %s, %v, want %s", again, err, cluster)
	}
	first := run(t, o)
	token, err := first.Door.CreateToken(within(t), auth.TokenRequest{Role: auth.RoleAgent})
	if err != nil {
		t.Fatal(err)
	}
	beside, err := Attach(within(t), o)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := beside.Door.Tokens(within(t)); err != nil || len(all) != 1 || all[0].ID != token.ID {
		t.Errorf("beside it: got %+v, %v", all, err)
	}
	if err := beside.Close(); err != nil {
		t.Error(err)
	}
	first.stop()
	o.Peer, o.PeerListen = freeURL(t), "" // it moved
	second := run(t, o)
	if second.ClusterID != cluster || second.Epoch != first.Epoch || second.ID != first.ID || second.Authority.Pin() != first.Authority.Pin() {
		t.Errorf("after a restart: got %s %s %s, want %s %s %s", second.ClusterID, second.Epoch, second.ID, cluster, first.Epoch, first.ID)
	}
	if list, err := second.etcd.Members(within(t)); err != nil || len(list) != 1 || list[0].Peers[0] != o.Peer {
		t.Errorf("members after the move: %+v, %v, want one at %s", list, err, o.Peer)
	}
	second.stop()
	o.Name = "c2"
	if _, err := Open(within(t), o); err == nil || !strings.HasPrefix(err.Error(), "name: ") {
		t.Errorf("under another name: got %v", err)
	}
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

func TestThreeControllersJoinAndOneIsRemoved(t *testing.T) {
	o := options(t, "c1")
	if _, err := Init(o); err != nil {
		t.Fatal(err)
	}
	all := []*running{run(t, o)}
	for _, name := range []string{"c2", "c3"} {
		token, err := all[0].Door.CreateToken(within(t), auth.TokenRequest{Role: auth.RoleController})
		if err != nil {
			t.Fatal(err)
		}
		o := options(t, name)
		cluster, err := Join(within(t), o, JoinOptions{URL: all[len(all)-1].url, Token: token.Secret})
		if err != nil {
			t.Fatal(err)
		}
		if cluster != all[0].ClusterID {
			t.Errorf("%s is of the cluster %s, want %s", name, cluster, all[0].ClusterID)
		}
		if _, err := Join(within(t), options(t, "c9"), JoinOptions{URL: all[0].url, Token: token.Secret}); err == nil || !strings.Contains(err.Error(), "used already") {
			t.Errorf("the same token again: got %v", err)
		}
		if _, err := Join(within(t), o, JoinOptions{URL: all[0].url, Token: token.Secret}); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("join again: got %v", err)
		}
		all = append(all, run(t, o))
	}
	eventually(t, "all are seen alive, one of them leading", func() error {
		list, err := all[2].List(within(t))
		if err != nil {
			return err
		}
		alive, leaders := 0, 0
		for _, c := range list {
			if c.Healthy {
				alive++
			}
			if c.Leader {
				leaders++
			}
		}
		if len(list) != 3 || alive != 3 || leaders != 1 {
			return fmt.Errorf("got %+v", list)
		}
		return nil
	})
	if err := all[0].Remove(within(t), "c1"); !errors.Is(err, store.ErrQuorum) {
		t.Errorf("remove itself: got %v, want ErrQuorum", err)
	}
	eventually(t, "c3 is removed", func() error { return all[0].Remove(within(t), "c3") })
	select {
	case <-all[2].Stopped():
	case <-time.After(patience):
		t.Error("the store of the removed one goes on")
	}
	if list, err := all[1].List(within(t)); err != nil || len(list) != 2 {
		t.Errorf("after the removal: %+v, %v", list, err)
	}
	if err := all[0].Remove(within(t), "c3"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("remove it again: got %v, want ErrNotFound", err)
	}
}

func TestRestoreKeepsAllButTheEpoch(t *testing.T) {
	o := options(t, "c1")
	if _, err := Init(o); err != nil {
		t.Fatal(err)
	}
	before := run(t, o)
	token, err := before.Door.CreateToken(within(t), auth.TokenRequest{Role: auth.RoleAgent})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := before.Store.Commit(within(t), nil, []store.Op{{Key: "vips/web", Value: []byte("198.18.0.7")}}); err != nil {
		t.Fatal(err)
	}
	var backup bytes.Buffer
	if err := before.Backup(within(t), &backup); err != nil {
		t.Fatal(err)
	}
	before.stop()

	elsewhere := options(t, "c5")
	if _, err := Restore(within(t), elsewhere, bytes.NewReader(backup.Bytes())); err == nil || !strings.Contains(err.Error(), "copy the key") {
		t.Errorf("without the key: got %v", err)
	}
	elsewhere.CAKeyFile = filepath.Join(o.DataDir, "ca.key")
	if _, err := Restore(within(t), elsewhere, strings.NewReader("nonsense")); err == nil {
		t.Error("nonsense was restored")
	}
	cluster, err := Restore(within(t), elsewhere, bytes.NewReader(backup.Bytes()))
	if err != nil || cluster != before.ClusterID {
		t.Fatalf("got %s, %v, want %s", cluster, err, before.ClusterID)
	}
	after := run(t, elsewhere)
	if after.Epoch == before.Epoch || after.Authority.Pin() != before.Authority.Pin() {
		t.Errorf("epoch %s, before %s; pin %s, before %s", after.Epoch, before.Epoch, after.Authority.Pin(), before.Authority.Pin())
	}
	if e, err := after.Store.Get(within(t), "vips/web"); err != nil || string(e.Value) != "198.18.0.7" {
		t.Errorf("what was allotted: got %s, %v", e.Value, err)
	}
	if all, err := after.Door.Tokens(within(t)); err != nil || len(all) != 1 || all[0].ID != token.ID {
		t.Errorf("tokens: got %+v, %v", all, err)
	}
	eventually(t, "it is the only controller", func() error {
		list, err := after.List(within(t))
		if err == nil && (len(list) != 1 || list[0].Name != "c5" || !list[0].Healthy || !list[0].Leader) {
			err = fmt.Errorf("got %+v", list)
		}
		return err
	})
	join, err := after.Door.CreateToken(within(t), auth.TokenRequest{Role: auth.RoleController})
	if err != nil {
		t.Fatal(err)
	}
	c6 := options(t, "c6")
	if _, err := Join(within(t), c6, JoinOptions{URL: after.url, Token: join.Secret}); err != nil {
		t.Fatalf("join what was restored: %v", err)
	}
	if e, err := run(t, c6).Store.Get(within(t), "vips/web"); err != nil || string(e.Value) != "198.18.0.7" {
		t.Errorf("at the one that joined: got %s, %v", e.Value, err)
	}
}

func TestInMemoryNothingIsNeeded(t *testing.T) {
	m, err := OpenInMemory(within(t), Options{Name: "dev", URL: "https://127.0.0.1:8443", Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	led := make(chan struct{})
	go func() {
		done <- m.Run(ctx, func(ctx context.Context, held store.Leadership) error {
			_, err := m.Store.Commit(ctx, []store.Condition{held.Fence()}, []store.Op{{Key: "led"}})
			close(led)
			<-ctx.Done()
			return err
		})
	}()
	<-led
	eventually(t, "it is listed", func() error {
		list, err := m.List(within(t))
		if err == nil && (len(list) != 1 || !list[0].Healthy) {
			err = fmt.Errorf("got %+v", list)
		}
		return err
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOptionsNameTheField(t *testing.T) {
	for field, spoil := range map[string]func(*Options){
		"url": func(o *Options) { o.URL = "http://a:1" }, "peer": func(o *Options) { o.Peer = "" }, "peer-listen": func(o *Options) { o.PeerListen = "a" },
		"log": func(o *Options) { o.Log = nil },
	} {
		o := options(t, "c1")
		spoil(&o)
		if _, err := Init(o); err == nil || !strings.HasPrefix(err.Error(), field+": ") {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

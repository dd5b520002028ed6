package client

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
)

// serve answers on a unix socket and returns its path. A test's own folder may
// be too long for the 108 bytes of a socket's address.
func serve(t *testing.T, handler http.Handler) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "weir")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		_ = os.RemoveAll(folder)
	})
	return path
}

func newClient(t *testing.T, address string) *Client {
	t.Helper()
	c, err := New(address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func vip(name string) api.VIPStatus {
	return api.VIPStatus{Name: name, Protocol: api.TCP, Balance: api.Random}
}

// echo answers every path with what was asked, in a field of the answer's.
func echo() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, value any) { _ = json.NewEncoder(w).Encode(value) }
	mux.HandleFunc("GET "+PathStatus, func(w http.ResponseWriter, r *http.Request) { answer(w, api.Status{Revision: 41}) })
	mux.HandleFunc("GET "+PathVIPs, func(w http.ResponseWriter, r *http.Request) { answer(w, []api.VIPStatus{vip("web")}) })
	mux.HandleFunc("GET "+PathVIPs+"/{name}", func(w http.ResponseWriter, r *http.Request) { answer(w, vip(r.PathValue("name"))) })
	mux.HandleFunc("GET "+PathDNSQuery, func(w http.ResponseWriter, r *http.Request) {
		answer(w, api.DNSAnswer{Name: r.FormValue("name"), Type: r.FormValue("type")})
	})
	mux.HandleFunc("GET "+PathZonesExplain, func(w http.ResponseWriter, r *http.Request) {
		port, _ := api.ParsePortRange(r.FormValue("port"))
		answer(w, api.ZoneExplanation{From: r.FormValue("from"), To: r.FormValue("to"), Port: port, Verdict: api.Allow})
	})
	return mux
}

func TestEveryCallReachesItsPath(t *testing.T) {
	web := httptest.NewServer(echo())
	defer web.Close()
	for _, address := range []string{serve(t, echo()), web.URL, web.URL + "/"} {
		c, ctx := newClient(t, address), t.Context()
		if s, err := c.Status(ctx); err != nil || s.Revision != 41 {
			t.Errorf("status: got %+v, %v", s, err)
		}
		if v, err := c.VIPs(ctx); err != nil || len(v) != 1 || v[0].Name != "web" {
			t.Errorf("vips: got %+v, %v", v, err)
		}
		for _, name := range []string{"web.shop", "web", "a/b c%2F?x=1#y"} {
			if v, err := c.VIP(ctx, name); err != nil || v.Name != name {
				t.Errorf("vip %q: got %q, %v", name, v.Name, err)
			}
		}
		if a, err := c.DNSQuery(ctx, "web.shop & co", "SRV"); err != nil || a.Name != "web.shop & co" || a.Type != "SRV" {
			t.Errorf("query: got %+v, %v", a, err)
		}
		if x, err := c.ZoneExplain(ctx, "10.0.0.1", "private", "tcp/8000-8100", ""); err != nil || x.From != "10.0.0.1" || x.To != "private" || x.Port.Last != 8100 {
			t.Errorf("explain: got %+v, %v", x, err)
		}
	}
}

func TestAProblemIsAnErrorWithItsStatus(t *testing.T) {
	tests := []struct {
		kind, body string
		want       Problem
	}{
		{"application/problem+json", `{"type":"about:blank","title":"Not Found","status":404,"detail":"there is no service \"x\""}`,
			Problem{Type: "about:blank", Title: "Not Found", Status: 404, Detail: `there is no service "x"`}},
		{"application/problem+json; charset=utf-8", `{"title":"Gone away"}`, Problem{Title: "Gone away", Status: 404}},
		{"text/plain", "404 page not found\nmore\n", Problem{Type: "about:blank", Title: "Not Found", Status: 404, Detail: "the agent answered 404 Not Found: 404 page not found"}},
		{"application/problem+json", "{}", Problem{Type: "about:blank", Title: "Not Found", Status: 404, Detail: "the agent answered 404 Not Found: {}"}},
		{"", "", Problem{Type: "about:blank", Title: "Not Found", Status: 404, Detail: "the agent answered 404 Not Found"}},
	}
	for _, test := range tests {
		path := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", test.kind)
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(test.body))
		}))
		_, err := newClient(t, path).VIP(t.Context(), "x")
		var got *Problem
		if !errors.As(err, &got) || !reflect.DeepEqual(*got, test.want) {
			t.Errorf("%q: got %#v, want %#v", test.body, err, test.want)
		}
		if err.Error() == "" {
			t.Errorf("%q: the error says nothing", test.body)
		}
	}
}

func TestAnAbsentAgentIsExplained(t *testing.T) {
	folder := t.TempDir()
	absent, stale := filepath.Join(folder, "absent.sock"), filepath.Join(folder, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Skipf("the folder's name is too long for a socket: %v", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for path, want := range map[string]string{
		absent:               "the agent is not running on this node (no " + absent + "): start it with systemctl start weir-agent",
		stale:                "the agent is not running on this node (nobody listens at " + stale + "): start it with systemctl start weir-agent",
		"http://127.0.0.1:1": "ask the agent at http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused",
	} {
		if _, err := newClient(t, path).Status(t.Context()); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestABrokenAnswerIsAnError(t *testing.T) {
	path := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`{"revision": 4`)) }))
	if _, err := newClient(t, path).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "read the agent's answer to /v1/status") {
		t.Errorf("got %v", err)
	}
	if _, err := New("http://[::1"); err == nil {
		t.Error("a bad URL was taken")
	}
}

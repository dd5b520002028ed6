package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/store"
)

const cluster = "0199c0de-0000-7000-8000-000000000001"

// clock that tests turn.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) turn(d time.Duration) { c.ahead.Add(int64(d)) }

type house struct {
	*Door
	clock *clock
	store *store.Mem
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{clock: &clock{}, store: store.NewMem()}
	authority, err := NewAuthority(cluster, NewSealKey(), h.clock.now)
	if err != nil {
		t.Fatal(err)
	}
	authority.Serve("controller-1", []string{"127.0.0.1"})
	h.Door, err = NewDoor(Options{Store: h.store, Authority: authority, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: h.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Adopt(t.Context(), "controller-1", "c1"); err != nil {
		t.Fatal(err)
	}
	return h
}

// run lets the door follow the store.
func (h *house) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// joiner is somebody with a key.
type joiner struct {
	key *ecdsa.PrivateKey
	api.Join
}

func newJoiner(t *testing.T, id, name, token string) *joiner {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})
	return &joiner{key, api.Join{Token: token, ID: id, Name: name, Request: string(text)}}
}

func (h *house) token(t *testing.T, r TokenRequest) string {
	t.Helper()
	made, err := h.CreateToken(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return made.Secret
}

// certificate of what was joined, as a request shows it.
func (j *joiner) request(t *testing.T, joined api.Joined) *http.Request {
	t.Helper()
	block, _ := pem.Decode([]byte(joined.Certificate))
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate}}
	return r
}

func (h *house) joinNode(t *testing.T, id, name string) (*joiner, api.Joined) {
	t.Helper()
	j := newJoiner(t, id, name, h.token(t, TokenRequest{Role: RoleAgent, Uses: 1}))
	joined, who, err := h.Join(t.Context(), RoleAgent, j.Join)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Subject{Kind: trust.Node, Name: name, ID: id}); who != want {
		t.Fatalf("got %v, want %v", who, want)
	}
	return j, joined
}

func TestWhatNoRuleAllowsIsDenied(t *testing.T) {
	h := newHouse(t)
	node, controller := Subject{trust.Node, "a1", "node-a1"}, Subject{trust.Controller, "c1", "controller-1"}
	operator, nobody := Subject{trust.Operator, "ann", "op"}, Subject{Kind: trust.Anonymous}
	for _, test := range []struct {
		who     Subject
		verb    Verb
		noun    string
		allowed bool
	}{
		{nobody, Get, NounHealth, true}, {nobody, Get, NounCA, true}, {nobody, Create, NounJoin, true}, {nobody, Create, NounLogin, true},
		{nobody, Put, NounHealth, false}, {nobody, Get, "services/shop/web", false}, {nobody, List, "", false}, {Subject{}, Get, "nodes", false},
		{node, Put, "nodes/node-a1/status", true}, {node, Watch, "nodes/node-a1/snapshot", true}, {node, Create, "nodes/node-a1/certificate", true},
		{node, Get, NounCA, true}, {node, Put, "nodes/node-a2/status", false}, {node, Watch, "nodes/node-a2/snapshot", false},
		{node, Get, "nodes/node-a1/status", false}, {node, Put, "nodes/node-a1/snapshot", false}, {node, Put, "nodes/node-a1", false},
		{node, Put, "nodes/node-a1/status/x", false}, {node, Get, "services/shop/web", false}, {node, Create, "controllers/node-a1/membership", false},
		{Subject{Kind: trust.Node}, Put, "nodes//status", false}, {Subject{Kind: "cat", ID: "x"}, Create, "cats/x/certificate", false},
		{controller, Create, "controllers/controller-1/membership", true}, {controller, Create, "controllers/other/membership", false},
		{controller, Watch, "services", true}, {controller, Put, "services/shop/web", false}, {controller, Put, "nodes/node-a1/status", false},
		{operator, Put, "services/shop/web", true}, {operator, Delete, "nodes/node-a1", true},
	} {
		err := h.Allow(test.who, test.verb, test.noun)
		var denied *Denied
		if (err == nil) != test.allowed || err != nil && (!errors.As(err, &denied) || denied.Reason == "") {
			t.Errorf("%s %s %q: got %v, want allowed %v", test.who, test.verb, test.noun, err, test.allowed)
		}
	}
}

func TestNodeJoinsAndIsKnown(t *testing.T) {
	h := newHouse(t)
	j, joined := h.joinNode(t, "node-a1-0001", "a1")
	who, err := h.Subject(j.request(t, joined))
	if err != nil || who.String() != "node/a1" || who.ID != "node-a1-0001" {
		t.Errorf("got %v, %v", who, err)
	}
	if joined.ClusterID != cluster || joined.Renew.After(joined.Expires) || !strings.Contains(joined.CA, "BEGIN CERTIFICATE") {
		t.Errorf("joined is %+v", joined)
	}
}

func TestTokens(t *testing.T) {
	h := newHouse(t)
	used := h.token(t, TokenRequest{Role: RoleAgent, Uses: 1})
	if _, _, err := h.Join(t.Context(), RoleAgent, newJoiner(t, "node-0001", "a1", used).Join); err != nil {
		t.Fatal(err)
	}
	late := h.token(t, TokenRequest{Role: RoleAgent, TTL: time.Minute})
	deleted, err := h.CreateToken(t.Context(), TokenRequest{Role: RoleAgent})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.DeleteToken(t.Context(), deleted.ID); err != nil {
		t.Fatal(err)
	}
	parsed, _ := trust.ParseToken(used)
	guessed := trust.Token{ID: parsed.ID, Secret: strings.Repeat("a", len(parsed.Secret)), Pin: parsed.Pin}
	h.clock.turn(2 * time.Minute)
	for name, test := range map[string]struct{ token, want string }{
		"used":     {used, "used already"},
		"late":     {late, "expired"},
		"deleted":  {deleted.Secret, "not known"},
		"guessed":  {guessed.String(), "not known"},
		"other":    {h.token(t, TokenRequest{Role: RoleController}), "is for controller"},
		"of a2":    {h.token(t, TokenRequest{Role: RoleAgent, Node: "a2"}), "for the node a2"},
		"garbage":  {"weir1.x", "token"},
		"upper":    {strings.ToUpper(used), "token"},
		"cut":      {used[:len(used)-3], "pin"},
		"no token": {"", "token"},
	} {
		_, _, err := h.Join(t.Context(), RoleAgent, newJoiner(t, "node-0009", "a9", test.token).Join)
		if !errors.Is(err, ErrUnauthenticated) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want ErrUnauthenticated with %q", name, err, test.want)
		}
		if err != nil && parsed.Secret != "" && strings.Contains(err.Error(), parsed.Secret) {
			t.Errorf("%s: the error tells the secret", name)
		}
	}
	left, err := h.Tokens(t.Context())
	if err != nil || len(left) != 2 {
		t.Errorf("tokens that are left: %+v, %v, want those of the controller and of a2", left, err)
	}
	for _, one := range left {
		if one.Secret != "" {
			t.Errorf("a list of tokens tells a secret")
		}
	}
	for _, r := range []TokenRequest{
		{}, {Role: "root"}, {Role: RoleAgent, TTL: -1}, {Role: RoleController, TTL: 48 * time.Hour}, {Role: RoleController, Uses: 2},
		{Role: RoleAgent, Uses: -1}, {Role: RoleOperator, Node: "a1"}, {Role: RoleOperator, TTL: 366 * 24 * time.Hour},
	} {
		if _, err := h.CreateToken(t.Context(), r); err == nil || !strings.Contains(err.Error(), ": ") {
			t.Errorf("%+v: got %v, want an error with its field", r, err)
		}
	}
}

func TestOfTwoWhoUseATokenAtOnceOneIsRefused(t *testing.T) {
	h := newHouse(t)
	h.run(t)
	token := h.token(t, TokenRequest{Role: RoleAgent, Uses: 3})
	var in, out atomic.Int32
	var wait sync.WaitGroup
	for i := range 8 {
		j := newJoiner(t, fmt.Sprintf("node-000%d", i), fmt.Sprint("a", i), token)
		wait.Go(func() {
			switch _, _, err := h.Join(context.Background(), RoleAgent, j.Join); {
			case err == nil:
				in.Add(1)
			case errors.Is(err, ErrUnauthenticated), errors.Is(err, store.ErrConflict):
				out.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if in.Load() != 3 || out.Load() != 5 {
		t.Errorf("%d came in and %d did not, want 3 and 5", in.Load(), out.Load())
	}
}

func TestNamesAreNotHijacked(t *testing.T) {
	h := newHouse(t)
	h.run(t)
	first, joined := h.joinNode(t, "node-0001", "a1")
	token := h.token(t, TokenRequest{Role: RoleAgent})
	thief := newJoiner(t, "node-0002", "a1", token)
	if _, _, err := h.Join(t.Context(), RoleAgent, thief.Join); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "name:") {
		t.Errorf("a name: got %v, want ErrTaken", err)
	}
	sameID := newJoiner(t, "node-0001", "a7", token)
	if _, _, err := h.Join(t.Context(), RoleAgent, sameID.Join); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "id:") {
		t.Errorf("an id: got %v, want ErrTaken", err)
	}
	first.Token = token // it lost its certificate, not its key
	if _, _, err := h.Join(t.Context(), RoleAgent, first.Join); err != nil {
		t.Errorf("join again with the same key: %v", err)
	}
	ended, stop := h.Ended(Subject{Kind: trust.Node, ID: "node-0001"})
	defer stop()
	thief.Replace = true // the machine was replaced, says who has the token
	other, _, err := h.Join(t.Context(), RoleAgent, thief.Join)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, ended)
	if _, err := h.Subject(first.request(t, joined)); !errors.Is(err, ErrRevoked) {
		t.Errorf("the old one: got %v, want ErrRevoked", err)
	}
	if who, err := h.Subject(thief.request(t, other)); err != nil || who.Name != "a1" {
		t.Errorf("the new one: got %v, %v", who, err)
	}
	first.Name = "a5"
	if _, _, err := h.Join(t.Context(), RoleAgent, first.Join); err != nil {
		t.Errorf("the old one under another name: %v", err)
	}
}

func waitFor(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came")
	}
}

func TestRemovedNodeIsRefusedAtOnceAndMayJoinAnew(t *testing.T) {
	h := newHouse(t)
	h.run(t)
	j, joined := h.joinNode(t, "node-0001", "a1")
	ended, stop := h.Ended(Subject{Kind: trust.Node, ID: "node-0001"})
	defer stop()
	if _, err := h.Revoke(t.Context(), trust.Node, "a1"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, ended)
	if _, err := h.Subject(j.request(t, joined)); !errors.Is(err, ErrRevoked) || !strings.Contains(err.Error(), "a1") {
		t.Errorf("got %v, want ErrRevoked with the name", err)
	}
	if _, err := h.Renewing(j.request(t, joined)); !errors.Is(err, ErrRevoked) {
		t.Errorf("renewal: got %v, want ErrRevoked", err)
	}
	again, stop := h.Ended(Subject{Kind: trust.Node, ID: "node-0001"})
	defer stop()
	waitFor(t, again)
	if _, err := h.Revoke(t.Context(), trust.Node, "a1"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a second time: got %v, want ErrNotFound", err)
	}
	j.Token = h.token(t, TokenRequest{Role: RoleAgent})
	joined, _, err := h.Join(t.Context(), RoleAgent, j.Join)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		if _, err = h.Subject(j.request(t, joined)); err == nil || time.Now().After(deadline) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Errorf("joined anew: %v", err)
	}
}

func TestCertificatesOfOthersAreRefused(t *testing.T) {
	h, foreign := newHouse(t), newHouse(t)
	j, joined := foreign.joinNode(t, "node-0001", "a1")
	h.joinNode(t, "node-0001", "a1")
	if _, err := h.Subject(j.request(t, joined)); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a foreign authority: got %v, want ErrUnauthenticated", err)
	}
	own, err := h.authority.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{own.Leaf}}
	if who, err := h.Subject(r); err != nil || who.String() != "controller/c1" {
		t.Errorf("a controller: got %v, %v", who, err)
	}
	root, _ := pem.Decode(h.authority.Bundle())
	ca, _ := x509.ParseCertificate(root.Bytes)
	r.TLS.PeerCertificates = []*x509.Certificate{ca}
	if _, err := h.Subject(r); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("the root itself: got %v", err)
	}
	if who, err := h.Subject(httptest.NewRequest(http.MethodGet, "/", nil)); err != nil || who.Kind != trust.Anonymous {
		t.Errorf("nobody: got %v, %v", who, err)
	}
}

func TestClocksOneHourOffAreBorneAndLateNodesRenew(t *testing.T) {
	h := newHouse(t)
	j, joined := h.joinNode(t, "node-0001", "a1")
	for _, skew := range []time.Duration{-time.Hour, time.Hour} {
		h.clock.turn(skew)
		if _, err := h.Subject(j.request(t, joined)); err != nil {
			t.Errorf("with a clock that is %s off: %v", skew, err)
		}
		h.clock.turn(-skew)
	}
	h.clock.turn(CertificateTTL + time.Hour)
	if _, err := h.Subject(j.request(t, joined)); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("after its end: got %v, want ErrUnauthenticated", err)
	}
	who, err := h.Renewing(j.request(t, joined))
	if err != nil {
		t.Fatalf("to renew it: %v", err)
	}
	renewed, err := h.Renew(t.Context(), who, j.Join)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Subject(j.request(t, renewed)); err != nil {
		t.Errorf("the renewed one: %v", err)
	}
	if _, err := h.Renew(t.Context(), who, newJoiner(t, "", "", "").Join); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("for another key: got %v", err)
	}
	h.clock.turn(RenewGrace + CertificateTTL)
	if _, err := h.Renewing(j.request(t, renewed)); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("after the grace: got %v, want ErrUnauthenticated", err)
	}
}

func TestOperatorsLogInByATokenOnce(t *testing.T) {
	h := newHouse(t)
	first := h.token(t, TokenRequest{Role: RoleOperator, Uses: 1})
	bearer := func(text string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", text)
		return r
	}
	if _, err := h.Subject(bearer("Bearer " + first)); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a token for logging in as a bearer: got %v", err)
	}
	login, err := h.Login(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	who, err := h.Subject(bearer("bearer " + login.Token))
	if err != nil || who.Kind != trust.Operator || who.Name == "" {
		t.Errorf("after the login: got %v, %v", who, err)
	}
	if _, err := h.Login(t.Context(), first); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a second time: got %v, want ErrUnauthenticated", err)
	}
	h.clock.turn(sessionTTL + time.Minute)
	for _, text := range []string{"Bearer " + login.Token, "Bearer ", "Basic YTpi", "Bearer weir1.a.b.c"} {
		if _, err := h.Subject(bearer(text)); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%.12q: got %v, want ErrUnauthenticated", text, err)
		}
	}
}

func TestBadRequestsForCertificatesNameTheField(t *testing.T) {
	h := newHouse(t)
	good := newJoiner(t, "node-0001", "a1", h.token(t, TokenRequest{Role: RoleAgent})).Join
	for field, spoil := range map[string]func(*api.Join){
		"id":      func(j *api.Join) { j.ID = "../x" },
		"name":    func(j *api.Join) { j.Name = "a/1" },
		"request": func(j *api.Join) { j.Request = "no" },
		"hosts":   func(j *api.Join) { j.Hosts = make([]string, 33) },
	} {
		bad := good
		spoil(&bad)
		if _, _, err := h.Join(t.Context(), RoleAgent, bad); err == nil || !strings.HasPrefix(err.Error(), field+": ") {
			t.Errorf("%s: got %v", field, err)
		}
	}
	tampered := good
	tampered.Request = strings.Replace(good.Request, good.Request[60:64], "AAAA", 1)
	if _, _, err := h.Join(t.Context(), RoleAgent, tampered); err == nil {
		t.Error("a tampered request was signed")
	}
}

func TestFirstContactIsPinnedAndLaterOnesAreVerified(t *testing.T) {
	h, foreign := newHouse(t), newHouse(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := h.Subject(r)
		fmt.Fprint(w, who, err)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = h.authority.ServerTLS()
	var impostor atomic.Pointer[tls.Certificate]
	ours := server.TLS.GetCertificate
	server.TLS.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if other := impostor.Load(); other != nil {
			return other, nil
		}
		return ours(hello)
	}
	server.StartTLS()
	defer server.Close()
	get := func(settings *tls.Config) (string, error) {
		transport := &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		response, err := (&http.Client{Transport: transport}).Get(server.URL)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return string(body), err
	}
	if got, err := get(trust.Pinned(h.authority.Pin())); err != nil || got != "anonymous <nil>" {
		t.Errorf("with the right pin: got %q, %v", got, err)
	}
	if _, err := get(trust.Pinned(foreign.authority.Pin())); !errors.Is(err, trust.ErrPin) {
		t.Errorf("with another pin: got %v, want ErrPin", err)
	}
	if got, err := get(h.authority.ClientTLS()); err != nil || got != "controller/c1 <nil>" {
		t.Errorf("a controller: got %q, %v", got, err)
	}
	if _, err := get(foreign.authority.ClientTLS()); err == nil {
		t.Error("a foreign controller takes ours for its own")
	}
	if _, err := get(trust.Config("another", h.authority.Bundle, nil)); err == nil || !strings.Contains(err.Error(), "another") {
		t.Errorf("of another cluster: got %v", err)
	}
	node, joined := h.joinNode(t, "node-0001", "a1")
	block, _ := pem.Decode([]byte(joined.Certificate))
	impostor.Store(&tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: node.key})
	if _, err := get(h.authority.ClientTLS()); err == nil || !strings.Contains(err.Error(), "no controller") {
		t.Errorf("a node as a server: got %v", err)
	}
}

func TestServerCertificateIsRenewedByItself(t *testing.T) {
	h := newHouse(t)
	first, err := h.authority.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	if same, _ := h.authority.Certificate(); same != first {
		t.Error("it is made anew at each handshake")
	}
	h.clock.turn(CertificateTTL/2 + time.Minute)
	if second, err := h.authority.Certificate(); err != nil || second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Errorf("at half of its life: got the same, or %v", err)
	}
}

func TestAuthorityIsSealed(t *testing.T) {
	key := NewSealKey()
	a, err := NewAuthority(cluster, key, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := a.Sealed()
	if err != nil {
		t.Fatal(err)
	}
	same, err := OpenAuthority(sealed, key, time.Now)
	if err != nil || same.Pin() != a.Pin() || same.ClusterID() != cluster {
		t.Errorf("opened: got %v", err)
	}
	if _, err := OpenAuthority(sealed, NewSealKey(), time.Now); err == nil {
		t.Error("opened with another key")
	}
	path := filepath.Join(t.TempDir(), "x", "ca.key")
	made, err := EnsureSealKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := EnsureSealKey(path); err != nil || again != made {
		t.Errorf("a second time: got another key, or %v", err)
	}
}

func TestRootIsChangedInSteps(t *testing.T) {
	h := newHouse(t)
	sealed, _ := h.authority.Sealed()
	if _, err := h.store.Commit(t.Context(), nil, []store.Op{{Key: AuthorityKey, Value: sealed}}); err != nil {
		t.Fatal(err)
	}
	other, err := OpenAuthority(sealed, h.authority.key, h.clock.now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	followed, done := make(chan struct{}, 10), make(chan struct{})
	go func() {
		defer close(done)
		_ = other.Run(ctx, h.store, func() { followed <- struct{}{} })
	}()
	defer func() { cancel(); <-done }()
	j, before := h.joinNode(t, "node-0001", "a1")
	pin := h.authority.Pin()
	for _, want := range []Rotation{RotationTrusted, RotationSigning, RotationNone} {
		if step, err := h.authority.Rotate(t.Context(), h.store, false); err != nil || step != want {
			t.Fatalf("got %s, %v, want %s", step, err, want)
		}
		waitFor(t, followed)
		if want == RotationNone {
			break
		}
		if _, err := h.Subject(j.request(t, before)); err != nil {
			t.Errorf("%s: a node of before: %v", want, err)
		}
		if _, err := h.authority.Rotate(t.Context(), h.store, false); err == nil {
			t.Error("the next step was taken at once")
		}
		h.clock.turn(CertificateTTL + time.Minute)
		who, err := h.Renewing(j.request(t, before))
		if err != nil {
			t.Fatal(err)
		}
		if before, err = h.Renew(t.Context(), who, j.Join); err != nil {
			t.Fatal(err)
		}
	}
	if h.authority.Pin() == pin || other.Pin() != h.authority.Pin() {
		t.Errorf("pins: before %s, now %s, the other's %s", pin, h.authority.Pin(), other.Pin())
	}
	if _, err := h.Subject(j.request(t, before)); err != nil {
		t.Errorf("a node that has renewed in time: %v", err)
	}
}

func TestWhatIsOverIsForgotten(t *testing.T) {
	h := newHouse(t)
	h.joinNode(t, "node-0001", "a1")
	h.joinNode(t, "node-0002", "a2")
	if _, err := h.Revoke(t.Context(), trust.Node, "a1"); err != nil {
		t.Fatal(err)
	}
	h.clock.turn(RenewGrace + 3*CertificateTTL)
	h.run(t)
	err := h.store.Lead(t.Context(), "test", "c1", func(ctx context.Context, held store.Leadership) error {
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if err := h.Tidy(ctx, held); err != nil {
				return err
			}
			all, err := h.Identities(ctx, trust.Node)
			tokens, _, _ := h.store.List(ctx, tokenPrefix)
			if err != nil || len(all) == 1 && all[0].Name == "a2" && len(tokens) == 0 {
				return err
			}
		}
		return errors.New("they are still there")
	})
	if err != nil {
		t.Error(err)
	}
}

package controller

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/members"
)

// site is a controller with its store in memory, and its operator.
type site struct {
	t      *testing.T
	url    string
	member *members.Member
	c      *Controller
	*client.Cluster
	login client.ClusterOptions
}

func newSite(t *testing.T) *site {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s := &site{t: t, url: "https://" + l.Addr().String()}
	s.member, err = members.OpenInMemory(t.Context(), members.Options{Name: "c1", URL: s.url, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	s.c, err = New(Options{
		Member: s.member, Listener: l, Version: "test", Range: DefaultRange, Range6: DefaultRange6, Names: DefaultNames(), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		_ = s.member.Close()
	})
	s.login, _, err = client.Login(t.Context(), []string{s.url}, s.token(auth.RoleOperator, 1))
	if err != nil {
		t.Fatalf("log in: %v", err)
	}
	if s.Cluster, err = client.NewCluster(s.login); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func (s *site) token(role auth.Role, uses int) string {
	s.t.Helper()
	token, err := s.member.Door.CreateToken(s.t.Context(), auth.TokenRequest{Role: role, Uses: uses})
	if err != nil {
		s.t.Fatal(err)
	}
	return token.Secret
}

// raw sends a request as somebody without anything, or with a header's value.
func (s *site) raw(method, path, body string, header ...string) (*http.Response, client.Problem) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	settings := trust.Config(s.member.ClusterID, s.member.Authority.Bundle, nil)
	transport := &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	var p client.Problem
	_ = json.Unmarshal(text, &p)
	return response, p
}

func (s *site) bearer() string { return "Bearer " + s.login.Token }

// status is the status that a controller refused with.
func status(err error) int {
	var p *client.Problem
	if errors.As(err, &p) {
		return p.Status
	}
	return 0
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func object(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

func service(name string, vip string, backends ...string) api.Service {
	v, err := api.ParseVIP(vip)
	if err != nil {
		panic(err)
	}
	one := api.Service{Name: name, Protocol: api.TCP, VIPs: []api.VIP{v}}
	for _, b := range backends {
		one.Backends = append(one.Backends, api.Backend{Address: netip.MustParseAddrPort(b)})
	}
	return one
}

// node is a joined node without an agent behind it: it keeps what the stream
// brings, and acknowledges it.
type node struct {
	t      *testing.T
	site   *site
	name   string
	http   *http.Client
	cancel context.CancelFunc
	out    *io.PipeWriter

	mu       sync.Mutex
	epoch    string
	snapshot *api.Snapshot
	wholes   int
	hellos   []api.Frame
	bye      *api.Bye
	ended    bool
}

// join makes a certificate and shows it.
func (s *site) join(name, id string) *node {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		s.t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})
	joined, _, err := s.member.Door.Join(s.t.Context(), auth.RoleAgent, api.Join{Token: s.token(auth.RoleAgent, 1), ID: id, Name: name, Request: string(text)})
	if err != nil {
		s.t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(joined.Certificate))
	own := &tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
	settings := trust.Config(joined.ClusterID, func() []byte { return []byte(joined.CA) }, func() (*tls.Certificate, error) { return own, nil })
	n := &node{t: s.t, site: s, name: name, http: &http.Client{Transport: &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}}}
	s.t.Cleanup(n.stop)
	return n
}

// start opens the stream and the reports, from where the node is.
func (n *node) start() {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	query := "?packed=gzip"
	if n.snapshot != nil {
		query += fmt.Sprintf("&epoch=%s&revision=%d", n.epoch, n.snapshot.Revision)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.site.url+client.PathStream+query, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	response, err := n.http.Do(request)
	if err != nil || response.StatusCode != http.StatusOK {
		n.t.Fatalf("open the stream of %s: %v, %v", n.name, response, err)
	}
	reader, writer := io.Pipe()
	n.out = writer
	report, err := http.NewRequestWithContext(ctx, http.MethodPost, n.site.url+client.PathReport, reader)
	if err != nil {
		n.t.Fatal(err)
	}
	go func() {
		if response, err := n.http.Do(report); err == nil {
			response.Body.Close()
		}
		_ = reader.CloseWithError(io.ErrClosedPipe)
	}()
	go n.read(response.Body)
	n.tell(api.Report{Status: &api.Status{Version: "v1", Node: api.Node{Name: n.name, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}})
}

func (n *node) tell(r api.Report) { _ = json.NewEncoder(n.out).Encode(r) }

func (n *node) read(body io.ReadCloser) {
	defer body.Close()
	lines := bufio.NewReader(body)
	for {
		text, err := lines.ReadBytes('\n')
		var f api.Frame
		if err != nil || json.Unmarshal(text, &f) != nil {
			n.mu.Lock()
			n.ended = true
			n.mu.Unlock()
			return
		}
		n.take(&f)
	}
}

func (n *node) take(f *api.Frame) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var err error
	switch f.Type {
	case api.FrameHello:
		n.hellos = append(n.hellos, *f)
		return
	case api.FrameSnapshot:
		n.wholes++
		n.epoch = f.Epoch
		n.snapshot, err = f.Whole()
	case api.FrameChange:
		n.snapshot, err = n.snapshot.Apply(f.Change)
	case api.FrameBye:
		n.bye = f.Bye
		return
	case api.FrameProbe:
		go n.tell(api.Report{Probe: &api.ProbeResult{ID: f.Probe.ID, Reached: f.Probe.Node.Name == "there"}})
		return
	default:
		return
	}
	if err != nil {
		n.t.Errorf("node %s: %v", n.name, err)
		return
	}
	go n.tell(api.Report{Applied: n.snapshot.Revision, Wanted: n.snapshot.Revision})
}

func (n *node) stop() {
	if n.cancel != nil {
		n.cancel()
		n.http.CloseIdleConnections()
	}
}

func (n *node) has(what string, is func(*api.Snapshot) bool) {
	n.t.Helper()
	eventually(n.t, n.name+" has "+what, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.snapshot != nil && is(n.snapshot)
	})
}

package health

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// secure serves over TLS, with httptest's certificate for example.com and
// 127.0.0.1, and keeps the name that clients ask for.
func secure(t *testing.T, handler http.HandlerFunc) (server *httptest.Server, sni *atomic.Value) {
	sni = &atomic.Value{}
	server = httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		sni.Store(h.ServerName)
		return nil, nil
	}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, sni
}

func TestHTTPSChecksTheCertificateWhenAsked(t *testing.T) {
	var host atomic.Value
	server, sni := secure(t, func(w http.ResponseWriter, r *http.Request) {
		host.Store(r.Host)
		if r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	address := server.Listener.Addr().String()
	for _, c := range []struct {
		name      string
		check     api.HTTPSCheck
		roots     *x509.CertPool
		sni, host string
		err       string
	}{
		{"any certificate", api.HTTPSCheck{}, x509.NewCertPool(), "", address, ""},
		{"any certificate, a name", api.HTTPSCheck{HTTPCheck: api.HTTPCheck{Host: "web.example"}}, x509.NewCertPool(), "web.example", "web.example", ""},
		{"verified by address", api.HTTPSCheck{Verify: true}, trusted, "", address, ""},
		{"verified by name", api.HTTPSCheck{HTTPCheck: api.HTTPCheck{Host: "example.com:8443"}, Verify: true}, trusted, "example.com", "example.com:8443", ""},
		{"of another name", api.HTTPSCheck{HTTPCheck: api.HTTPCheck{Host: "web.shop"}, Verify: true}, trusted, "web.shop", "", "certificate is valid for example.com"},
		{"of an unknown authority", api.HTTPSCheck{Verify: true}, x509.NewCertPool(), "", "", "unknown authority"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host.Store("")
			c.check.Path = "/healthz"
			backend := netip.MustParseAddrPort(address)
			err := within(t.Context(), 5*time.Second, (&prober{roots: c.roots}).probe(Target{Backend: backend, Check: api.HealthCheck{HTTPS: &c.check}}))
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got %v, want %q", err, c.err)
			}
			if sni.Load() != c.sni || host.Load() != c.host {
				t.Errorf("asked for SNI %q, host %q; want %q, %q", sni.Load(), host.Load(), c.sni, c.host)
			}
		})
	}
}

func TestHTTPSFails(t *testing.T) {
	server, _ := secure(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	err := try(t, server.Listener.Addr().String(), 5*time.Second, api.HealthCheck{HTTPS: &api.HTTPSCheck{}})
	if err == nil || err.Error() != "GET / answered 500 Internal Server Error" {
		t.Errorf("got %v", err)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	err = try(t, plain.Listener.Addr().String(), 5*time.Second, api.HealthCheck{HTTPS: &api.HTTPSCheck{}})
	if err == nil || !strings.HasPrefix(err.Error(), "shake hands over tls: ") {
		t.Errorf("a server without TLS: got %v", err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, check := range []api.HealthCheck{{HTTPS: &api.HTTPSCheck{}}, {HTTP: &api.HTTPCheck{}}, {GRPC: &api.GRPCCheck{}}, {GRPC: &api.GRPCCheck{TLS: true}}} {
		if err := try(t, silent.Addr().String(), 50*time.Millisecond, check); err == nil || err.Error() != "no answer within 50ms" {
			t.Errorf("a silent server: got %v", err)
		}
	}
}

func TestEarlyHintsAreNoAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	err := try(t, server.Listener.Addr().String(), 5*time.Second, api.HealthCheck{HTTP: &api.HTTPCheck{}})
	if err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("got %v, want 503", err)
	}
}

func TestAnEndlessHeaderIsCutOff(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
		for err == nil {
			_, err = io.WriteString(conn, "X: "+strings.Repeat("x", 1000)+"\r\n")
		}
	}()
	if err := try(t, l.Addr().String(), 5*time.Second, api.HealthCheck{HTTP: &api.HTTPCheck{}}); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("got %v", err)
	}
}

func TestAPathThatIsNoneFails(t *testing.T) {
	if err := try(t, "127.0.0.1:1", time.Second, api.HealthCheck{HTTP: &api.HTTPCheck{Path: "/%zz"}}); err == nil || !strings.Contains(err.Error(), "%zz") {
		t.Errorf("got %v", err)
	}
}

func TestEveryCheckOpensAConnection(t *testing.T) {
	plain, overTLS := counted(t, false, answerGRPC), counted(t, true, answerGRPC)
	for name, c := range map[string]struct {
		server *countingServer
		check  api.HealthCheck
		reset  bool // a server that closes first reads no reset
	}{
		"tcp":      {plain, api.HealthCheck{TCP: &api.TCPCheck{}}, true},
		"http":     {plain, api.HealthCheck{HTTP: &api.HTTPCheck{}}, false},
		"https":    {overTLS, api.HealthCheck{HTTPS: &api.HTTPSCheck{}}, false},
		"grpc":     {plain, api.HealthCheck{GRPC: &api.GRPCCheck{}}, true},
		"grpc tls": {overTLS, api.HealthCheck{GRPC: &api.GRPCCheck{TLS: true}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			opened, reset := c.server.opened.Load(), c.server.reset.Load()
			for range 5 {
				if err := try(t, c.server.address, 5*time.Second, c.check); err != nil {
					t.Fatal(err)
				}
			}
			for deadline := time.Now().Add(5 * time.Second); c.reset && c.server.reset.Load()-reset < 5; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d of 5 connections were reset", c.server.reset.Load()-reset)
				}
			}
			for deadline := time.Now().Add(5 * time.Second); c.server.opened.Load()-opened < 5; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("5 checks opened %d connections", c.server.opened.Load()-opened)
				}
			}
		})
	}
}

func TestHTTPEndsWithAReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		_, err = conn.Read(make([]byte, 1))
		ended <- err
	}()
	if err := try(t, l.Addr().String(), 5*time.Second, api.HealthCheck{HTTP: &api.HTTPCheck{}}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server's end: got %v, want a reset", err)
	}
}

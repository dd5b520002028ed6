package health

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// countingServer serves HTTP/1 and HTTP/2 and counts its connections, and those
// that the client reset.
type countingServer struct {
	address       string
	opened, reset atomic.Int64
}

func counted(t *testing.T, overTLS bool, handler http.HandlerFunc) *countingServer {
	s := &countingServer{}
	server := httptest.NewUnstartedServer(handler)
	server.Listener = countingListener{server.Listener, s}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.Protocols = &http.Protocols{}
	server.Config.Protocols.SetHTTP1(true)
	if overTLS {
		server.Config.Protocols.SetHTTP2(true)
		server.EnableHTTP2 = true
		server.StartTLS()
	} else {
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
	}
	s.address = server.Listener.Addr().String()
	t.Cleanup(server.Close)
	return s
}

type countingListener struct {
	net.Listener
	server *countingServer
}

func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.server.opened.Add(1)
		conn = &countingConn{Conn: conn, server: l.server}
	}
	return conn, err
}

type countingConn struct {
	net.Conn
	server *countingServer
	reset  atomic.Bool
}

func (c *countingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, syscall.ECONNRESET) && !c.reset.Swap(true) {
		c.server.reset.Add(1)
	}
	return n, err
}

// answerGRPC answers as the service that is asked for wants: "" and "web" serve.
func answerGRPC(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 2 {
		return // 200, for checks by HTTP
	}
	body, _ := io.ReadAll(r.Body)
	if r.Method != "POST" || r.URL.Path != "/grpc.health.v1.Health/Check" || r.Header.Get("Content-Type") != "application/grpc" || r.Header.Get("Te") != "trailers" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	end := func(message []byte, status, said string) {
		w.Header().Set("Content-Type", "application/grpc")
		if message != nil {
			_, _ = w.Write(append([]byte{0, 0, 0, 0, byte(len(message))}, message...))
			w.(http.Flusher).Flush()
		}
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", said)
	}
	switch service := string(bytes.TrimPrefix(body[5:], []byte{10, byte(len(body) - 7)})); service {
	case "", "web":
		end([]byte{8, 1}, "0", "")
	case "unknown":
		end([]byte{}, "0", "")
	case "down":
		end([]byte{8, 2}, "0", "")
	case "new":
		end([]byte{8, 77}, "0", "")
	case "broken":
		end([]byte{8}, "0", "")
	case "failing":
		end([]byte{8, 1}, "14", "try%20later")
	case "long":
		end(nil, "2", strings.Repeat("x", 5000))
	case "absent": // the header alone
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "5")
		w.Header().Set("Grpc-Message", "unknown service 100%")
	case "plain":
		_, _ = io.WriteString(w, "hello")
	case "large":
		_, _ = w.Write(make([]byte, 1<<20))
	case "hints":
		w.WriteHeader(http.StatusEarlyHints)
		end([]byte{8, 1}, "0", "")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func TestGRPC(t *testing.T) {
	plain, overTLS := counted(t, false, answerGRPC), counted(t, true, answerGRPC)
	const method = "/grpc.health.v1.Health/Check"
	for service, want := range map[string]string{
		"": "", "web": "", "hints": "",
		"unknown": method + " answered UNKNOWN",
		"down":    method + " answered NOT_SERVING",
		"new":     method + " answered 77",
		"broken":  "read the answer to " + method + ": the message is malformed",
		"failing": method + ` answered grpc-status 14 ("try later")`,
		"long":    method + ` answered grpc-status 2 ("` + strings.Repeat("x", 200) + `")`,
		"absent":  method + ` answered grpc-status 5 ("unknown service 100%")`,
		"plain":   method + " answered without a grpc-status: not a gRPC server",
		"large":   "read the answer to " + method + ": the answer is too long",
		"other":   method + " answered HTTP status 404",
	} {
		for _, server := range []*countingServer{plain, overTLS} {
			err := try(t, server.address, 5*time.Second, api.HealthCheck{GRPC: &api.GRPCCheck{Service: service, TLS: server == overTLS}})
			if got := errorText(err); got != want {
				t.Errorf("service %.20q, tls %v: got %q, want %q", service, server == overTLS, got, want)
			}
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestGRPCNeedsHTTP2(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	err := try(t, plain.Listener.Addr().String(), 5*time.Second, api.HealthCheck{GRPC: &api.GRPCCheck{}})
	if !errors.Is(err, errNoHTTP2) {
		t.Errorf("got %v, want %v", err, errNoHTTP2)
	}
	overTLS, _ := secure(t, http.NotFound)
	err = try(t, overTLS.Listener.Addr().String(), 5*time.Second, api.HealthCheck{GRPC: &api.GRPCCheck{TLS: true}})
	if err == nil {
		t.Error("a server without HTTP/2 passed")
	}
	err = try(t, "127.0.0.1:1", 5*time.Second, api.HealthCheck{GRPC: &api.GRPCCheck{}})
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port: got %v", err)
	}
}

func TestGRPCMessages(t *testing.T) {
	for _, c := range []struct {
		frame string
		want  uint64
		ok    bool
	}{
		{"\x00\x00\x00\x00\x02\x08\x01", 1, true},
		{"\x00\x00\x00\x00\x00", 0, true},
		{"\x00\x00\x00\x00\x04\x08\x02\x08\x01", 1, true}, // the last counts
		{"\x00\x00\x00\x00\x15\x12\x02hi\x19\x01\x02\x03\x04\x05\x06\x07\x08\x25\x01\x02\x03\x04\x08\x01", 1, false}, // one byte short
		{"\x00\x00\x00\x00\x14\x12\x02hi\x19\x01\x02\x03\x04\x05\x06\x07\x08\x25\x01\x02\x03\x04\x08\x01", 1, true},
		{"\x00\x00\x00\x00\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 1<<64 - 1, true}, // -1
		{"\x01\x00\x00\x00\x02\x08\x01", 0, false},                                            // compressed
		{"\x00\x00\x00\x00\x03\x08\x01", 0, false},
		{"\x00\x00\x00\x00\x02\x12\x05", 0, false},
		{"\x00\x00\x00\x00\x02\x0b\x01", 0, false}, // a group
		{"\x00\x00\x00\x00\x01\x80", 0, false},
		{"", 0, false},
	} {
		got, err := grpcStatus([]byte(c.frame))
		if (err == nil) != c.ok || c.ok && got != c.want {
			t.Errorf("%q: got %d, %v; want %d, fine: %v", c.frame, got, err, c.want, c.ok)
		}
	}
}

func FuzzGRPCMessage(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02\x08\x01"))
	f.Add([]byte("\x00\x00\x00\x00\x04\x12\x02hi"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if status, err := grpcStatus(b); err != nil && status != 0 {
			t.Errorf("%d with an error", status)
		}
	})
}

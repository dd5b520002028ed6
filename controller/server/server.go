// Package server is the controllers' HTTP API: objects that people declare,
// the streams that bring each node its wanted state, and the way into the
// cluster. Every route asks the Door first, every write is in the audit, and
// every refusal is a problem document (RFC 9457).
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/store"
	"github.com/weirproject/weir/dnsproxy"
)

// Watcher is told of the nodes' streams; package monitor has one.
type Watcher interface {
	Opened(n api.Node)
	Heard(node string, r *api.Report)
	Closed(node string)
	Forget(node string)
}

// Members looks after who the controllers are; package members has one.
type Members interface {
	List(ctx context.Context) ([]api.Controller, error)
	Admit(ctx context.Context, who auth.Subject, j api.ControllerJoin) (api.ControllerJoined, error)
	Remove(ctx context.Context, name string) error
}

// Options of a Server.
type Options struct {
	Name      string // of this controller
	Version   string
	Store     store.Store
	Hub       *hub.Hub
	Door      *auth.Door
	Authority *auth.Authority
	Audit     *auth.Audit
	Watcher   Watcher
	// Controllers lists the URLs of all controllers, this one's included.
	Controllers func() []string
	// Members looks after who the controllers are; nil: there is this one alone.
	Members Members
	// Leads tells whether this controller leads the others; nil: it does not.
	Leads func() bool
	// Range and Range6 are where named VIPs get their addresses from.
	Range, Range6 netip.Prefix
	// Names are the options that agents compile names with.
	Names dnsproxy.Options
	// Tasks is told what nodes report of their tasks; nil: nobody is.
	Tasks func(node string, tasks []api.TaskStatus, all bool)
	// More routes, such as other APIs; each asks the Door itself.
	More map[string]http.Handler
	Log  *slog.Logger
	// Registry gathers what is counted.
	Registry *prometheus.Registry
}

// Server of one controller.
type Server struct {
	o       Options
	log     *slog.Logger
	metrics *metrics
	mux     *http.ServeMux
	stop    chan struct{} // closed when streams shall end
	judged  chan struct{} // there are verdicts
	others  *http.Client  // for the other controllers
	// committed is the newest revision that was written through this controller.
	committed atomic.Uint64

	naming sync.Mutex // guards names
	names  *dnsproxy.Table

	mu       sync.Mutex // guards what follows
	sessions map[string]*session
	asked    map[string]chan api.Report // by probe or command id
	verdicts map[string]api.NodeHealth  // to be written, by node
	orphans  []api.Node
}

// New makes a server; Serve and Run start it.
func New(o Options) (*Server, error) {
	if o.Store == nil || o.Hub == nil || o.Door == nil || o.Authority == nil || o.Audit == nil || o.Log == nil || o.Registry == nil {
		return nil, errors.New("make the server: Store, Hub, Door, Authority, Audit, Log and Registry are needed")
	}
	if o.Controllers == nil {
		o.Controllers = func() []string { return nil }
	}
	s := &Server{
		o: o, log: o.Log.With("component", "server"), metrics: newMetrics(o.Registry), mux: http.NewServeMux(), stop: make(chan struct{}),
		judged: make(chan struct{}, 1), others: otherControllers(o.Authority.ClientTLS()),
		sessions: map[string]*session{}, asked: map[string]chan api.Report{}, verdicts: map[string]api.NodeHealth{},
	}
	for _, r := range s.routes() {
		s.mux.HandleFunc(r.Method+" "+r.Path, s.handle(r))
	}
	for pattern, handler := range o.More {
		s.mux.Handle(pattern, handler)
	}
	return s, nil
}

// Handler is the API without TLS around it, for tests.
func (s *Server) Handler() http.Handler { return s.mux }

// Limits of a connection, against clients that hold on without asking.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
	// stopWithin is how long requests may take to end when the server stops.
	stopWithin = 3 * time.Second
)

// Serve answers on a listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s.mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		TLSConfig: s.o.Authority.ServerTLS(), ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	ended := context.AfterFunc(ctx, func() {
		close(s.stop)
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		if server.Shutdown(late) != nil {
			_ = server.Close()
		}
	})
	defer ended()
	err := server.ServeTLS(l, "", "")
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the API on %s: %w", l.Addr(), err)
}

// clientName is who sends a request, by address.
func clientName(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

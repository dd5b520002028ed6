package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

const (
	// wantedFile holds the wanted state of a joined node, in data_dir.
	wantedFile = "wanted.log"
	// First and longest wait between two tries of all controllers.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
	// homeAfter is how long a node stays with a controller that is not its first
	// choice, before it tries that again.
	homeAfter = 3 * time.Minute
)

// CommandFunc does what a command of a controller asks for. It sends the parts
// of the answer, and its error ends it.
type CommandFunc func(ctx context.Context, arguments map[string]string, send func([]byte)) error

// joined feeds a joined node with the controllers' wanted state, and tells them
// what the node observes.
type joined struct {
	agent    *Agent
	log      *slog.Logger
	identity *identity
	keeper   *keeper
	commands map[string]CommandFunc
	// http is renewed with the certificate, guarded by mu.
	http *http.Client

	mu        sync.Mutex // guards what follows
	epoch     string
	connected string                    // to the controller of this URL
	peers     map[string]api.NodeHealth // health to be told
	results   []api.Report
	reports   chan struct{} // something is to be told
}

// newJoined is nil for a node that is configured with folders and has not
// joined.
func (a *Agent) newJoined() (*joined, error) {
	i, err := loadIdentity(a.config.DataDir)
	if err != nil {
		return nil, fmt.Errorf("read what joining left (join anew if it cannot be repaired): %w", err)
	}
	switch {
	case i == nil && len(a.config.Controllers) > 0:
		return nil, errors.New("this node has not joined yet: run weir-agent join URL --token TOKEN")
	case i == nil:
		return nil, nil
	}
	m := i.get()
	if m.Name != a.config.Node.Name {
		return nil, fmt.Errorf("this node has joined as %q and its configuration says %q: join anew under that name", m.Name, a.config.Node.Name)
	}
	log := a.log.With("component", "controllers")
	j := &joined{
		agent: a, log: log, identity: i, commands: map[string]CommandFunc{},
		keeper: newKeeper(a.dataPath(wantedFile), m.ClusterID, m.NodeID, log),
		peers:  map[string]api.NodeHealth{}, reports: make(chan struct{}, 1),
	}
	j.renewClient()
	return j, nil
}

// loadKept takes over the last wanted state on disk, which is in force until a
// controller has sent a newer one.
func (j *joined) loadKept() {
	s, epoch, err := j.keeper.load()
	if err != nil {
		j.log.Warn("wanted state on disk discarded; the controllers send it anew", "error", err)
	}
	if s == nil {
		return
	}
	j.epoch = epoch
	j.agent.adopt(s, "disk")
}

// run keeps a stream open until ctx ends.
func (j *joined) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return j.keeper.run(ctx) })
	g.Go(func() error { return j.renew(ctx) })
	g.Go(func() error { return j.follow(ctx) })
	return g.Wait()
}

// follow goes from controller to controller.
func (j *joined) follow(ctx context.Context) error {
	backoff := firstBackoff
	for ctx.Err() == nil {
		if removed := j.identity.get().Removed; removed != "" {
			j.log.Error("this node was removed from the cluster; what it serves stays as it is. Join anew with weir-agent join", "reason", removed)
			<-ctx.Done()
			return nil
		}
		for n, controller := range j.order() {
			if ctx.Err() != nil {
				return nil
			}
			began := time.Now()
			err := j.visit(ctx, controller, n > 0)
			if err != nil && ctx.Err() == nil {
				j.log.Warn("stream ended", "controller", controller, "error", err)
			}
			if time.Since(began) > maxBackoff {
				backoff = firstBackoff
				break // from the first choice on
			}
		}
		// So that those whom one controller served do not all come at once.
		select {
		case <-ctx.Done():
		case <-time.After(backoff/2 + rand.N(backoff)):
		}
		backoff = min(2*backoff, maxBackoff)
	}
	return nil
}

// visit holds a stream; with a controller that is not the first choice only for
// a while.
func (j *joined) visit(ctx context.Context, controller string, second bool) error {
	if second {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, homeAfter+rand.N(homeAfter), errGoHome)
		defer cancel()
	}
	err := j.stream(ctx, controller)
	j.setConnected("")
	var bye *byeError
	switch {
	case errors.Is(context.Cause(ctx), errGoHome):
		return nil
	case errors.As(err, &bye) && bye.Final:
		return j.identity.change(func(m *membership) { m.Removed = bye.Reason })
	case errors.As(err, &bye) && bye.Retry > 0:
		select {
		case <-ctx.Done():
		case <-time.After(min(bye.Retry.Std(), maxBackoff)):
		}
	}
	return err
}

var errGoHome = errors.New("time to try the first choice again")

// order lists the controllers as this node prefers them: each node another
// way, so that they spread.
func (j *joined) order() []string {
	m := j.identity.get()
	all := m.Controllers
	for _, c := range j.agent.config.Controllers {
		if !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b string) int {
		return cmp.Or(cmp.Compare(preference(m.NodeID, a), preference(m.NodeID, b)), cmp.Compare(a, b))
	})
	return all
}

func preference(node, controller string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node + " " + controller))
	sum := h.Sum64()
	return (sum ^ sum>>29) * 0xbf58476d1ce4e5b9
}

func (j *joined) setConnected(controller string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.connected = controller
}

// renewClient makes the connections that follow use the certificate of now.
func (j *joined) renewClient() {
	transport := &http.Transport{
		TLSClientConfig: j.identity.tls(), ForceAttemptHTTP2: true, TLSHandshakeTimeout: silentStream, IdleConnTimeout: askTimeout,
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.http != nil {
		j.http.CloseIdleConnections()
	}
	j.http = &http.Client{Transport: transport}
}

func (j *joined) client() *http.Client {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.http
}

// renew gets a new certificate at half of the life of each.
func (j *joined) renew(ctx context.Context) error {
	retry := time.Duration(0)
	for {
		wait := retry
		if wait == 0 {
			wait = j.identity.get().renewIn(time.Now())
			wait += rand.N(wait/10 + time.Second)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if j.identity.get().Removed != "" {
			return nil
		}
		if err := j.renewNow(ctx); err != nil {
			j.log.Warn("certificate not renewed", "expires", j.identity.get().Expires, "error", err)
			retry = min(max(2*retry, 5*time.Second), 10*time.Minute)
			continue
		}
		retry = 0
		j.log.Info("certificate renewed", "expires", j.identity.get().Expires)
	}
}

func (j *joined) renewNow(ctx context.Context) error {
	request, err := j.identity.request()
	if err != nil {
		return err
	}
	m := j.identity.get()
	var faults []error
	for _, controller := range j.order() {
		answer, err := post[api.Joined](ctx, j.identity.tls(), controller, client.PathRenew, api.Join{ID: m.NodeID, Name: m.Name, Request: request})
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", controller, err))
			continue
		}
		if len(answer.PeerKey) == 0 {
			answer.PeerKey = m.PeerKey
		}
		if err := j.identity.change(func(m *membership) { m.Joined = answer }); err != nil {
			return err
		}
		j.renewClient()
		return nil
	}
	return errors.Join(faults...)
}

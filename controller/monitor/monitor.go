// Package monitor finds out for the controllers which nodes are gone: by the
// heartbeats on the streams that this controller holds, by what neighbours say
// who are asked to try, and by what the nodes tell of each other. Each
// controller judges the nodes whose streams it holds, the leader those that
// have none. It knows nothing of stores and streams but the functions it is
// given, and judges nodes, not agents: a node whose agent has gone and whose
// kernel answers stays alive.
package monitor

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
)

// The times of detection, in the order in which they pass for a node without
// power: two heartbeats missed, others are asked; three, suspect; then dead.
const (
	tick = 50 * time.Millisecond
	// askAfter is how long a stream is silent before others are asked.
	askAfter     = 450 * time.Millisecond
	suspectAfter = 650 * time.Millisecond // three heartbeats of 200 ms
	deadAfter    = 150 * time.Millisecond // more
	askEvery     = 200 * time.Millisecond
	askOf        = 3 // neighbours
	probeWithin  = 150 * time.Millisecond
	// orphanEvery is how often a node without a stream is tried.
	orphanEvery = time.Second
	lateness    = 100 * time.Millisecond
)

// Options of a Monitor.
type Options struct {
	// Probe asks the node via, whose stream this controller holds, whether it
	// reaches another; it returns when the answer is here or ctx ends.
	Probe func(ctx context.Context, via string, p api.Probe) (reached bool, err error)
	// Dial tries the same from this controller; nil: it does not try.
	Dial func(ctx context.Context, n api.Node, within time.Duration) (reached bool, err error)
	// Judge is told of each change; it must not block.
	Judge func(node string, h api.NodeHealth)
	// Orphans are the nodes without a stream at any controller, when this one is
	// the leader; else none. nil: never any.
	Orphans func() []api.Node
	Log     *slog.Logger // nil: no log
}

// Monitor watches nodes.
type Monitor struct {
	o   Options
	log *slog.Logger

	mu    sync.Mutex // guards what follows
	nodes map[string]*watched
	news  []judgement
}

type judgement struct {
	node   string
	health api.NodeHealth
}

// watched is a node under observation. The times are monotonic.
type watched struct {
	node      api.Node
	streaming bool
	health    api.NodeHealth
	// heard is its last word, reached when somebody reached it last, missed when
	// somebody last did not.
	heard, reached, missed time.Time
	since                  time.Time // of the suspicion
	asked                  time.Time
}

// New watches nobody yet.
func New(o Options) (*Monitor, error) {
	if o.Probe == nil || o.Judge == nil {
		return nil, errors.New("monitor nodes: Probe and Judge are needed")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Monitor{o: o, log: o.Log.With("component", "monitor"), nodes: map[string]*watched{}}, nil
}

// Opened is called when a node's stream begins here.
func (m *Monitor) Opened(n api.Node) {
	m.locked(func(now time.Time) {
		w := m.watch(n)
		w.node, w.streaming = n, true
		m.hear(w, now)
	})
}

// Closed is called when a node's stream has ended here. Its agent has gone, or
// has moved to another controller: its node is as it was.
func (m *Monitor) Closed(node string) {
	m.locked(func(time.Time) {
		if w := m.nodes[node]; w != nil {
			w.streaming = false
			// A node that is suspect or dead is still watched: as an orphan, if
			// nobody else has its stream.
			if w.health == api.NodeAlive {
				delete(m.nodes, node)
			}
		}
	})
}

// Heard is called for each report of a node: what it sees of others counts for
// those that this controller does not hear itself.
func (m *Monitor) Heard(node string, r *api.Report) {
	m.locked(func(now time.Time) {
		w := m.nodes[node]
		if w == nil || !w.streaming {
			return
		}
		m.hear(w, now)
		for peer, health := range r.Peers {
			m.told(peer, health, now)
		}
	})
}

// Forget is called when a node was removed from the cluster.
func (m *Monitor) Forget(node string) {
	m.locked(func(time.Time) { delete(m.nodes, node) })
}

// Health of the nodes that this controller has an opinion of.
func (m *Monitor) Health() map[string]api.NodeHealth {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]api.NodeHealth, len(m.nodes))
	for name, w := range m.nodes {
		all[name] = w.health
	}
	return all
}

// locked runs do under the lock and tells the news after it.
func (m *Monitor) locked(do func(now time.Time)) {
	m.mu.Lock()
	do(time.Now())
	news := m.news
	m.news = nil
	m.mu.Unlock()
	for _, n := range news {
		m.o.Judge(n.node, n.health)
	}
}

func (m *Monitor) watch(n api.Node) *watched {
	w := m.nodes[n.Name]
	if w == nil {
		w = &watched{node: n, health: n.Health}
		if w.health == "" {
			w.health = api.NodeAlive
		}
		m.nodes[n.Name] = w
	}
	return w
}

func (m *Monitor) hear(w *watched, now time.Time) {
	w.heard = now
	m.judge(w, api.NodeAlive, now)
}

func (m *Monitor) judge(w *watched, h api.NodeHealth, now time.Time) {
	if w.health == h {
		return
	}
	m.log.Info("node's health changed", "node", w.node.Name, "health", h, "was", w.health, "silent", now.Sub(w.heard).Round(time.Millisecond))
	w.health, w.since = h, now
	m.news = append(m.news, judgement{w.node.Name, h})
}

// told takes over what the nodes have found among themselves, unless this
// controller hears the node.
func (m *Monitor) told(peer string, health api.NodeHealth, now time.Time) {
	w := m.nodes[peer]
	switch {
	case w == nil && health == api.NodeAlive:
	case w == nil:
		w = m.watch(api.Node{Name: peer})
		m.judge(w, health, now)
	case w.streaming && now.Sub(w.heard) < askAfter:
	case w.streaming && health == api.NodeAlive:
		w.reached = now
	default:
		m.judge(w, health, now)
	}
}

// names lists the nodes in order, for tests and for a steady log.
func (m *Monitor) names() []string { return slices.Sorted(maps.Keys(m.nodes)) }

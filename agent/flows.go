package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane/trace"
)

const (
	// flowLines wait for one who watches; what is more he loses, counted.
	flowLines = 4096
	// deniedFor is how long a drop explains why its flow has no answer, and
	// deniedKept how many are remembered.
	deniedFor  = 30 * time.Second
	deniedKept = 4096
)

// tracer is what trace.Tracer does for flowWatch.
type tracer interface {
	Run(ctx context.Context, tell func(trace.Event)) error
	Counts() (trace.Counts, error)
	Missing() []string
	Close() error
}

// flowWatch has the kernel traced while somebody watches, and no longer.
type flowWatch struct {
	log  *slog.Logger
	open func() (tracer, error)
	// names by the snapshot in force: old, where they still are.
	names func(old *flowNames) (*flowNames, error)

	switching sync.Mutex // held while tracing begins or ends, also for its I/O
	stop      func()     // guarded by switching; nil: nothing is traced

	mu      sync.Mutex // guards what follows
	heard   map[*flowListener]bool
	closed  bool
	missing []string
	lost    api.FlowsLost

	// used by the tracing goroutine alone
	current *flowNames
	looked  time.Time // when it was compared with the snapshot
	denied  map[deniedKey]*api.Drop
}

// flowListener is one who watches.
type flowListener struct {
	lines  chan api.FlowLine
	wants  func(api.FlowLine) bool
	missed uint64 // guarded by flowWatch.mu
}

// deniedKey knows a flow by its packets; the source port may not be known yet.
type deniedKey struct {
	protocol string
	from     netip.Addr
	to       netip.AddrPort
}

// newFlowWatch traces nothing yet.
func (a *Agent) newFlowWatch() *flowWatch {
	log := a.log.With("component", "flows")
	return &flowWatch{
		log: log, heard: map[*flowListener]bool{}, denied: map[deniedKey]*api.Drop{},
		open: func() (tracer, error) {
			cgroup, err := a.cgroup()
			if err != nil {
				return nil, err
			}
			return trace.Open(trace.Options{Cgroup: cgroup, Log: log})
		},
		names: func(old *flowNames) (*flowNames, error) {
			s, err := a.present()
			if err != nil {
				return nil, err
			}
			view := a.zones.viewOf(s)
			if old != nil && old.snapshot == s && old.view == view {
				return old, nil
			}
			names := newFlowNames(s, view)
			if s.Policy != nil {
				names.place = a.zones.policies.placeOf(s.Policy)
			}
			return names, nil
		},
	}
}

var errClosing = errors.New("the agent is ending")

// follow tells of what is wanted from now on, until stop is called. The channel is
// closed when tracing has failed or the agent ends.
func (w *flowWatch) follow(wants func(api.FlowLine) bool) (lines <-chan api.FlowLine, stop func(), err error) {
	w.switching.Lock()
	defer w.switching.Unlock()
	l := &flowListener{lines: make(chan api.FlowLine, flowLines), wants: wants}
	w.mu.Lock()
	closed, first := w.closed, len(w.heard) == 0
	w.mu.Unlock()
	if closed {
		return nil, nil, errClosing
	}
	if first {
		w.end() // one that has failed
		if err := w.begin(); err != nil {
			return nil, nil, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.missing) > 0 {
		l.lines <- api.FlowLine{Missing: w.missing}
	}
	w.heard[l] = true
	return l.lines, func() { w.leave(l) }, nil
}

func (w *flowWatch) leave(l *flowListener) {
	w.switching.Lock()
	defer w.switching.Unlock()
	w.mu.Lock()
	delete(w.heard, l)
	last := len(w.heard) == 0
	w.mu.Unlock()
	if last {
		w.end()
	}
}

// begin attaches. It wants switching held.
func (w *flowWatch) begin() error {
	if _, err := w.names(nil); err != nil {
		return err
	}
	t, err := w.open()
	if err != nil {
		return fmt.Errorf("trace the kernel: %w", err)
	}
	w.mu.Lock()
	w.missing, w.lost = t.Missing(), api.FlowsLost{}
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx, t)
	}()
	w.stop = func() {
		cancel()
		<-done
	}
	w.log.Debug("tracing begins")
	return nil
}

// end detaches. It wants switching held.
func (w *flowWatch) end() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
		w.log.Debug("tracing has ended")
	}
}

// run tells until ctx ends; a failure ends those who watch.
func (w *flowWatch) run(ctx context.Context, t tracer) {
	ctx, cancel := context.WithCancel(ctx)
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		w.count(ctx, t)
	}()
	err := t.Run(ctx, w.tell)
	cancel()
	<-counted
	if err = errors.Join(err, t.Close()); err != nil {
		w.log.Warn("tracing failed", "error", err)
		w.dismiss()
	}
	w.current = nil
	clear(w.denied)
}

// count tells each second of what was lost since.
func (w *flowWatch) count(ctx context.Context, t tracer) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		c, err := t.Counts()
		if err != nil {
			w.log.Debug("events not counted", "error", err)
			continue
		}
		now := api.FlowsLost{Flows: c.Skipped + c.Unplaced, Drops: c.Unlisted, Ring: c.Lost}
		w.mu.Lock()
		changed := now != w.lost
		w.lost = now
		for l := range w.heard {
			if mine := now; changed || l.missed > 0 {
				mine.Reader = l.missed
				w.put(l, api.FlowLine{Lost: &mine})
			}
		}
		w.mu.Unlock()
	}
}

// put gives a line to one who watches. It wants mu held.
func (w *flowWatch) put(l *flowListener, line api.FlowLine) {
	select {
	case l.lines <- line:
	default:
		l.missed++
	}
}

// dismiss ends all who watch.
func (w *flowWatch) dismiss() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.heard {
		close(l.lines)
	}
	clear(w.heard)
}

// close ends all who watch, and tracing, for good.
func (w *flowWatch) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.dismiss()
	w.switching.Lock()
	defer w.switching.Unlock()
	w.end()
	w.dismiss() // who came in between
}

// runFlows ends tracing when ctx ends.
func (a *Agent) runFlows(ctx context.Context) error {
	<-ctx.Done()
	a.flows.close()
	return nil
}

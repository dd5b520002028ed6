package monitor

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// site is a controller's view of nodes whose reports and probes a test governs.
type site struct {
	t *testing.T
	m *Monitor

	mu      sync.Mutex
	beats   map[string]bool // sends heartbeats
	up      map[string]bool // answers probes
	orphans []api.Node
	saw     map[string][]api.NodeHealth
}

func node(name string) api.Node {
	return api.Node{Name: name, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
}

func newSite(t *testing.T, names ...string) *site {
	t.Helper()
	s := &site{t: t, beats: map[string]bool{}, up: map[string]bool{}, saw: map[string][]api.NodeHealth{}}
	var err error
	s.m, err = New(Options{
		Probe: func(_ context.Context, via string, p api.Probe) (bool, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !s.up[via] {
				return false, fmt.Errorf("no answer")
			}
			return s.up[p.Node.Name], nil
		},
		Judge: func(name string, h api.NodeHealth) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.saw[name] = append(s.saw[name], h)
		},
		Orphans: func() []api.Node {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.orphans
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.m.Run(ctx) })
	running.Go(func() { s.beat(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	for _, name := range names {
		s.set(name, true, true)
		s.m.Opened(node(name))
	}
	return s
}

func (s *site) beat(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		var beating []string
		for name, beats := range s.beats {
			if beats {
				beating = append(beating, name)
			}
		}
		s.mu.Unlock()
		for _, name := range beating {
			s.m.Heard(name, &api.Report{})
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *site) set(name string, beats, up bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats[name], s.up[name] = beats, up
}

func (s *site) is(name string, want api.NodeHealth) {
	s.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); s.m.Health()[name] != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%s is %q, want %q", name, s.m.Health()[name], want)
		}
	}
}

// told waits until what was told of a node is as wanted.
func (s *site) told(name, want string) {
	s.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); s.judged(name) != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("told of %s: %s, want %s", name, s.judged(name), want)
		}
	}
}

// judged is everything that was told of a node.
func (s *site) judged(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.saw[name])
}

func TestANodeWithoutPowerIsDeadAndComesBack(t *testing.T) {
	s := newSite(t, "a1", "a2", "a3")
	began := time.Now()
	s.set("a2", false, false)
	s.is("a2", api.NodeDead)
	t.Logf("dead after %s", time.Since(began))
	s.set("a2", true, true)
	s.is("a2", api.NodeAlive)
	s.told("a2", "[suspect dead alive]")
	if others := s.judged("a1") + s.judged("a3"); others != "[][]" {
		t.Errorf("told of others: %s", others)
	}
}

func TestASilentNodeThatNeighboursReachStays(t *testing.T) {
	s := newSite(t, "a1", "a2", "a3")
	s.set("a2", false, true)
	time.Sleep(2 * time.Second)
	if got := s.judged("a2"); got != "[]" {
		t.Errorf("told %s", got)
	}
}

func TestAControllerThatHearsNobodyJudgesNobody(t *testing.T) {
	s := newSite(t, "a1", "a2", "a3")
	for _, name := range []string{"a1", "a2", "a3"} {
		s.set(name, false, false)
	}
	time.Sleep(1500 * time.Millisecond)
	if got := s.judged("a1") + s.judged("a2") + s.judged("a3"); got != "[][][]" {
		t.Errorf("told %s", got)
	}
}

func TestAStreamThatEndsChangesNothingButTheLeaderLooks(t *testing.T) {
	s := newSite(t, "a1", "a2", "a3")
	s.set("a2", false, true)
	s.m.Closed("a2")
	s.mu.Lock()
	s.orphans = []api.Node{node("a2")}
	s.mu.Unlock()
	time.Sleep(2500 * time.Millisecond)
	if got := s.judged("a2"); got != "[]" {
		t.Errorf("its node answers, and told %s", got)
	}
	s.set("a2", false, false)
	s.is("a2", api.NodeDead)
}

func TestWhatNodesTellOfEachOtherCountsForThoseNotHeard(t *testing.T) {
	s := newSite(t, "a1", "a2")
	s.m.Heard("a1", &api.Report{Peers: map[string]api.NodeHealth{"a2": api.NodeDead, "b1": api.NodeDead}})
	s.is("b1", api.NodeDead)
	if got := s.judged("a2"); got != "[]" {
		t.Errorf("a node that is heard: told %s", got)
	}
	s.m.Heard("a1", &api.Report{Peers: map[string]api.NodeHealth{"b1": api.NodeAlive}})
	s.is("b1", api.NodeAlive)
	s.m.Heard("stranger", &api.Report{Peers: map[string]api.NodeHealth{"a1": api.NodeDead}})
	if got := s.judged("a1"); got != "[]" {
		t.Errorf("a node without a stream was believed: %s", got)
	}
}

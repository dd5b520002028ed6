package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

func TestAnAddressInUseElsewhereIsNotAnnounced(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	outside(t) // another host, which has 10.9.0.254
	c := DefaultConfig()
	c.Node.Name = "p1"
	a := &Agent{config: c, log: slog.New(slog.NewTextHandler(t.Output(), nil)), states: make(chan struct{}, 1)}
	a.snapshot.Store(&api.Snapshot{Nodes: []api.Node{{Name: "p1", Role: api.RolePublic}}})
	s := newSegment(a, "near")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	taken, free, other := netip.MustParseAddr("10.9.0.254"), netip.MustParseAddr("10.9.0.77"), netip.MustParseAddr("10.9.0.78")
	owns := func(want ...netip.Addr) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !slices.Equal(s.owned(), want); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("announces %v, want %v: %s", s.owned(), want, s.detail())
			}
		}
	}
	s.set(map[netip.Addr]bool{taken: true, free: true}, true)
	owns(free)
	for end := time.Now().Add(30 * time.Second); !strings.Contains(s.detail(), "not announced: 10.9.0.254 is in use elsewhere, by "); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not say who has it: %s", s.detail())
		}
	}
	owns(free)
	// One that is new while this node owns the group is asked for as well.
	s.set(map[netip.Addr]bool{free: true, other: true}, true)
	owns(free, other)
}

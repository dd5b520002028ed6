package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

const (
	vip4 = "10.80.0.200"
	vip6 = "fd00::200"
)

var vips = []string{vip4, vip6}

func TestOwnerAnswersForAddressesThatAreOnNoInterface(t *testing.T) {
	hosts := newSegment(t, 3)
	owner, standby, client := hosts[0], hosts[1], hosts[2]
	a := owner.announcer(AnnounceOptions{})
	standby.announcer(AnnounceOptions{})
	owner.own(a, vips...)
	for _, vip := range vips {
		if got := client.finds(vip); got != owner.mac.String() {
			t.Errorf("client finds %s at %s, want the owner's %s", vip, got, owner.mac)
		}
	}
	eventually(t, func() bool { return a.Counters().Answered >= 2 }, func() string { return fmt.Sprintf("answers are not counted: %+v", a.Counters()) })
}

func TestUnicastSolicitationsAreAnswered(t *testing.T) {
	hosts := newSegment(t, 2)
	owner, client := hosts[0], hosts[1]
	a := owner.announcer(AnnounceOptions{})
	owner.own(a, vips...)
	for _, vip := range vips {
		client.finds(vip)
		before := a.Counters().Answered
		client.ip("neigh", "change", vip, "lladdr", owner.mac.String(), "nud", "probe", "dev", "eth0")
		eventually(t, func() bool { return a.Counters().Answered > before }, func() string { return fmt.Sprintf("the probe of %s is not answered", vip) })
	}
}

func TestTakeOverMovesTheClientsCaches(t *testing.T) {
	hosts := newSegment(t, 3)
	first, second, client := hosts[0], hosts[1], hosts[2]
	a, b := first.announcer(AnnounceOptions{}), second.announcer(AnnounceOptions{})
	first.own(a, vips...)
	for _, vip := range vips {
		client.finds(vip)
	}
	first.own(a)
	start := time.Now()
	second.own(b, vips...)
	for _, vip := range vips {
		eventually(t, func() bool { return client.cached(vip) == second.mac.String() }, func() string { return fmt.Sprintf("client's cache of %s stays at %s", vip, client.cached(vip)) })
	}
	t.Logf("both caches moved within %s", time.Since(start))
	if c := b.Conflicts(); len(c) > 0 {
		t.Errorf("the hand-over is reported as conflict %v", c)
	}
	eventually(t, func() bool { return b.Counters().Announced >= 6 }, func() string { return fmt.Sprintf("want 3 announcements of each: %+v", b.Counters()) })
}

func TestSilentAfterGivingUp(t *testing.T) {
	hosts := newSegment(t, 2)
	owner, client := hosts[0], hosts[1]
	a := owner.announcer(AnnounceOptions{})
	owner.own(a, vips...)
	owner.own(a)
	announced := a.Counters().Announced
	for _, vip := range vips {
		client.do(func() {
			if err := Probe(context.Background(), "eth0", netip.MustParseAddr(vip)); err != nil {
				t.Errorf("after giving up: %v", err)
			}
		})
	}
	if c := a.Counters(); c.Answered > 0 || c.Announced > announced+2 {
		t.Errorf("counters after giving up: %+v", c)
	}
}

func TestForeignUseIsReportedAndDefended(t *testing.T) {
	hosts := newSegment(t, 3)
	owner, foreign, client := hosts[0], hosts[1], hosts[2]
	conflicts := make(chan Conflict, 10)
	a := owner.announcer(AnnounceOptions{Refresh: time.Second, Conflict: func(c Conflict) { conflicts <- c }})
	owner.own(a, vips...)
	client.finds(vip4)
	foreign.ip("addr", "add", vip4+"/32", "dev", "eth0")
	foreign.ip("addr", "add", vip6+"/128", "dev", "eth0", "nodad")
	for range vips {
		select {
		case c := <-conflicts:
			if c.MAC != foreign.mac {
				t.Errorf("conflict names %s, want %s", c.MAC, foreign.mac)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("foreign use is not reported; counters %+v", a.Counters())
		}
	}
	if got := a.Conflicts(); len(got) != 2 || got[0].Address.String() != vip4 || got[1].Address.String() != vip6 {
		t.Errorf("Conflicts() = %v", got)
	}
	owner.own(a)
	if got := a.Conflicts(); len(got) != 0 {
		t.Errorf("Conflicts() of addresses given up = %v", got)
	}
}

func TestProbeNamesTheHolder(t *testing.T) {
	hosts := newSegment(t, 2)
	foreign, node := hosts[0], hosts[1]
	foreign.ip("addr", "add", vip4+"/32", "dev", "eth0")
	foreign.ip("addr", "add", vip6+"/128", "dev", "eth0", "nodad")
	for _, c := range []struct {
		addr string
		used bool
	}{{vip4, true}, {vip6, true}, {"10.80.0.201", false}, {"fd00::201", false}} {
		node.do(func() {
			err := Probe(context.Background(), "eth0", netip.MustParseAddr(c.addr))
			var used *InUseError
			if got := errors.As(err, &used); got != c.used || !got && err != nil {
				t.Errorf("Probe(%s) = %v", c.addr, err)
			} else if got && (used.MAC != foreign.mac || used.Address.String() != c.addr) {
				t.Errorf("Probe(%s) names %v", c.addr, err)
			}
		})
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	node := newSegment(t, 1)[0]
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	node.do(func() {
		if err := Probe(ctx, "eth0", netip.MustParseAddr(vip4)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Probe = %v, want the context's error", err)
		}
	})
}

func TestAnnouncedAgainAfterTheCarrierReturns(t *testing.T) {
	node := newSegment(t, 1)[0]
	a := node.announcer(AnnounceOptions{})
	node.own(a, vip4)
	eventually(t, func() bool { return a.Counters().Announced == 3 }, func() string { return "not announced thrice" })
	node.ip("link", "set", "eth0", "down")
	time.Sleep(2 * portInterval)
	node.ip("link", "set", "eth0", "address", "02:00:00:00:00:77", "up")
	eventually(t, func() bool { return a.Counters().Announced == 6 }, func() string { return fmt.Sprintf("not announced again: %+v", a.Counters()) })
}

func TestRunEndsWhenTheInterfaceIsGone(t *testing.T) {
	node := newSegment(t, 1)[0]
	var a *Announcer
	node.do(func() {
		var err error
		a, err = NewAnnouncer(AnnounceOptions{Interface: "eth0"})
		must(t, err)
	})
	done := make(chan error, 1)
	go func() { done <- a.Run(t.Context()) }()
	node.ip("link", "del", "eth0")
	select {
	case err := <-done:
		if err == nil {
			t.Error("Run = nil, want that the interface is gone")
		}
	case <-time.After(10 * time.Second):
		t.Error("Run goes on without its interface")
	}
}

func TestThousandsOfAddressesAreListenedFor(t *testing.T) {
	hosts := newSegment(t, 2)
	owner, client := hosts[0], hosts[1]
	a := owner.announcer(AnnounceOptions{})
	var many []string
	for i := range 2000 {
		many = append(many, fmt.Sprintf("fd00::1:%x", i))
	}
	start := time.Now()
	owner.own(a, many...)
	t.Logf("Set of %d took %s", len(many), time.Since(start))
	for _, addr := range []string{many[0], many[1999]} {
		if got := client.finds(addr); got != owner.mac.String() {
			t.Errorf("%s is at %s", addr, got)
		}
	}
	eventually(t, func() bool { return a.Counters().Announced >= 2000 }, func() string { return fmt.Sprintf("announced too few: %+v", a.Counters()) })
	owner.own(a, many[0])
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []AnnounceOptions{{Interface: "weir-none"}, {Interface: "lo"}, {Interface: "lo", Refresh: time.Millisecond}} {
		if _, err := NewAnnouncer(o); err == nil {
			t.Errorf("NewAnnouncer(%+v) works", o)
		}
	}
}

func TestDueTakesTheLongestWaiting(t *testing.T) {
	now := time.Now()
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	owned := map[netip.Addr]*schedule{a: {next: now}, b: {next: now.Add(-time.Second)}, c: {next: now.Add(time.Second)}}
	if list, next := due(owned, now, 1); len(list) != 1 || list[0] != b || !next.Equal(now) {
		t.Errorf("due = %v, %s", list, next)
	}
	if list, next := due(owned, now, 2); len(list) != 2 || !next.Equal(now.Add(time.Second)) {
		t.Errorf("due = %v, %s", list, next)
	}
}

func TestSilentAfterAStandstill(t *testing.T) {
	epoch := time.Now()
	s := standstill{epoch: epoch}
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	for _, c := range []struct {
		mark   bool
		at     time.Duration
		silent bool
	}{
		{true, time.Second, false},
		{false, 1300 * time.Millisecond, false},
		{true, 1350 * time.Millisecond, false},
		{false, 1800 * time.Millisecond, true}, // the loop is overdue
		{true, 1850 * time.Millisecond, true},
		{true, 1950 * time.Millisecond, true},
		{true, 2060 * time.Millisecond, false},
	} {
		if c.mark {
			s.mark(at(c.at))
		}
		if got := s.silent(at(c.at)); got != c.silent {
			t.Errorf("silent at %s: %t, want %t", c.at, got, c.silent)
		}
	}
}

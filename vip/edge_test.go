package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// atEdge is an edge service of n backends, each on a node of its own.
func atEdge(t *testing.T, n int) *api.Snapshot {
	web := service(t, "web", []string{"192.0.2.1:80"})
	web.Edge = &api.Edge{Allow: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, SYNRate: 100}
	s := snapshot(t, web, service(t, "inside", []string{"192.0.2.2:80"}, "10.0.1.1:80"))
	s.Nodes = nil
	for i := range n {
		b := api.Backend{Address: netip.MustParseAddrPort(fmt.Sprintf("10.0.1.%d:80", i)), Node: fmt.Sprintf("n%d", i)}
		s.Services[0].Backends = append(s.Services[0].Backends, b)
		s.Nodes = append(s.Nodes, api.Node{Name: b.Node, Addresses: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.80.0.%d", i)), b.Address.Addr()}})
	}
	s.Node = s.Nodes[0]
	return s
}

func edgeOf(t *testing.T, r Result) *dataplane.EdgeService {
	t.Helper()
	if len(r.Edge.Services) != 1 {
		t.Fatalf("got %d edge services, want 1", len(r.Edge.Services))
	}
	return r.Edge.Services[0]
}

func TestAnEdgeServiceHasNodesAndSlots(t *testing.T) {
	s := atEdge(t, 3)
	s.Services[0].Backends[1].Node = "" // known by the node's address
	source := netip.MustParseAddr("10.80.0.0")
	table, skipped := CompileEdge(s, Options{Edge: &EdgeOptions{Source4: source, Interfaces: map[string]dataplane.AttachMode{"eth0": dataplane.AttachAuto}}})
	if len(skipped) > 0 || len(table.Services) != 1 || table.Source4 != source || table.Interfaces["eth0"] != dataplane.AttachAuto {
		t.Fatalf("got %+v and %+v", table, skipped)
	}
	e := table.Services[0]
	if e.Name != "web.default/tcp/4" || e.Deliver != api.DSR || e.SYNRate != 100 || len(e.Allow) != 1 || e.Previous != nil || len(e.Slots) != edgeSlots {
		t.Errorf("got %+v", e)
	}
	for i, b := range e.Backends {
		if want := netip.MustParseAddr(fmt.Sprintf("10.80.0.%d", i)); b.Node != want || b.State != api.Up {
			t.Errorf("backend %d: got %+v, want the node %s", i, b, want)
		}
	}
	if n := tally(e.Slots, 3); slices.Max(n)-slices.Min(n) > 1 {
		t.Errorf("got slots %v", n)
	}
	if table, _ := CompileEdge(s, Options{}); len(table.Services) != 1 {
		t.Error("no table without wishes")
	}
}

// Each node prefers its own backends and sees another slow start.
func TestEveryEdgeNodeHasTheSameTable(t *testing.T) {
	s := atEdge(t, 6)
	s.Services[0].Prefer, s.Services[0].SlowStart, s.Services[0].Balance = api.PreferNode, api.Duration(time.Minute), api.Maglev
	now := time.Unix(1000, 0)
	a, _ := CompileEdge(s, Options{Now: now, UpSince: func(string, api.Protocol, netip.AddrPort) time.Time { return now.Add(-time.Second) }})
	other := *s
	other.Node = s.Nodes[3]
	b, _ := CompileEdge(&other, Options{})
	if !slices.Equal(a.Services[0].Slots, b.Services[0].Slots) {
		t.Error("two nodes have two tables")
	}
}

func TestDeliveryWithoutAKnownNodeIsByNAT(t *testing.T) {
	for _, test := range []struct {
		deliver, want api.Deliver
		lost          int
		reason        string
	}{
		{"", api.DSR, 0, ""},
		{api.DSR, api.NAT, 1, "10.0.1.0:80 has none"},
		{api.DSR, api.NAT, 3, "10.0.1.0:80 has none"},
		{api.NAT, api.NAT, 1, ""},
		{api.IPIP, api.IPIP, 1, ""},
	} {
		s := atEdge(t, 3)
		s.Services[0].Edge.Deliver = test.deliver
		for i := range test.lost {
			s.Services[0].Backends[i].Node = "lost"
		}
		table, skipped := CompileEdge(s, Options{})
		if got := table.Services[0].Deliver; got != test.want {
			t.Errorf("%q with %d lost: got %s, want %s", test.deliver, test.lost, got, test.want)
		}
		if (len(skipped) > 0) != (test.reason != "") || len(skipped) > 0 && (skipped[0].Field != "edge.deliver" || !strings.Contains(skipped[0].Reason, test.reason)) {
			t.Errorf("%q with %d lost: skipped %+v", test.deliver, test.lost, skipped)
		}
		if b := table.Services[0].Backends[0]; test.deliver == api.IPIP && b.Node != b.Address.Addr() {
			t.Errorf("ipip: the tunnel to %s ends at %s", b.Address, b.Node)
		}
	}
}

// flows follows an edge service over changes of its backends' states.
type flows struct {
	t      *testing.T
	c      Compiler
	s      *api.Snapshot
	now    time.Time
	states map[byte]api.BackendState
}

func (f *flows) set(backend byte, state api.BackendState) Result {
	f.states[backend] = state
	return f.compile(Changed{Services: []ServiceRef{{"web.default", api.TCP}}})
}

func (f *flows) compile(changed Changed) Result {
	return f.c.Compile(f.s, Options{Now: f.now, Edge: &EdgeOptions{}, State: func(_ string, _ api.Protocol, b netip.AddrPort) (api.BackendState, string) {
		if s := f.states[b.Addr().As4()[3]]; s != "" {
			return s, "no answer"
		}
		return api.Up, ""
	}}, changed)
}

func TestSlotsRememberWhoHadThemAsLongAsItCanServe(t *testing.T) {
	f := flows{t: t, s: atEdge(t, 4), now: time.Unix(1000, 0), states: map[byte]api.BackendState{}}
	first := edgeOf(t, f.compile(Changed{}))
	if first.Previous != nil {
		t.Fatal("the first table has a past")
	}
	// Down: its flows are lost, so there is nothing to remember.
	if e := edgeOf(t, f.set(1, api.Down)); e.Previous != nil || tally(e.Slots, 4)[1] != 0 {
		t.Error("a slot remembers a backend that is down")
	}
	// Back: its slots remember those who stood in.
	stoodIn := edgeOf(t, f.c.result)
	r := f.set(1, api.Up)
	e := edgeOf(t, r)
	if !slices.Equal(e.Slots, first.Slots) || !slices.Equal(e.Previous, stoodIn.Slots) {
		t.Error("the slots do not remember who stood in")
	}
	if want := f.now.Add(DefaultSettle); !r.Next.Equal(want) {
		t.Errorf("next at %s, want %s", r.Next, want)
	}
	// Another begins to drain meanwhile: its slots remember it.
	f.now = f.now.Add(time.Minute)
	e = edgeOf(t, f.set(2, api.Draining))
	for slot := range e.Slots {
		switch was := first.Slots[slot]; {
		case was == 2 && (e.Previous[slot] != 2 || e.Slots[slot] == 2),
			was == 1 && e.Previous[slot] != stoodIn.Slots[slot],
			was != 1 && was != 2 && e.Previous[slot] != e.Slots[slot]:
			t.Fatalf("slot %d, of %d at first: now %d, before %d", slot, was, e.Slots[slot], e.Previous[slot])
		}
	}
	// The first change is forgotten after its time, the second a minute later.
	f.now = time.Unix(1000, 0).Add(DefaultSettle)
	r = f.compile(Changed{})
	e = edgeOf(t, r)
	for slot, was := range first.Slots {
		if was == 1 && e.Previous[slot] != e.Slots[slot] {
			t.Fatalf("slot %d still remembers %d", slot, e.Previous[slot])
		}
		if was == 2 && e.Previous[slot] != 2 {
			t.Fatalf("slot %d has forgotten too early", slot)
		}
	}
	f.now = r.Next
	if r = f.compile(Changed{}); edgeOf(t, r).Previous != nil || !r.Next.IsZero() {
		t.Error("the slots remember for ever")
	}
}

func TestTheTimeToSettleMayBeSet(t *testing.T) {
	var c Compiler
	s := atEdge(t, 2)
	o := Options{Now: time.Unix(1000, 0), Edge: &EdgeOptions{Settle: time.Second}}
	c.Compile(s, o, Changed{})
	r := c.Compile(atEdge(t, 3), o, Changed{})
	if want := o.Now.Add(time.Second); edgeOf(t, r).Previous == nil || !r.Next.Equal(want) {
		t.Errorf("next at %s, want %s", r.Next, want)
	}
}

func TestSlotsRememberOverOtherBackendsAndALargerTable(t *testing.T) {
	f := flows{t: t, s: atEdge(t, 12), now: time.Unix(1000, 0), states: map[byte]api.BackendState{}}
	first := edgeOf(t, f.compile(Changed{}))
	f.set(1, api.Draining)
	larger := atEdge(t, 30)
	larger.Services[0].Backends = larger.Services[0].Backends[1:] // the numbers shift
	f.s = larger
	e := edgeOf(t, f.compile(Changed{}))
	times := len(e.Slots) / len(first.Slots)
	if times != 4 {
		t.Fatalf("the table grew from %d to %d slots", len(first.Slots), len(e.Slots))
	}
	for slot := range e.Slots {
		was := first.Backends[first.Slots[slot/times]].Address
		before := e.Backends[e.Previous[slot]].Address
		now := e.Backends[e.Slots[slot]].Address
		if was.Addr().As4()[3] == 0 {
			continue // it is gone
		}
		if was != before && was != now && was.Addr().As4()[3] != 1 {
			t.Fatalf("slot %d: first %s, before %s, now %s", slot, was, before, now)
		}
		if was.Addr().As4()[3] == 1 && now == was {
			t.Fatalf("slot %d is with a backend that drains", slot)
		}
	}
}

func TestATableThatWasEmptyForAWhileRemembers(t *testing.T) {
	f := flows{t: t, s: atEdge(t, 1), now: time.Unix(1000, 0), states: map[byte]api.BackendState{}}
	f.compile(Changed{})
	if e := edgeOf(t, f.set(0, api.Draining)); e.Slots != nil || e.Previous != nil {
		t.Error("slots without a backend that is up")
	}
	two := atEdge(t, 2)
	f.s = two
	e := edgeOf(t, f.compile(Changed{}))
	if n := tally(e.Previous, 2); n[0] != len(e.Slots) {
		t.Errorf("got %v, want all slots to remember the one that drains", n)
	}
}

func TestTheDeliveryTableHasTheNodesOwnBackends(t *testing.T) {
	s := atEdge(t, 3)
	s.Nodes[1].Role, s.Nodes[2].Role = api.RolePublic, api.RolePublic
	table := CompileDelivery(s, Options{Delivery: &DeliveryOptions{Interfaces: []string{"eth0"}}})
	if len(table.Services) != 1 || len(table.Services[0].Backends) != 1 || table.Services[0].Backends[0].Address.String() != "10.0.1.0:80" || table.Services[0].Slots != nil {
		t.Fatalf("got %+v", table)
	}
	want := "[10.0.1.1 10.0.1.2 10.80.0.1 10.80.0.2]"
	if got := fmt.Sprint(table.Edges); got != want || table.Interfaces[0] != "eth0" {
		t.Errorf("got edges %s, want %s", got, want)
	}
	both := new(Compiler).Compile(s, Options{Edge: &EdgeOptions{}, Delivery: &DeliveryOptions{}}, Changed{})
	if len(both.Delivery.Edges) != 6 {
		t.Errorf("an edge node does not take its own tunnels: %v", both.Delivery.Edges)
	}
	given := CompileDelivery(s, Options{Delivery: &DeliveryOptions{Edges: []netip.Addr{netip.MustParseAddr("10.9.9.9")}}})
	if len(given.Edges) != 1 {
		t.Errorf("got %v", given.Edges)
	}
	s.Services[0].Edge.Deliver = api.NAT
	if got := CompileDelivery(s, Options{}); len(got.Services) != 0 {
		t.Error("nat needs nobody to take packets out of a tunnel")
	}
	s.Services[0].Edge.Deliver, s.Node = api.DSR, api.Node{Name: "other"}
	if got := CompileDelivery(s, Options{}); len(got.Services) != 0 {
		t.Error("a node without backends has a table")
	}
}

func TestOnlyWhoAsksGetsEdgeTables(t *testing.T) {
	var c Compiler
	s := atEdge(t, 3)
	if r := c.Compile(s, Options{}, Changed{}); len(r.Edge.Services) != 0 || len(r.Delivery.Services) != 0 || len(c.Bases()) != 0 {
		t.Errorf("got %+v", r.Edge)
	}
	if r := c.Compile(s, Options{Edge: &EdgeOptions{}}, Changed{}); len(r.Edge.Services) != 1 || len(c.Bases()) != 1 {
		t.Errorf("got %+v", r.Edge)
	}
	if r := c.Compile(s, Options{}, Changed{}); len(r.Edge.Services) != 0 {
		t.Errorf("got %+v", r.Edge)
	}
}

// A table that is kept over a restart, or that a controller ships, is taken up.
func TestGivenBasesAreTakenUp(t *testing.T) {
	s := atEdge(t, 10)
	var old Compiler
	o := Options{Edge: &EdgeOptions{}}
	full := s.Services[0].Backends
	s.Services[0].Backends = full[:7]
	old.Compile(s, o, Changed{})
	next := *s
	next.Services = slices.Clone(s.Services)
	next.Services[0].Backends = full
	want := edgeOf(t, old.Compile(&next, o, Changed{}))

	var restarted Compiler
	o.Bases = old.Bases()
	if got := edgeOf(t, restarted.Compile(&next, o, Changed{})); !slices.Equal(got.Slots, want.Slots) {
		t.Error("a restart moved slots")
	}
	var fresh Compiler // has another past
	if got := edgeOf(t, fresh.Compile(&next, Options{Edge: &EdgeOptions{}}, Changed{})); slices.Equal(got.Slots, want.Slots) {
		t.Error("the past makes no difference: this test shows nothing")
	}
	if got := edgeOf(t, fresh.Compile(&next, o, Changed{All: true})); !slices.Equal(got.Slots, want.Slots) {
		t.Error("a base that was shipped is not taken up")
	}
}

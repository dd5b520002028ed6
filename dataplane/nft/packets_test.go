package nft

import (
	"slices"
	"testing"
	"time"

	"github.com/weirproject/weir/dataplane"
)

// apply sets a ruleset, which must do.
func apply(t testing.TB, f *Filter, r *dataplane.Ruleset) dataplane.Changes {
	t.Helper()
	c, err := f.Set(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ruleset of three sets, one for each namespace of a net3.
func ruleset(input, forward []dataplane.FilterRule) *dataplane.Ruleset {
	return &dataplane.Ruleset{
		Sets: []dataplane.AddressSet{
			{Name: "client", Prefixes: prefixes(client4+"/32", client6+"/128")},
			{Name: "node", Prefixes: prefixes(node4+"/32", node6+"/128")},
			{Name: "server", Prefixes: prefixes(server4+"/32", server6+"/128")},
			{Name: "zoned", Prefixes: prefixes(client4+"/32", node4+"/32", server4+"/32", client6+"/128", node6+"/128", server6+"/128")},
		},
		Zoned: "zoned",
		Input: input, Forward: forward,
	}
}

// zoned makes the set of all zones from the others that are left.
func zoned(r *dataplane.Ruleset) *dataplane.Ruleset {
	all := dataplane.AddressSet{Name: "zoned"}
	r.Sets = slices.DeleteFunc(r.Sets, func(s dataplane.AddressSet) bool { return s.Name == all.Name })
	for _, s := range r.Sets {
		all.Prefixes = append(all.Prefixes, s.Prefixes...)
	}
	r.Sets = append(r.Sets, all)
	return r
}

// allow makes a filter rule.
func allow(name, from, to string, ports ...string) dataplane.FilterRule {
	f := dataplane.FilterRule{Name: name, From: from, To: to}
	for _, p := range ports {
		f.Ports = append(f.Ports, mustPort(p))
	}
	return f
}

func TestWhatNoRuleAllowsIsClosed(t *testing.T) {
	n := newNet3(t)
	n.node.serve(80, 81, 8000, 8001)
	n.server.serve(80, 81)
	f := n.node.filter(Enforce)
	for _, to := range []string{node4, node6, server4, server6} {
		n.client.passes(to, "tcp/80") // before any rule
	}
	apply(t, f, ruleset([]dataplane.FilterRule{
		allow("web", "client", "node", "tcp/80", "udp/8000-8001", "udp/80"),
	}, []dataplane.FilterRule{
		allow("deep", "client", "server", "tcp/80", "icmp"),
	}))
	for _, node := range []string{node4, node6} {
		for _, port := range []string{"tcp/80", "udp/80", "udp/8000", "udp/8001"} {
			n.client.passes(node, port)
		}
		for _, port := range []string{"tcp/81", "udp/81", "tcp/8000", "icmp"} {
			n.client.closed(node, port)
		}
		n.server.closed(node, "tcp/80")
	}
	for _, server := range []string{server4, server6} {
		n.client.passes(server, "tcp/80")
		n.client.passes(server, "icmp")
		n.client.closed(server, "udp/80")
		n.client.closed(server, "tcp/81")
	}
	for _, client := range []string{client4, client6} {
		n.server.closed(client, "icmp")
		n.node.passes(client, "icmp") // what the node itself asks is its own affair
	}
	n.node.passes("127.0.0.1", "tcp/81")
	n.node.passes(node4, "tcp/81") // over lo
	checkCounters(t, f)
}

// checkCounters expects what TestWhatNoRuleAllowsIsClosed sent.
func checkCounters(t *testing.T, f *Filter) {
	t.Helper()
	counters, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if got := counters["web"]; got.Packets != 8 || got.Bytes == 0 {
		t.Errorf("rule web counted %+v, want 8 flows", got)
	}
	if got := counters["deep"].Packets; got != 4 {
		t.Errorf("rule deep counted %d flows, want 4", got)
	}
	if got := counters["default-deny"].Packets; got < 16 {
		t.Errorf("default-deny counted %d packets, want 16 or more", got)
	}
}

func TestEstablishedConnectionsOutliveTheirRule(t *testing.T) {
	n := newNet3(t)
	n.node.serve(80)
	n.server.serve(80)
	f := n.node.filter(Enforce)
	open := []dataplane.FilterRule{allow("open", "client", "", "tcp/80")}
	apply(t, f, ruleset(open, open))
	here, through := n.client.keep(node4, 80), n.client.keep(server6, 80)
	apply(t, f, ruleset(nil, nil))
	n.client.closed(node4, "tcp/80")
	n.client.closed(server6, "tcp/80")
	if err := talk(here, passTime); err != nil {
		t.Errorf("connection to the node after the change: %v", err)
	}
	if err := talk(through, passTime); err != nil {
		t.Errorf("connection through the node after the change: %v", err)
	}
}

func TestFlowsOutsideEveryZoneAreForwarded(t *testing.T) {
	n := newNet3(t)
	n.node.serve(80)
	n.server.serve(80)
	f := n.node.filter(Enforce)
	r := ruleset(nil, nil)
	r.Sets = r.Sets[1:2] // the node alone is in a zone
	apply(t, f, zoned(r))
	n.client.passes(server4, "tcp/80")
	n.server.passes(client6, "icmp")
	n.client.closed(node4, "tcp/80")
	n.client.closed("10.2.0.1", "tcp/80") // the node's too, if in no zone
	apply(t, f, ruleset(nil, nil))
	n.client.closed(server4, "tcp/80")
}

func TestPublishedPortOfAContainerIsJudgedAsTheNodes(t *testing.T) {
	n := newNet3(t)
	n.server.serve(80)
	n.node.nft(`table inet other { chain pre { type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local tcp dport 8080 dnat ip to 10.2.0.9:80; }; }`)
	f := n.node.filter(Enforce)
	closed := ruleset(nil, nil)
	closed.Sets = closed.Sets[1:2] // the container is in no zone, like the client
	n.client.passes(node4, "tcp/8080")
	apply(t, f, zoned(closed))
	n.client.closed(node4, "tcp/8080")
	n.client.closed("10.2.0.1", "tcp/8080")
	open := ruleset([]dataplane.FilterRule{allow("published", "", "node", "tcp/8080")}, nil)
	open.Sets = open.Sets[1:2]
	apply(t, f, zoned(open))
	n.client.passes(node4, "tcp/8080")
	n.client.closed("10.2.0.1", "tcp/8080")
}

func TestObserveCountsAndDropsNothing(t *testing.T) {
	n := newNet3(t)
	n.node.serve(80)
	n.server.serve(80)
	f := n.node.filter(Observe)
	apply(t, f, ruleset(nil, nil))
	n.client.passes(node4, "tcp/80")
	n.client.passes(node6, "udp/80")
	n.client.passes(server4, "icmp")
	counters, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if got := counters["default-deny"].Packets; got != 3 {
		t.Errorf("default-deny counted %d flows, want 3", got)
	}
	// The same table turns from one mode to the other in place.
	apply(t, n.node.filter(Enforce), ruleset(nil, nil))
	n.client.closed(node4, "tcp/80")
	apply(t, n.node.filter(Off), ruleset(nil, nil))
	n.client.passes(node4, "tcp/80")
}

// What both policies allow passes at every moment of a change between them,
// and what neither allows does not.
func TestChangeLeavesNoWindow(t *testing.T) {
	n := newNet3(t)
	n.node.serve(80, 81)
	f := n.node.filter(Enforce)
	one := ruleset([]dataplane.FilterRule{allow("one", "client", "node", "tcp/80", "udp/80")}, nil)
	two := ruleset([]dataplane.FilterRule{allow("two", "", "", "udp/80", "tcp/1-80"), allow("more", "", "node", "tcp/9000")}, nil)
	two.Sets = two.Sets[1:] // one set comes and goes
	two.Sets[0].Prefixes = prefixes("10.1.0.0/24", "fd01::/64")
	zoned(two)
	apply(t, f, one)
	done := make(chan struct{})
	faults := make(chan error, 3)
	until := func(flow func() error) {
		for {
			select {
			case <-done:
				faults <- nil
				return
			default:
				if err := flow(); err != nil {
					faults <- err
					return
				}
			}
		}
	}
	// A dropped SYN or datagram comes again after a second at the earliest.
	go until(func() error { return n.client.send("", node4, mustPort("tcp/80"), 900*time.Millisecond) })
	go until(func() error { return n.client.send("", node6, mustPort("udp/80"), 900*time.Millisecond) })
	go until(func() error {
		if n.client.send("", node4, mustPort("udp/81"), 5*time.Millisecond) == nil {
			return errPassed
		}
		return nil
	})
	for i := range 50 {
		apply(t, f, []*dataplane.Ruleset{two, one}[i%2])
	}
	close(done)
	for range cap(faults) {
		if err := <-faults; err != nil {
			t.Errorf("during the changes: %v", err)
		}
	}
}

type passed struct{}

func (passed) Error() string { return "a flow passed that both policies forbid" }

var errPassed = passed{}

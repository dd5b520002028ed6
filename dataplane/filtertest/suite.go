package filtertest

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// Suite is what every filter does beyond the verdicts that Agree compares.
func Suite(t *testing.T, open Open) {
	t.Run("ConnectionsOutliveTheirRule", func(t *testing.T) { newBench(t, open, false).connections() })
	t.Run("LearntAddressesStayForTheirTime", func(t *testing.T) { newBench(t, open, false).learning() })
	t.Run("RateIsForEachSource", func(t *testing.T) { newBench(t, open, false).rate() })
	t.Run("ExpiryNeedsNobody", func(t *testing.T) { newBench(t, open, false).expiry() })
	t.Run("DropsAreHeard", func(t *testing.T) { newBench(t, open, false).drops() })
	t.Run("ObserveDropsNothing", func(t *testing.T) { newBench(t, open, true).observing() })
	t.Run("SameAgainWritesNothing", func(t *testing.T) { newBench(t, open, false).idempotence() })
	t.Run("CountersSurviveAChange", func(t *testing.T) { newBench(t, open, false).counting() })
	t.Run("WrongNamesAreRefused", func(t *testing.T) { newBench(t, open, false).refusals() })
}

// bench is a network with a filter on its node.
type bench struct {
	*testing.T
	net    *Net
	filter Filter
	wire   *wire
	random *random
}

func newBench(t *testing.T, open Open, observe bool) *bench {
	n := NewNet(t)
	return &bench{t, n, open(t, int(n.Node.NS), observe), newWire(t, n), &random{net: n}}
}

func (b *bench) set(r *dataplane.Ruleset) dataplane.Changes {
	b.Helper()
	c, err := b.filter.Set(b.Context(), r)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// flow makes a packet that opens a flow, in the hook that its ends tell.
func (b *bench) flow(from, to string, port uint16) Packet {
	p := Packet{
		Hook: Forward, In: "left", Source: netip.MustParseAddr(from), Destination: netip.MustParseAddr(to), Protocol: unix.IPPROTO_UDP, Port: port,
	}
	for _, a := range append(b.net.LeftAddrs, b.net.RightAddrs...) {
		if a == p.Destination {
			p.Hook = Input
		}
		if a == p.Source {
			p.Hook, p.In = Output, ""
		}
	}
	return p
}

// count sends flows like the packet, each its own, and tells how many arrive.
func (b *bench) count(p Packet, flows int, all bool) int {
	b.Helper()
	want := map[uint32]bool{}
	for range flows {
		b.random.fresh(&p)
		n, err := b.wire.send(p)
		if err != nil {
			b.Fatal(err)
		}
		want[n] = all
	}
	got, arrived := b.wire.passed(want), 0
	if !all {
		time.Sleep(50 * time.Millisecond)
		for n := range b.wire.passed(nil) {
			got[n] = true
		}
	}
	for n := range want {
		if got[n] {
			arrived++
		}
	}
	return arrived
}

func (b *bench) passes(p Packet) {
	b.Helper()
	if b.count(p, 1, true) != 1 {
		b.Errorf("%s:%d from %s did not pass", p.Destination, p.Port, p.Source)
	}
}

func (b *bench) closed(p Packet) {
	b.Helper()
	if b.count(p, 1, false) != 0 {
		b.Errorf("%s:%d from %s passed", p.Destination, p.Port, p.Source)
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// rules makes a ruleset with the client's and the server's networks as sets.
func rules(input, forward, output []dataplane.FilterRule) *dataplane.Ruleset {
	return &dataplane.Ruleset{
		Sets: []dataplane.AddressSet{
			{Name: "clients", Prefixes: prefixes("10.1.0.0/16", "fd01::/64")},
			{Name: "inside", Prefixes: prefixes("10.1.0.0/24", "fd01::/64")},
			{Name: "servers", Prefixes: prefixes("10.2.0.0/16", "fd02::/64")},
			{Name: "zoned", Prefixes: prefixes("10.0.0.0/8", "fd00::/8")},
		},
		Zoned: "zoned", Input: input, Forward: forward, Output: output,
	}
}

func rule(name, from, to string, ports ...string) dataplane.FilterRule {
	f := dataplane.FilterRule{Name: name, From: from, To: to}
	for _, p := range ports {
		f.Ports = append(f.Ports, parse(p))
	}
	return f
}

const (
	client4, node4, server4 = "10.1.0.1", "10.1.0.254", "10.2.0.1"
	client6, node6, server6 = "fd01::1", "fd01::fe", "fd02::1"
)

func (b *bench) connections() {
	var listener net.Listener
	b.net.Node.must(b.net.Node.Do(func() (err error) {
		listener, err = net.Listen("tcp", node4+":80")
		return err
	}))
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for word := make([]byte, 4); ; {
					if _, err := c.Read(word); err != nil {
						return
					}
					_, _ = c.Write(word)
				}
			}()
		}
	}()
	b.set(rules([]dataplane.FilterRule{rule("web", "clients", "", "tcp/80")}, nil, nil))
	var c net.Conn
	b.net.Client.must(b.net.Client.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", node4+":80", 5*time.Second)
		return err
	}))
	defer c.Close()
	b.set(rules(nil, nil, nil))
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("word")); err != nil {
		b.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 4)); err != nil {
		b.Errorf("a connection after its rule was gone: %v", err)
	}
	p := b.flow(client4, node4, 80)
	p.Protocol = unix.IPPROTO_TCP
	b.closed(p)
}

func (b *bench) learning() {
	r := rules(nil, nil, []dataplane.FilterRule{rule("names", "", "names", "udp/53")})
	r.Inside, r.Dynamic = "inside", []dataplane.DynamicSet{{Name: "names", Names: []string{"example.com"}}}
	b.set(r)
	learn := func(ttl time.Duration, addresses ...string) {
		b.Helper()
		var all []netip.Addr
		for _, a := range addresses {
			all = append(all, netip.MustParseAddr(a))
		}
		if err := b.filter.Learn(b.Context(), "names", all, ttl); err != nil {
			b.Fatal(err)
		}
	}
	four, six, other := b.flow(node4, server4, 53), b.flow(node6, server6, 53), b.flow(node4, "10.2.0.2", 53)
	b.passes(b.flow(node4, client4, 9)) // inside
	b.closed(four)
	b.closed(six)
	learn(time.Second, server4)
	learn(time.Hour, server6, "10.2.0.2")
	for _, p := range []Packet{four, six, other} {
		b.passes(p)
	}
	b.closed(b.flow(node4, server4, 54))
	learn(time.Second, "10.2.0.2") // shorter
	learn(time.Hour, "10.2.0.3")
	learn(time.Second, "10.2.0.4")
	learn(time.Hour, "10.2.0.4") // longer
	r.Output = append(r.Output, rule("more", "", "servers", "udp/55"))
	b.set(r)
	time.Sleep(2200 * time.Millisecond)
	b.closed(four)
	for _, p := range []Packet{six, other, b.flow(node4, "10.2.0.3", 53), b.flow(node4, "10.2.0.4", 53), b.flow(node4, server4, 55)} {
		b.passes(p)
	}
	if err := b.filter.Learn(b.Context(), "unheard-of", nil, time.Hour); err == nil {
		b.Error("an unknown set learnt")
	}
	b.set(rules(nil, nil, nil))
	if err := b.filter.Learn(b.Context(), "names", []netip.Addr{netip.MustParseAddr(server4)}, time.Hour); err == nil {
		b.Error("a set that is gone learnt")
	}
}

func (b *bench) rate() {
	limited := rule("limited", "", "", "udp")
	limited.Rate = 5
	b.set(rules([]dataplane.FilterRule{limited}, []dataplane.FilterRule{limited, rule("rest", "", "", "udp/99")}, nil))
	for _, from := range []string{client4, "10.1.0.2", client6} {
		to := node4
		if from == client6 {
			to = node6
		}
		start := time.Now()
		got := b.count(b.flow(from, to, 80), 40, false)
		if most := 6 + int(5*time.Since(start).Seconds()); got < 5 || got > most {
			b.Errorf("of 40 flows from %s %d passed, want 5 to %d", from, got, most)
		}
	}
	if got := b.count(b.flow("10.1.0.3", server4, 99), 40, true); got != 40 {
		b.Errorf("of 40 flows that another rule allows %d passed", got)
	}
}

func (b *bench) expiry() {
	brief := rule("brief", "", "", "udp")
	brief.Expires = time.Now().Add(2 * time.Second)
	b.set(rules([]dataplane.FilterRule{brief}, nil, nil))
	b.passes(b.flow(client4, node4, 80))
	b.passes(b.flow(client6, node6, 80))
	time.Sleep(time.Until(brief.Expires.Add(1100 * time.Millisecond)))
	b.closed(b.flow(client4, node4, 80))
	b.closed(b.flow(client6, node6, 80))
}

func (b *bench) drops() {
	deny, loud := rule("no, \"never\"", "", "", "udp/66"), rule("loud", "", "", "udp/77")
	deny.Deny, loud.Log = true, true
	b.set(rules([]dataplane.FilterRule{deny, loud}, []dataplane.FilterRule{deny}, nil))
	ctx, stop := context.WithCancel(b.Context())
	heard, err := b.filter.Drops(ctx)
	if err != nil {
		b.Fatal(err)
	}
	b.closed(b.flow(client4, node4, 66))
	b.closed(b.flow(client6, server6, 66))
	b.closed(b.flow(client4, node4, 88))
	b.passes(b.flow(client6, node6, 77))
	type event struct {
		rule, verdict, hook, to string
	}
	want := map[event]bool{
		{deny.Name, "drop", "input", "10.1.0.254:66"}:             true,
		{deny.Name, "drop", "forward", "[fd02::1]:66"}:            true,
		{dataplane.DefaultDeny, "drop", "input", "10.1.0.254:88"}: true,
		{"loud", "accept", "input", "[fd01::fe]:77"}:              true,
	}
	for patience := time.After(5 * time.Second); len(want) > 0; {
		select {
		case d := <-heard:
			delete(want, event{d.Rule, d.Verdict, d.Hook, d.Destination.String()})
		case <-patience:
			b.Fatalf("not heard: %v", want)
		}
	}
	stop()
	for range heard { // it closes
	}
}

func (b *bench) observing() {
	deny := rule("deny", "", "", "udp/66")
	deny.Deny = true
	r := rules([]dataplane.FilterRule{deny, rule("open", "", "", "udp/80")}, []dataplane.FilterRule{deny}, nil)
	r.Inside = "inside"
	r.Guards = []dataplane.Guard{{Name: "clients", Sources: "clients", Interfaces: []string{"left"}}}
	b.set(r)
	for _, p := range []Packet{b.flow(client4, node4, 66), b.flow(client6, server6, 66), b.flow(client4, node4, 80), b.flow(client4, node4, 81), b.flow(node4, server4, 99)} {
		b.passes(p)
	}
	counters, err := b.filter.Counters()
	if err != nil {
		b.Fatal(err)
	}
	for name, want := range map[string]uint64{"deny": 2, "open": 1, dataplane.DefaultDeny: 2} {
		if got := counters[name].Packets; got < want {
			b.Errorf("%s counted %d packets, want %d or more", name, got, want)
		}
	}
}

func (b *bench) idempotence() {
	// Sets without versions, and with: both are known again.
	for _, version := range []uint64{0, 9} {
		r := rules([]dataplane.FilterRule{rule("a", "clients", "", "tcp/80", "icmp")}, []dataplane.FilterRule{rule("b", "", "servers", "any")}, nil)
		for i := range r.Sets {
			r.Sets[i].Version = version
		}
		r.Endpoints = []dataplane.EndpointSet{{Name: "ends", Endpoints: []dataplane.Endpoint{{Address: netip.MustParseAddrPort("10.2.0.1:80"), Protocol: api.TCP}}}}
		r.Forward = append(r.Forward, dataplane.FilterRule{Name: "ends", Endpoints: "ends"})
		b.set(r)
		if c := b.set(r); c != (dataplane.Changes{}) {
			b.Errorf("the same again: %+v", c)
		}
	}
	if c := b.set(nil); c.Removed == 0 {
		b.Errorf("no ruleset any more: %+v", c)
	}
	if c := b.set(nil); c != (dataplane.Changes{}) {
		b.Errorf("no ruleset again: %+v", c)
	}
	b.passes(b.flow(client4, node4, 81))
}

func (b *bench) counting() {
	input := []dataplane.FilterRule{rule("web", "", "", "udp/80")}
	b.set(rules(input, input, nil))
	b.passes(b.flow(client4, node4, 80))
	b.set(rules(append(input, rule("more", "clients", "", "udp/81")), input, nil))
	b.passes(b.flow(client6, server6, 80))
	r := rules(append([]dataplane.FilterRule{rule("first", "servers", "", "any")}, input...), input, nil)
	r.Sets[0].Prefixes = r.Sets[0].Prefixes[:1]
	b.set(r)
	b.passes(b.flow(client6, node6, 80))
	counters, err := b.filter.Counters()
	if err != nil {
		b.Fatal(err)
	}
	if got := counters["web"]; got.Packets != 3 || got.Bytes == 0 {
		b.Errorf("a rule counted %+v over two changes, want 3 packets", got)
	}
}

func (b *bench) refusals() {
	for name, change := range map[string]func(*dataplane.Ruleset){
		"from": func(r *dataplane.Ruleset) { r.Input = []dataplane.FilterRule{rule("x", "nowhere", "", "any")} },
		"not to": func(r *dataplane.Ruleset) {
			r.Input = []dataplane.FilterRule{{Name: "x", NotTo: []string{"nowhere"}, Ports: rule("", "", "", "any").Ports}}
		},
		"endpoints": func(r *dataplane.Ruleset) { r.Input = []dataplane.FilterRule{{Name: "x", Endpoints: "zoned"}} },
		"zoned":     func(r *dataplane.Ruleset) { r.Zoned = "nowhere" },
		"inside":    func(r *dataplane.Ruleset) { r.Inside = "nowhere" },
		"guard": func(r *dataplane.Ruleset) {
			r.Guards = []dataplane.Guard{{Name: "g", Sources: "nowhere", Interfaces: []string{"lo"}}}
		},
		"twice":   func(r *dataplane.Ruleset) { r.Sets = append(r.Sets, r.Sets[0]) },
		"dynamic": func(r *dataplane.Ruleset) { r.Dynamic = []dataplane.DynamicSet{{Name: "zoned"}} },
		"prefix":  func(r *dataplane.Ruleset) { r.Sets[0].Prefixes = make([]netip.Prefix, 1) },
	} {
		r := rules(nil, nil, nil)
		change(r)
		if _, err := b.filter.Set(b.Context(), r); err == nil {
			b.Errorf("%s: a wrong ruleset was taken", name)
		}
	}
	b.passes(b.flow(client4, node4, 81)) // nothing was written
}

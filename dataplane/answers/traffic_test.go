package answers

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dnsproxy"
)

// rig is a node with the real proxy, and a container behind a veth.
//
//	client 10.88.0.9 --- v0 10.88.0.1 node, lo 169.254.53.53
type rig struct {
	t            testing.TB
	client, node *space
	proxy        *dnsproxy.Proxy
	a            *Answerer
	table        Table
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := newBareRig(t)
	wire(r.node, "v0", r.client, "c0")
	r.node.up("v0", "10.88.0.1/24", "fd00:88::1/64")
	r.address()
	return r
}

func newBareRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, client: newSpace(t), node: newSpace(t)}
	r.node.up("lo", "169.254.53.53/32", "fd53::53/128")
	r.a = open(t, newOptions(t))
	r.serve(compile(t, fleet()))
	return r
}

// address gives the client its own, once its wire is there.
func (r *rig) address() {
	r.t.Helper()
	r.client.up("c0", "10.88.0.9/24", "fd00:88::9/64")
	r.client.route("10.88.0.1")
	r.client.route("fd00:88::1")
}

func (r *rig) serve(table *dnsproxy.Table) {
	r.t.Helper()
	p, err := dnsproxy.New(dnsproxy.ServerOptions{Listen: []netip.AddrPort{here4, here6}})
	if err != nil {
		r.t.Fatal(err)
	}
	p.Set(table)
	r.node.must(p.Listen)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	r.t.Cleanup(func() { cancel(); <-ended })
	r.proxy, r.table = p, tableOf(table)
	r.table.Flags, _ = p.DirectFlags()
}

func (r *rig) set() {
	r.t.Helper()
	r.node.must(func() error {
		if _, err := r.a.Set(context.Background(), r.table); err != nil {
			return err
		}
		return r.a.Beat()
	})
}

// exchange asks from a namespace, over udp or tcp.
func (r *rig) exchange(from *space, network string, to netip.AddrPort, m *dns.Msg) *dns.Msg {
	r.t.Helper()
	var answer *dns.Msg
	from.must(func() error {
		client := dns.Client{Net: network, Timeout: 10 * time.Second}
		var err error
		answer, _, err = client.Exchange(m, to.String())
		return err
	})
	return answer
}

func ask1(name string, qtype uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, qtype) }

// answeredBy tells how many of the queries that f sends the kernel answered.
func (r *rig) answeredBy(f func()) uint64 {
	r.t.Helper()
	before := counters(r.t, r.a)
	f()
	after := counters(r.t, r.a)
	return after.Answered + after.Denied - before.Answered - before.Denied
}

func (r *rig) noBadSums(of ...*space) {
	r.t.Helper()
	for _, s := range of {
		var bad uint64
		s.must(func() (err error) { bad, err = badSums(); return err })
		if bad != 0 {
			r.t.Errorf("%d wrong checksums", bad)
		}
	}
}

func TestAContainersQueriesAreAnsweredInTheKernel(t *testing.T) {
	for _, finish := range []bool{false, true} {
		r := newRig(t)
		if finish {
			r.client.finish("c0")
		}
		r.set()
		if n := r.a.Interfaces(); n != 1 {
			t.Fatalf("the program runs on %d interfaces, want 1", n)
		}
		for _, to := range []netip.AddrPort{here4, here6} {
			n := r.answeredBy(func() {
				for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
					for _, name := range []string{"one.weir.internal.", "sixeight.weir.internal.", "both.weir.internal."} {
						m := r.exchange(r.client, "udp", to, ask1(name, qtype).SetEdns0(1232, true))
						if m.Rcode != dns.RcodeSuccess || !m.Authoritative || m.IsEdns0() == nil || len(m.Answer)+len(m.Ns) == 0 {
							t.Errorf("answer %v", m)
						}
					}
				}
			})
			if n != 6 {
				t.Errorf("the kernel answered %d of 6 queries to %s", n, to)
			}
			n = r.answeredBy(func() {
				if m := r.exchange(r.client, "udp", to, ask1("none.weir.internal.", dns.TypeA)); m.Rcode != dns.RcodeNameError {
					t.Errorf("got %s for a name that is not there", dns.RcodeToString[m.Rcode])
				}
				if m := r.exchange(r.client, "udp", to, ask1("nine.weir.internal.", dns.TypeA)); len(m.Answer) != 9 {
					t.Errorf("got %d addresses, want 9", len(m.Answer))
				}
				if m := r.exchange(r.client, "tcp", to, ask1("one.weir.internal.", dns.TypeA)); len(m.Answer) != 1 {
					t.Errorf("got %d addresses over TCP, want 1", len(m.Answer))
				}
			})
			if n != 0 {
				t.Errorf("the kernel answered %d queries that it should pass up", n)
			}
		}
		r.noBadSums(r.client, r.node)
	}
}

func TestTheProxyAnswersWhenNobodyBeats(t *testing.T) {
	r := newRig(t)
	r.set()
	one := func() {
		t.Helper()
		if m := r.exchange(r.client, "udp", here4, ask1("one.weir.internal.", dns.TypeA)); len(m.Answer) != 1 {
			t.Errorf("got %d addresses, want 1", len(m.Answer))
		}
	}
	if n := r.answeredBy(one); n != 1 {
		t.Fatalf("the kernel answered %d queries, want 1", n)
	}
	// The agent is dead: nothing of it moves any more.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if r.answeredBy(one) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the kernel answers a minute after the last beat")
		}
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		at   time.Duration
		want uint64
	}{{"just now", 0, 1}, {"2 s ago", -2 * time.Second, 1}, {"3.1 s ago", -3100 * time.Millisecond, 0}, {"in an hour", time.Hour, 0}} {
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			t.Fatal(err)
		}
		if err := r.a.beat(uint64(now.Nano() + int64(c.at))); err != nil {
			t.Fatal(err)
		}
		if n := r.answeredBy(one); n > c.want || c.at == 0 && n != 1 {
			t.Errorf("a beat %s: the kernel answered %d, want %d", c.name, n, c.want)
		}
	}
	if err := r.a.Beat(); err != nil {
		t.Fatal(err)
	}
	if n := r.answeredBy(one); n != 1 {
		t.Errorf("the kernel does not answer again")
	}
	if err := r.a.Silence(); err != nil {
		t.Fatal(err)
	}
	if n := r.answeredBy(one); n != 0 {
		t.Errorf("the kernel answers although it shall be silent")
	}
}

func TestTheHostsOwnQueriesOnlyWhenWanted(t *testing.T) {
	r := newRig(t)
	one := func() {
		for _, to := range []netip.AddrPort{here4, here6} {
			if m := r.exchange(r.node, "udp", to, ask1("two.weir.internal.", dns.TypeA)); len(m.Answer) != 2 {
				t.Errorf("got %d addresses, want 2", len(m.Answer))
			}
		}
	}
	r.set()
	if n := r.answeredBy(one); n != 0 {
		t.Errorf("the kernel answered %d queries on lo", n)
	}
	r.table.Loopback = true
	r.set()
	if n := r.answeredBy(one); n != 2 || r.a.Interfaces() != 2 {
		t.Errorf("the kernel answered %d queries on lo, want 2, on %d interfaces", n, r.a.Interfaces())
	}
	r.noBadSums(r.node)
	r.table.Loopback = false
	r.set()
	if n := r.answeredBy(one); n != 0 || r.a.Interfaces() != 1 {
		t.Errorf("the kernel still answered %d queries on lo", n)
	}
}

// Whom a packet filter would keep out goes by it.
func TestOnlyClientsAreAnswered(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		clients []string
		want    uint64 // of one query over each family
	}{
		{nil, 2}, {[]string{"10.88.0.0/16", "fd00:88::/64"}, 2}, {[]string{"10.88.0.9/32"}, 1}, {[]string{"10.88.0.0/29", "fd00:88::9/128"}, 1},
		{[]string{"192.0.2.0/24", "0.0.0.0/0"}, 1}, {[]string{"::/0"}, 2}, {[]string{"10.88.0.10/31", "fd00:89::/32"}, 0},
	} {
		r.table.Clients = nil
		for _, text := range c.clients {
			r.table.Clients = append(r.table.Clients, netip.MustParsePrefix(text))
		}
		r.set()
		n := r.answeredBy(func() {
			for _, to := range []netip.AddrPort{here4, here6} {
				if m := r.exchange(r.client, "udp", to, ask1("one.weir.internal.", dns.TypeA)); len(m.Answer) != 1 {
					t.Errorf("%s: got %v", to, m)
				}
			}
		})
		if n != c.want {
			t.Errorf("%v: the kernel answered %d queries, want %d", c.clients, n, c.want)
		}
	}
}

// A bridged container sends to the bridge's hardware address, not to the veth's.
func TestBridgedContainersAreAnswered(t *testing.T) {
	r := newBareRig(t)
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = "br0"
	if err := r.node.links.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	wire(r.node, "v0", r.client, "c0")
	if err := r.node.links.LinkSetMaster(r.node.link("v0"), r.node.link("br0")); err != nil {
		t.Fatal(err)
	}
	r.node.up("v0")
	r.node.up("br0", "10.88.0.1/24", "fd00:88::1/64")
	r.address()
	r.set()
	n := r.answeredBy(func() {
		for _, to := range []netip.AddrPort{here4, here6} {
			if m := r.exchange(r.client, "udp", to, ask1("one.weir.internal.", dns.TypeA)); len(m.Answer) != 1 {
				t.Errorf("got %v", m)
			}
		}
	})
	if n != 2 {
		t.Errorf("the kernel answered %d queries, want 2", n)
	}
}

func TestInterfacesAreFollowed(t *testing.T) {
	r := newRig(t)
	r.table.Uplinks = []netip.Addr{netip.MustParseAddr("10.88.0.1")}
	r.set()
	if n := r.a.Interfaces(); n != 0 {
		t.Errorf("the program runs on %d interfaces, want none: v0 is the way out", n)
	}
	other := newSpace(t)
	wire(r.node, "v1", other, "c1")
	wire(r.node, "w0", r.node, "w1") // leads nowhere
	r.set()
	if n := r.a.Interfaces(); n != 1 {
		t.Errorf("the program runs on %d interfaces, want v1 alone", n)
	}
	if err := r.node.links.LinkDel(r.node.link("v1")); err != nil {
		t.Fatal(err)
	}
	r.table.Uplinks = nil
	r.set()
	if n := r.a.Interfaces(); n != 1 {
		t.Errorf("the program runs on %d interfaces, want v0 alone", n)
	}
	if n := pins(t, r.a.options.PinDir); n != 1 {
		t.Errorf("%d links are pinned, want 1", n)
	}
}

func TestWithdrawnNamesAreTheProxysUntilTheyArePublished(t *testing.T) {
	r := newRig(t)
	r.set()
	before := r.proxy.Table()
	s := fleet()
	s.Revision++
	s.Records = s.Records[1:]                           // one goes
	s.Records[0].Data = []string{"10.80.0.99"}          // two changes
	s.Records[1].Name, s.Records[1].TTL = "new", ptr(9) // eight goes, new comes
	next, err := dnsproxy.Compile(s, dnsproxy.Options{Domain: "weir.internal", Aliases: []string{"mesos"}, Listen: here4.Addr(), Previous: before})
	if err != nil {
		t.Fatal(err)
	}
	change := next.DirectSince(before)
	if len(change.Gone) != 6 || len(change.Changed) != 4 { // one, two, eight; two, new; in two domains
		t.Errorf("%d names go and %d change: %q", len(change.Gone), len(change.Changed), change.Gone)
	}
	ask := func(name string, kernel uint64, rcode int, first string) {
		t.Helper()
		n := r.answeredBy(func() {
			m := r.exchange(r.client, "udp", here4, ask1(name+".weir.internal.", dns.TypeA))
			if m.Rcode != rcode || first != "" && m.Answer[0].(*dns.A).A.String() != first {
				t.Errorf("%s: %v", name, m)
			}
		})
		if n != kernel {
			t.Errorf("%s: the kernel answered %d, want %d", name, n, kernel)
		}
	}
	ask("one", 1, dns.RcodeSuccess, "10.80.0.40")
	if err := r.a.Withdraw(change.Gone); err != nil {
		t.Fatal(err)
	}
	ask("one", 0, dns.RcodeSuccess, "10.80.0.40")
	ask("six", 1, dns.RcodeSuccess, "") // what stays is answered all the time
	r.proxy.Set(next)
	ask("one", 0, dns.RcodeNameError, "")
	ask("two", 0, dns.RcodeSuccess, "10.80.0.99")
	var changed []Name
	for _, d := range change.Changed {
		changed = append(changed, nameOf(d))
	}
	if err := r.a.Publish(changed, direct{next}, next.DirectZones()); err != nil {
		t.Fatal(err)
	}
	ask("one", 0, dns.RcodeNameError, "")
	ask("two", 1, dns.RcodeSuccess, "10.80.0.99")
	ask("eight", 0, dns.RcodeNameError, "")
	ask("new", 1, dns.RcodeSuccess, "")
	r.table.Names, r.table.Zones = direct{next}, next.DirectZones()
	r.node.must(func() error {
		c, err := r.a.Set(context.Background(), r.table)
		if c.Written+c.Removed+c.Repaired != 0 {
			t.Errorf("Set still changes %+v", c)
		}
		return err
	})
}

package nft

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netns"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// host is the i-th of many addresses, no two of them neighbours; one in five is
// of IPv6.
func host(i int) netip.Prefix {
	if i%5 == 4 {
		a := [16]byte{0xfd, 9, 12: byte(i >> 22), 13: byte(i >> 14), 14: byte(i >> 6), 15: byte(i << 2)}
		return netip.PrefixFrom(netip.AddrFrom16(a), 128)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 14), byte(i >> 6), byte(i << 2)}), 32)
}

// policy has zones with the members among them, and rules between any two, as a
// node gets them that passes flows on: input has the rules about its own zone,
// forward has all. The client of a net3 is in the last zone, the node and the server in the first.
// Flows to tcp/80 between them match the last rule.
func policy(zones, rules, members int) *dataplane.Ruleset {
	r := &dataplane.Ruleset{Zoned: "zoned"}
	sets := make([]dataplane.AddressSet, zones)
	all := dataplane.AddressSet{Name: "zoned", Version: 1}
	for i := range members {
		sets[i%zones].Prefixes = append(sets[i%zones].Prefixes, host(i))
	}
	sets[0].Prefixes = append(sets[0].Prefixes, prefixes(node4+"/32", "10.2.0.0/24", node6+"/128", "fd02::/64")...)
	sets[zones-1].Prefixes = append(sets[zones-1].Prefixes, prefixes(client4+"/32", client6+"/128")...)
	for i := range sets {
		sets[i].Name, sets[i].Version = fmt.Sprintf("zone%03d", i), 1
		slices.SortFunc(sets[i].Prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		all.Prefixes = append(all.Prefixes, sets[i].Prefixes...)
	}
	slices.SortFunc(all.Prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	r.Sets = append(sets, all)
	for i := range rules - 1 {
		f := allow(fmt.Sprint("rule", i), sets[i*7%zones].Name, sets[(i+i/zones)%zones].Name, fmt.Sprintf("tcp/%d", 1000+i%100), "udp/53")
		r.Forward = append(r.Forward, f)
		if f.To == sets[0].Name { // the node's own
			r.Input = append(r.Input, f)
		}
	}
	last := allow("last", sets[zones-1].Name, sets[0].Name, "tcp/80")
	r.Input, r.Forward = append(r.Input, last), append(r.Forward, last)
	return r
}

// with adds a member to a zone, or takes it away, as a compiler says it: by a
// delta.
func with(r *dataplane.Ruleset, zone int, member netip.Prefix, add bool) *dataplane.Ruleset {
	out := *r
	out.Sets = slices.Clone(r.Sets)
	for _, i := range []int{zone, len(out.Sets) - 1} {
		s := out.Sets[i]
		at, _ := slices.BinarySearchFunc(s.Prefixes, member, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		delta := dataplane.SetDelta{From: s.Version}
		if add {
			s.Prefixes, delta.Added = slices.Insert(slices.Clone(s.Prefixes), at, member), []netip.Prefix{member}
		} else {
			s.Prefixes, delta.Removed = slices.Delete(slices.Clone(s.Prefixes), at, at+1), []netip.Prefix{member}
		}
		s.Version, s.Delta = s.Version+1, &delta
		out.Sets[i] = s
	}
	return &out
}

func TestOneMemberAmongManyRewritesNoRule(t *testing.T) {
	s := newSpace(t)
	f := s.filter(Enforce)
	r := policy(200, 2000, 100_000)
	start := time.Now()
	apply(t, f, r)
	t.Logf("200 zones, 2,000 rules, 100,000 addresses: applied in %v", time.Since(start))
	handles := func() string { return s.nft("-a", "-t", "list", "ruleset") } // without elements
	before := handles()
	member := netip.MustParsePrefix("11.3.7.2/32")
	var times []time.Duration
	for i := range 10 {
		r = with(r, 17, member, i%2 == 0)
		start = time.Now()
		c := apply(t, f, r)
		times = append(times, time.Since(start))
		want := dataplane.Changes{Written: 3} // in its zone's set, that of all zones and the map of forward
		if i%2 == 1 {
			want = dataplane.Changes{Removed: want.Written}
		}
		if c != want {
			t.Fatalf("one member: %+v, want %+v", c, want)
		}
	}
	slices.Sort(times)
	t.Logf("one member: %v in the median, %v at worst", times[len(times)/2], times[len(times)-1])
	if after := handles(); after != before {
		t.Error("rules or chains changed")
	}
	// What was built step by step is what a fresh process builds and finds.
	start = time.Now()
	if c := apply(t, s.filter(Enforce), r); c != (dataplane.Changes{}) {
		t.Errorf("the next process changes %+v", c)
	}
	t.Logf("read back whole in %v", time.Since(start))
	start = time.Now()
	other := policy(200, 1990, 100_000)
	for i := range other.Sets {
		other.Sets[i].Version += 100
	}
	apply(t, f, other)
	t.Logf("replaced by another policy in %v", time.Since(start))
}

// connect opens connections to the address from the thread's namespace, one
// after the other, for the time, and gives how many.
func connect(to unix.Sockaddr, d time.Duration) (n int, err error) {
	for end := time.Now().Add(d); time.Now().Before(end); n++ {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return n, err
		}
		// Reset at close: no TIME_WAIT takes the ports.
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		err = unix.Connect(fd, to)
		unix.Close(fd)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// sink accepts and closes connections in the namespace.
func (s *space) sink(port int) {
	var fd int
	s.must(s.do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
			return err
		}
		return unix.Listen(fd, 4096)
	}))
	done := make(chan struct{})
	s.t.Cleanup(func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR); <-done; unix.Close(fd) })
	go func() {
		defer close(done)
		for {
			c, _, err := unix.Accept(fd)
			if err != nil && err != unix.ECONNABORTED && err != unix.EINTR {
				return
			}
			if err == nil {
				unix.Close(c)
			}
		}
	}()
}

// BenchmarkConnections compares new TCP connections a second through a policy,
// to the node and through it, with those through one rule that accepts all.
// The metric is the ratio; both are measured in turns of 30 ms.
func BenchmarkConnections(b *testing.B) {
	one := &dataplane.Ruleset{
		Sets: []dataplane.AddressSet{{Name: "zoned", Prefixes: prefixes("0.0.0.0/0")}}, Zoned: "zoned",
		Input: []dataplane.FilterRule{{Name: "all", Ports: []api.PortRange{{Protocol: "any"}}}}, Forward: []dataplane.FilterRule{{Name: "all", Ports: []api.PortRange{{Protocol: "any"}}}},
	}
	for _, members := range []int{10, 1000, 100_000} {
		b.Run(fmt.Sprintf("weir/members=%d", members), func(b *testing.B) {
			compareConnections(b, func(n net3) { apply(b, n.node.filter(Enforce), policy(200, 2000, members)) },
				func(n net3) { apply(b, n.node.filter(Enforce), one) })
		})
	}
	for _, members := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("iptables-per-address/members=%d", members), func(b *testing.B) {
			compareConnections(b, func(n net3) { perAddress(b, n.node, members) }, func(n net3) { perAddress(b, n.node, 0) })
		})
	}
}

// compareConnections measures two nodes.
func compareConnections(b *testing.B, policy, floor func(net3)) {
	nodes := [2]net3{newNet3(b), newNet3(b)}
	policy(nodes[0])
	floor(nodes[1])
	for _, n := range nodes {
		n.node.sink(80)
		n.server.sink(80)
	}
	for _, to := range []netip.Addr{netip.MustParseAddr(node4), netip.MustParseAddr(server4)} {
		var rates [2][]float64
		for range max(b.N, 60) {
			for i, n := range nodes {
				var count int
				const turn = 30 * time.Millisecond
				err := onThread(func() (err error) {
					runtime.LockOSThread()
					if err := netns.Set(n.client.ns); err != nil {
						return err
					}
					count, err = connect(&unix.SockaddrInet4{Addr: to.As4(), Port: 80}, turn)
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
				rates[i] = append(rates[i], float64(count)/turn.Seconds())
			}
		}
		slices.Sort(rates[0])
		slices.Sort(rates[1])
		name := map[bool]string{true: "to-node", false: "through"}[to == netip.MustParseAddr(node4)]
		mine, floor := rates[0][len(rates[0])/2], rates[1][len(rates[1])/2]
		b.ReportMetric(mine/floor, name+"-ratio")
		b.ReportMetric(mine, name+"-conns/s")
	}
}

// perAddress makes the rules that people write by hand: one for each address,
// of which the client's is the last.
func perAddress(b *testing.B, s *space, members int) {
	if _, err := exec.LookPath("iptables-legacy-restore"); err != nil {
		b.Skip("needs iptables")
	}
	var rules strings.Builder
	rules.WriteString("*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n")
	for _, chain := range []string{"INPUT", "FORWARD"} {
		fmt.Fprintf(&rules, "-A %s -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n", chain)
		for i := range members {
			fmt.Fprintf(&rules, "-A %s -s 11.%d.%d.%d -p tcp --dport 80 -j ACCEPT\n", chain, i>>16, i>>8&255, i&255)
		}
		fmt.Fprintf(&rules, "-A %s -s %s -p tcp --dport 80 -j ACCEPT\n", chain, client4)
	}
	rules.WriteString("COMMIT\n")
	b.Setenv("XTABLES_LOCKFILE", b.TempDir()+"/lock")
	s.must(s.do(func() error {
		cmd := exec.Command("iptables-legacy-restore")
		cmd.Stdin = bytes.NewReader([]byte(rules.String()))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
}

// BenchmarkMember adds and removes one member among 100,000.
func BenchmarkMember(b *testing.B) {
	s := newSpace(b)
	f := s.filter(Enforce)
	r := policy(200, 2000, 100_000)
	apply(b, f, r)
	member := netip.MustParsePrefix("11.3.7.2/32")
	both := [2]*dataplane.Ruleset{}
	for i := range both {
		r = with(r, 17, member, i == 0)
		both[i] = r
	}
	b.ResetTimer()
	for i := range b.N {
		now := *both[i%2]
		now.Sets = slices.Clone(now.Sets)
		for _, j := range []int{17, len(now.Sets) - 1} { // the same contents under new versions
			now.Sets[j].Version = uint64(i + 2)
			now.Sets[j].Delta = &dataplane.SetDelta{From: uint64(i + 1), Added: both[i%2].Sets[j].Delta.Added, Removed: both[i%2].Sets[j].Delta.Removed}
		}
		apply(b, f, &now)
	}
}

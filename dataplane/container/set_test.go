package container

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

func mustAddr(text string) netip.Addr { return netip.MustParseAddr(text) }

func udpPort(host uint16, to string) Port {
	return Port{Protocol: api.UDP, Host: host, To: netip.MustParseAddrPort(to)}
}

func TestWhatSomebodyElseChangesIsRepaired(t *testing.T) {
	t.Parallel()
	w := routed(t)
	a, b := addrs("198.51.1.1", "2001:db8:1::1"), addrs("198.51.2.1", "2001:db8:2::1")
	fleet(api.NetworkAuto, []*node{w.a, w.b}, [][]netip.Addr{a, b})
	c := w.a.container(map[string][]string{"web": {"10.128.1.11", "fd01:b::1:0:0:11"}}, udpPort(53, "10.128.1.11:53"))
	if again := w.a.set(); again != (dataplane.Changes{}) {
		t.Fatalf("the same table again does %+v", again)
	}
	host := VethName("a-c1", "web")
	mac := tunnelMAC("b", 1024, false).String()
	for _, damage := range []string{
		"ip link del weirb-web", "ip link set weirb-web down", "ip link set weirb-web mtu 1300", "ip addr del 10.128.1.1/24 dev weirb-web",
		"ip addr add 10.9.9.9/32 dev weirb-web", "ip link del weirx-1024", "ip route del 10.128.2.0/24", "ip -6 route flush dev weirx-1024",
		"ip route flush table 7765", "ip rule del priority 1190", "bridge fdb del " + mac + " dev weirx-1024 dst 198.51.2.1",
		"bridge fdb append 00:00:00:00:00:00 dev weirx-1024 dst 198.51.2.1", "ip neigh del 10.128.2.0 dev weirx-1024", "ip link set weirx-1024 type vxlan learning",
		"ip link del " + host, "ip link set " + host + " nomaster", "bridge link set dev " + host + " hairpin off",
		"nft flush chain inet weir-containers prerouting", "nft delete table inet weir-containers", "nft flush set inet weir-containers own4",
		"nft add element inet weir-containers nodes4 { 203.0.113.1 }", "sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv6.conf.all.forwarding=0",
		"ip link add weirb-stray type bridge",
	} {
		if out, err := w.a.try("sh", "-c", damage); err != nil {
			t.Logf("%s: %v: %s (the kernel or the tool does not do that)", damage, err, out)
			continue
		}
		if repaired := w.a.set(); repaired.Repaired == 0 || repaired.Written+repaired.Removed != 0 {
			t.Errorf("%s: %+v", damage, repaired)
		}
		if again := w.a.set(); again != (dataplane.Changes{}) {
			t.Errorf("%s: after the repair there is still something to do: %+v", damage, again)
		}
	}
	c.serve(80)
	w.b.sees("a node after all that", "10.128.1.11:80", "198.51.2.1")
	w.b.sees("a node after all that", "[fd01:b::1:0:0:11]:80", "2001:db8:2::1")
}

func TestNothingIsLeftAfterCleanupAndForeignThingsStay(t *testing.T) {
	t.Parallel()
	w := routed(t)
	a, b := addrs("198.51.1.1", "2001:db8:1::1"), addrs("198.51.2.1", "2001:db8:2::1")
	// Names alone make nothing ours.
	w.a.script("link add weirb-mine type veth peer name other", "link add br-own type bridge", "rule add from 10.99.0.0/16 lookup 7765 priority 1190", "route add 10.98.0.0/16 via 198.51.1.254")
	state := func() string {
		return w.a.run("sh", "-c", "ip -o link | cut -d: -f2; ip route; ip -6 route | grep -v fe80; ip rule; ip -6 rule; nft list tables")
	}
	before := state()
	fleet(api.NetworkAuto, []*node{w.a, w.b}, [][]netip.Addr{a, b})
	w.a.container(map[string][]string{"web": {"10.128.1.11"}})
	if state() == before {
		t.Fatal("nothing was made")
	}
	var n int
	var err error
	w.a.do(func() { n, err = Cleanup() })
	if after := state(); err != nil || n == 0 || after != before {
		t.Errorf("%d removed, %v; before\n%s\nafter\n%s", n, err, before, after)
	}
	w.a.do(func() { n, err = Cleanup() })
	if err != nil || n != 0 {
		t.Errorf("again: %d removed, %v", n, err)
	}
}

func TestARestartChangesNothing(t *testing.T) {
	t.Parallel()
	w := routed(t)
	fleet(api.NetworkAuto, []*node{w.a, w.b}, [][]netip.Addr{addrs("198.51.1.1", "2001:db8:1::1"), addrs("198.51.2.1", "2001:db8:2::1")})
	w.a.container(map[string][]string{"web": {"10.128.1.11"}, "bridge": {"172.31.254.9"}}, udpPort(53, "10.128.1.11:53"))
	w.a.sink = New(Options{Log: w.a.sink.log})
	if c := w.a.set(); c != (dataplane.Changes{}) {
		t.Errorf("the first set of a new agent does %+v", c)
	}
}

func TestPacketsInTunnelsFitAndNoneIsFlooded(t *testing.T) {
	t.Parallel()
	for mtu, want := range map[int]int{1500: 1450, 9000: 8950, 1400: 1350} {
		w := routed(t)
		for i, s := range []*space{w.a.space, w.b.space} {
			s.script(fmt.Sprintf("link set up0 mtu %d", mtu))
			w.router.script(fmt.Sprintf("link set p%d mtu %d", i, mtu))
		}
		fleet(api.NetworkAuto, []*node{w.a, w.b}, [][]netip.Addr{addrs("198.51.1.1", "2001:db8:1::1"), addrs("198.51.2.1", "2001:db8:2::1")})
		c := w.a.container(map[string][]string{"web": {"10.128.1.11", "fd01:b::1:0:0:11"}})
		far := w.b.container(map[string][]string{"web": {"10.128.2.11", "fd01:b::2:0:0:11"}})
		for _, l := range []string{c.run("ip", "link", "show", "eth0"), w.a.run("ip", "link", "show", "weirb-web"), w.a.run("ip", "link", "show", "weirx-1024")} {
			if !strings.Contains(l, fmt.Sprintf("mtu %d ", want)) {
				t.Errorf("over an uplink of %d: want %d: %s", mtu, want, l)
			}
		}
		far.serve(80)
		c.do(func() {
			if seen, err := bigUDP("10.128.2.11:80", want-28); err != nil || seen != "10.128.1.11" {
				t.Errorf("a packet of the whole MTU %d: %q, %v", want, seen, err)
			}
		})
		// An address of the other node's subnet that nobody has, and one that is in
		// no subnet: the tunnel carries the first to its node and nothing else.
		sent := func() string {
			return strings.TrimSpace(w.a.run("sh", "-c", "ip -s link show weirx-1024 | grep -A1 TX: | tail -1 | awk '{print $2}'"))
		}
		before := sent()
		w.a.run("bash", "-c", "ip route get 10.128.77.1; (echo x > /dev/udp/10.128.77.1/9) 2>&1; true")
		w.a.run("sh", "-c", "bridge fdb show dev weirx-1024 | grep -q 00:00:00:00:00:00 && exit 1 || true")
		if after := sent(); after != before {
			t.Errorf("packets for nobody went into the tunnel: %s, then %s", before, after)
		}
	}
}

func TestNodesWithIPv6AloneTunnelOverIt(t *testing.T) {
	t.Parallel()
	w := routed(t)
	fleet(api.NetworkAuto, []*node{w.a, w.b}, [][]netip.Addr{addrs("2001:db8:1::1"), addrs("2001:db8:2::1")})
	c := w.a.container(map[string][]string{"web": {"10.128.1.11", "fd01:b::1:0:0:11"}})
	far := w.b.container(map[string][]string{"web": {"10.128.2.11", "fd01:b::2:0:0:11"}})
	far.serve(80)
	c.sees("IPv4 over IPv6", "10.128.2.11:80", "10.128.1.11")
	c.sees("IPv6 over IPv6", "[fd01:b::2:0:0:11]:80", "fd01:b::1:0:0:11")
	if l := w.a.run("ip", "link", "show", "weirx6-1024"); !strings.Contains(l, "mtu 1430 ") {
		t.Errorf("the tunnel is %s", l)
	}
}

func TestUDPFlowsFollowTheirPort(t *testing.T) {
	t.Parallel()
	w := sameLink(t)
	fleet(api.NetworkAuto, []*node{w.a, w.b}, [][]netip.Addr{addrs("192.0.2.1"), addrs("192.0.2.2")})
	one := w.a.container(map[string][]string{"web": {"10.128.1.11"}}, udpPort(53, "10.128.1.11:80"))
	two := w.a.container(map[string][]string{"web": {"10.128.1.12"}})
	one.serve(80)
	two.serve(80)
	stop := make(chan struct{})
	defer close(stop)
	answers := make(chan string, 1)
	w.outside.do(func() { talk(t, "192.0.2.1:53", answers, stop) })
	wait(t, answers, "192.0.2.3")
	// The same client, from the same port, without a pause.
	w.a.table.Endpoints[0].Ports, w.a.table.Endpoints[1].Ports = nil, []Port{udpPort(53, "10.128.1.12:80")}
	w.a.set()
	one.run("ip", "link", "set", "eth0", "down")
	for len(answers) > 0 {
		<-answers
	}
	wait(t, answers, "192.0.2.3")
	wait(t, answers, "192.0.2.3")
}

func TestVirtualAddressesAreNoPublishedOnes(t *testing.T) {
	t.Parallel()
	w := sameLink(t)
	w.a.script("addr add 198.18.0.10/32 dev lo", "link add weir-vip type bridge", "link set weir-vip up", "addr add 198.18.0.11/32 dev weir-vip")
	fleet(api.NetworkAuto, []*node{w.a, w.b}, [][]netip.Addr{addrs("192.0.2.1"), addrs("192.0.2.2")})
	w.outside.script("route add 198.18.0.0/15 via 192.0.2.1")
	w.a.container(map[string][]string{"web": {"10.128.1.11"}}, Port{Protocol: api.TCP, Host: 8080, To: netip.MustParseAddrPort("10.128.1.11:1")}).serve(1)
	w.a.serve(8080, mustAddr("192.0.2.1")) // TCP of all addresses: stands for the VIP's own backends
	for _, vip := range []string{"198.18.0.10:8080", "198.18.0.11:8080"} {
		if seen, err := w.outside.ask("tcp", vip, 5*time.Second); err != nil || seen != "192.0.2.3" {
			t.Errorf("%s: %q, %v", vip, seen, err)
		}
	}
	if held := w.a.run("nft", "list", "set", "inet", "weir-containers", "own4"); strings.Contains(held, "198.18.") {
		t.Errorf("a virtual address is among those with published ports: %s", held)
	}
}

func TestForwardingSurvivesAPolicyToDrop(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"nft", "legacy"} {
		t.Run(kind, func(t *testing.T) {
			if _, err := exec.LookPath("iptables-" + kind); err != nil {
				t.Skip(err)
			}
			w := sameLink(t)
			for _, command := range []string{"iptables-" + kind, "ip6tables-" + kind} {
				if out, err := w.a.try(command, "-P", "FORWARD", "DROP"); err != nil {
					t.Skipf("this kernel has no such tables: %s", out)
				}
			}
			fleet(api.NetworkAuto, []*node{w.a, w.b}, [][]netip.Addr{addrs("192.0.2.1", "2001:db8::1"), addrs("192.0.2.2", "2001:db8::2")})
			c := w.a.container(map[string][]string{"web": {"10.128.1.11", "fd01:b::1:0:0:11"}}, Port{Protocol: api.TCP, Host: 8080, To: netip.MustParseAddrPort("10.128.1.11:80")})
			c.serve(80)
			w.b.serve(80)
			check := func() {
				t.Helper()
				w.b.sees("another node", "[fd01:b::1:0:0:11]:80", "2001:db8::2")
				c.sees("the container", "192.0.2.2:80", "")
				if seen, err := w.outside.ask("tcp", "192.0.2.1:8080", 8*time.Second); err != nil || seen != "192.0.2.3" {
					t.Errorf("the published port: %q, %v", seen, err)
				}
			}
			check()
			w.a.run("iptables-"+kind, "-F", "FORWARD")
			if repaired := w.a.set(); repaired.Repaired != 2 {
				t.Errorf("after FORWARD was flushed: %+v", repaired)
			}
			check()
			w.a.do(func() {
				if _, err := Cleanup(); err != nil {
					t.Error(err)
				}
			})
			if held := w.a.run("iptables-"+kind, "-S", "FORWARD"); strings.Contains(held, "weir") {
				t.Errorf("after cleanup: %s", held)
			}
		})
	}
}

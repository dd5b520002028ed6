package container

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// world is two nodes, and somebody outside who knows none of the containers'
// addresses.
type world struct {
	a, b    *node
	outside *space
	router  *space
}

// sameLink has all on one switch.
func sameLink(t *testing.T) *world {
	w := &world{a: newNode(t, "a"), b: newNode(t, "b"), outside: newSpace(t), router: newSpace(t)}
	w.router.script("link add br0 type bridge", "link set br0 up")
	for i, s := range []*space{w.a.space, w.b.space, w.outside} {
		wire(s, "up0", w.router, fmt.Sprintf("p%d", i))
		w.router.script(fmt.Sprintf("link set p%d master br0", i))
		s.script(fmt.Sprintf("addr add 192.0.2.%d/24 dev up0", i+1), fmt.Sprintf("addr add 2001:db8::%d/64 dev up0 nodad", i+1))
	}
	return w
}

// routed has each on a link of its own, with a router between them that knows
// no containers.
func routed(t *testing.T) *world {
	w := &world{a: newNode(t, "a"), b: newNode(t, "b"), outside: newSpace(t), router: newSpace(t)}
	w.router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	for i, s := range []*space{w.a.space, w.b.space, w.outside} {
		wire(s, "up0", w.router, fmt.Sprintf("p%d", i))
		w.router.script(fmt.Sprintf("addr add 198.51.%d.254/24 dev p%d", i+1, i), fmt.Sprintf("addr add 2001:db8:%d::fe/64 dev p%d nodad", i+1, i))
		s.script(fmt.Sprintf("addr add 198.51.%d.1/24 dev up0", i+1), fmt.Sprintf("addr add 2001:db8:%d::1/64 dev up0 nodad", i+1),
			fmt.Sprintf("route add default via 198.51.%d.254", i+1), fmt.Sprintf("-6 route add default via 2001:db8:%d::fe", i+1))
	}
	return w
}

func (w *world) checkTraffic(t *testing.T, a, b, outside []netip.Addr) {
	t.Helper()
	publish := func(host uint16, to string) Port {
		return Port{Protocol: api.TCP, Host: host, To: netip.MustParseAddrPort(to)}
	}
	both := func(p Port) []Port { q := p; q.Protocol = api.UDP; return []Port{p, q} }
	a1 := w.a.container(map[string][]string{"web": {"10.128.1.11", "fd01:b::1:0:0:11"}}, append(both(publish(8081, "10.128.1.11:80")), both(publish(8081, "[fd01:b::1:0:0:11]:80"))...)...)
	a2 := w.a.container(map[string][]string{"web": {"10.128.1.12", "fd01:b::1:0:0:12"}})
	b1 := w.b.container(map[string][]string{"web": {"10.128.2.11", "fd01:b::2:0:0:11"}})
	l1 := w.a.container(map[string][]string{"bridge": {"172.31.254.11", "fd77:6562:7200::11"}}, append(both(publish(8082, "172.31.254.11:80")), both(publish(8082, "[fd77:6562:7200::11]:80"))...)...)
	two := w.b.container(map[string][]string{"bridge": {"172.31.254.12"}, "web": {"10.128.2.12"}})
	for _, s := range []*space{a1, a2, b1, l1, two, w.outside} {
		s.serve(80)
	}
	w.a.serve(9000, a...)
	w.b.serve(9000, b...)
	at := func(a netip.Addr, port int) string { return netip.AddrPortFrom(a, uint16(port)).String() }

	for i, family := range []struct{ a1, a2, b1, l1 string }{
		{"10.128.1.11", "10.128.1.12", "10.128.2.11", "172.31.254.11"},
		{"fd01:b::1:0:0:11", "fd01:b::1:0:0:12", "fd01:b::2:0:0:11", "fd77:6562:7200::11"},
	} {
		to := func(a string) string { return at(netip.MustParseAddr(a), 80) }
		a2.sees("container to one on its node", to(family.a1), family.a2)
		a2.sees("container to one on another node", to(family.b1), family.a2)
		b1.sees("and back", to(family.a2), family.b1)
		w.a.sees("node to its container", to(family.a1), "")
		w.b.sees("node to another's container", to(family.a1), b[i].String())
		a1.sees("container to its node", at(a[i], 9000), family.a1)
		a1.sees("container to another node", at(b[i], 9000), family.a1)
		a1.sees("container to the world", at(outside[i], 80), a[i].String())
		l1.sees("local container to the world", at(outside[i], 80), a[i].String())
		l1.sees("local container to another node", at(b[i], 9000), a[i].String())
		l1.sees("local container to the network on its node", to(family.a1), family.l1)
		l1.sees("local container to the network on another node", to(family.b1), "")
		w.outside.sees("the world to a published port", at(a[i], 8081), outside[i].String())
		w.outside.sees("the world to a published port of a local container", at(a[i], 8082), outside[i].String())
		w.b.sees("node to another's published port", at(a[i], 8082), b[i].String())
		w.a.sees("node to its own published port", at(a[i], 8081), a[i].String())
		a1.sees("container to itself by the node's port", at(a[i], 8081), "")
		a2.sees("container to its neighbour by the node's port", at(a[i], 8081), "")
		l1.sees("local container to itself by the node's port", at(a[i], 8082), "")
		b1.sees("container to another node's published port", at(a[i], 8081), family.b1)
	}
	two.sees("container in two networks, by the second", at(netip.MustParseAddr("10.128.1.11"), 80), "10.128.2.12")
	two.sees("container in two networks, by the first", at(outside[0], 80), b[0].String())
	if seen, err := w.outside.ask("tcp", at(a[0], 8083), time.Second); err == nil {
		t.Errorf("a port that nobody published answers %q", seen)
	}
}

func TestContainersReachAllTheyShallOnOneLink(t *testing.T) {
	t.Parallel()
	for _, mode := range []api.NetworkMode{api.NetworkAuto, api.NetworkVXLAN} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			w := sameLink(t)
			a, b, outside := addrs("192.0.2.1", "2001:db8::1"), addrs("192.0.2.2", "2001:db8::2"), addrs("192.0.2.3", "2001:db8::3")
			fleet(mode, []*node{w.a, w.b}, [][]netip.Addr{a, b})
			w.checkTraffic(t, a, b, outside)
			if held := w.a.run("ip", "-d", "link"); strings.Contains(held, "vxlan") != (mode == api.NetworkVXLAN) {
				t.Errorf("mode %s on one link: %s", mode, held)
			}
		})
	}
}

func TestContainersReachAllTheyShallThroughTunnels(t *testing.T) {
	t.Parallel()
	w := routed(t)
	a, b, outside := addrs("198.51.1.1", "2001:db8:1::1"), addrs("198.51.2.1", "2001:db8:2::1"), addrs("198.51.3.1", "2001:db8:3::1")
	fleet(api.NetworkAuto, []*node{w.a, w.b}, [][]netip.Addr{a, b})
	w.checkTraffic(t, a, b, outside)
	if plain, tunnelled, _ := w.a.sink.Ways(); plain != 0 || tunnelled != 1 {
		t.Errorf("%d peers by routes and %d by tunnels, want 0 and 1", plain, tunnelled)
	}
}

package program

import (
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// counted are the counters of a service's backend.
func counted(t *testing.T, b *Balancer, s *dataplane.Service, backend int) dataplane.BackendCounters {
	t.Helper()
	all, err := b.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return all.Services[s.Name].Backends[s.Backends[backend].Address]
}

// only makes the service use the backends of the indexes; the state is that of
// the others.
func only(s *dataplane.Service, state api.BackendState, slots ...uint32) *dataplane.Service {
	c := copyOf(s)
	for i := range c.Backends {
		c.Backends[i].State = state
	}
	for _, i := range slots {
		c.Backends[i].State = api.Up
	}
	c.Slots = slots
	return c
}

// eachEnding runs the test with the socket iterators and with sock_diag.
func eachEnding(t *testing.T, test func(t *testing.T, l *lab, b *Balancer)) {
	for _, way := range []string{"iterator", "sock_diag"} {
		t.Run(way, func(t *testing.T) {
			l := newLab(t)
			b := l.open()
			if way == "sock_diag" {
				if err := b.reset.close(); err != nil {
					t.Fatal(err)
				}
			} else if len(b.reset.iterators) == 0 {
				t.Skip("no bpf_sock_destroy here: it takes Linux 6.5")
			}
			test(t, l, b)
		})
	}
}

func TestSocketsOfALostBackendEndAtOnce(t *testing.T) {
	eachEnding(t, func(t *testing.T, l *lab, b *Balancer) {
		web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80")
		dns := service("dns/udp/4", api.UDP, "198.18.0.10:53", "10.80.0.11:53", "10.80.0.12:53")
		six := service("six/tcp/6", api.TCP, "[fd77:6569:7200::10]:80", "[fd00::11]:80", "[fd00::12]:80")
		l.serve(web, dns, six)
		first := table(only(dns, api.Up, 0), only(six, api.Up, 0), only(web, api.Up, 0))
		set(t, b, first)
		open := func(network string, target netip.AddrPort, mapped bool) int {
			return l.client.must(request{Op: "dial", Network: network, Target: target, Keep: true, Mapped: mapped})[0].Socket
		}
		sockets := map[string]int{
			"tcp": open("tcp", web.Frontends[0], false), "udp": open("udp", dns.Frontends[0], false),
			"tcp over IPv6": open("tcp", six.Frontends[0], false), "tcp in an IPv6 socket": open("tcp", web.Frontends[0], true),
		}
		direct := open("tcp", web.Backends[0].Address, false)
		if n := counted(t, b, web, 0).Open; n != 2 {
			t.Errorf("%d connections count as open, want 2", n)
		}
		// Draining keeps them, down and gone end them.
		set(t, b, table(only(dns, api.Draining, 1), only(six, api.Draining, 1), only(web, api.Draining, 1)))
		for name, fd := range sockets {
			if o := l.client.do(request{Op: "dial", Socket: fd, Keep: true})[0]; o.Err != "" {
				t.Errorf("%s to a draining backend: %s", name, o.Err)
			}
		}
		webGone := only(web, api.Up, 1)
		webGone.Backends, webGone.Slots = webGone.Backends[1:], []uint32{0}
		set(t, b, table(only(dns, api.Down, 1), only(six, api.Down, 1), webGone))
		for name, fd := range sockets {
			if o := l.client.do(request{Op: "read", Socket: fd})[0]; o.Errno != int(syscall.ECONNABORTED) {
				t.Errorf("%s to a lost backend: read gives %+v, want ECONNABORTED", name, o)
			}
			l.client.must(request{Op: "close", Socket: fd})
		}
		if o := l.client.do(request{Op: "dial", Socket: direct})[0]; o.Err != "" {
			t.Errorf("a connection that did not come through the VIP: %s", o.Err)
		}
		if got := counted(t, b, dns, 0); got.Reset != 1 || got.Open != 0 {
			t.Errorf("the lost udp backend counts %+v, want 1 reset and none open", got)
		}
		spread(t, l.dial("udp", "198.18.0.10:53", 2))
		spread(t, l.dial("tcp", "198.18.0.10:80", 2))
	})
}

// A socket in another network namespace below the cgroup is found as well.
func TestSocketsInOtherNamespacesEndToo(t *testing.T) {
	eachEnding(t, func(t *testing.T, l *lab, b *Balancer) {
		other := newChild(t, l.cgroup)
		other.must(request{Op: "addr", Addresses: []string{"10.80.0.11/32", "10.80.0.12/32"}})
		web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80")
		for _, backend := range web.Backends {
			other.must(request{Op: "serve", Network: "tcp", Listen: backend.Address})
		}
		set(t, b, table(only(web, api.Up, 0)))
		fd := other.must(request{Op: "dial", Network: "tcp", Target: web.Frontends[0], Keep: true})[0].Socket
		set(t, b, table(only(web, api.Down, 1)))
		if o := other.do(request{Op: "read", Socket: fd})[0]; o.Errno != int(syscall.ECONNABORTED) {
			t.Errorf("read gives %+v, want ECONNABORTED", o)
		}
	})
}

func TestNoMoreConnectionsThanAllowed(t *testing.T) {
	l := newLab(t)
	b := l.open()
	web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80")
	dns := service("dns/udp/4", api.UDP, "198.18.0.10:53", "10.80.0.11:53")
	l.serve(web, dns)
	set(t, b, table(dns, web))
	keep := request{Op: "dial", Network: "tcp", Target: web.Frontends[0], Keep: true}
	sockets := []int{l.client.must(keep)[0].Socket}
	// The limit comes when one is open already.
	limited, narrow := copyOf(web), copyOf(dns)
	limited.MaxConnections, narrow.MaxConnections = 3, 1
	set(t, b, table(narrow, limited))
	for range 2 {
		sockets = append(sockets, l.client.must(keep)[0].Socket)
	}
	for range 2 {
		if o := l.client.do(keep)[0]; o.Errno != int(syscall.ECONNREFUSED) {
			t.Errorf("the fourth connection: got %+v, want it refused", o)
		}
	}
	l.client.must(request{Op: "close", Socket: sockets[0]})
	spread(t, l.dial("tcp", "198.18.0.10:80", 5)) // each is closed again
	all, err := b.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if got := all.Services[web.Name]; got.Limited != 2 || got.Refused != 0 {
		t.Errorf("got %d limited and %d refused, want 2 and 0", got.Limited, got.Refused)
	}
	send := request{Op: "send", Network: "udp", Target: dns.Frontends[0], Keep: true}
	first := l.client.must(send)[0].Socket
	if o := l.client.do(send)[0]; o.Errno != int(syscall.ECONNREFUSED) {
		t.Errorf("the second udp socket: got %+v, want it refused", o)
	}
	again := send
	again.Socket = first
	l.client.must(again)
	l.client.must(request{Op: "close", Socket: first})
	l.client.must(send)
	set(t, b, table(dns, web))
	for range 5 {
		l.client.must(keep)
	}
}

func TestFailedConnectionsOfWatchedServicesAreCounted(t *testing.T) {
	l := newLab(t)
	b := l.open()
	web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80") // nobody listens there
	set(t, b, table(web))
	l.dial("tcp", "198.18.0.10:80", 3)
	if n := counted(t, b, web, 0).Failures; n != 0 {
		t.Errorf("%d failures of a service that is not watched", n)
	}
	watched := copyOf(web)
	watched.Watch = true
	if c := set(t, b, table(watched)); c.Written != 2 {
		t.Errorf("watching: got %+v, want the record and a link written", c)
	}
	l.dial("tcp", "198.18.0.10:80", 3)
	if got := counted(t, b, web, 0); got.Failures != 3 || got.Open != 0 {
		t.Errorf("got %+v, want 3 failures and none open", got)
	}
	l.serve(web)
	spread(t, l.dial("tcp", "198.18.0.10:80", 5))
	if n := counted(t, b, web, 0).Failures; n != 3 {
		t.Errorf("%d failures after connections that opened, want 3 as before", n)
	}
	if c := set(t, b, table(web)); c.Written != 1 || c.Removed != 1 {
		t.Errorf("watching no more: got %+v, want the record written and the link removed", c)
	}
	r, err := link.QueryPrograms(link.QueryOptions{Target: openCgroup(t, l.cgroup), Attach: watchHook.attach})
	if err != nil || len(r.Programs) != 0 {
		t.Errorf("attached although nobody is watched: %v, %v", r, err)
	}
}

func TestConnectionsAreListedWithTheirProcesses(t *testing.T) {
	l := newLab(t)
	b := l.open()
	web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
	dns := service("dns/udp/4", api.UDP, "198.18.0.10:53", "10.80.0.11:53")
	l.serve(web, dns)
	set(t, b, table(dns, web))
	l.client.must(request{Op: "dial", Network: "tcp", Target: web.Frontends[0], Keep: true})
	l.client.must(request{Op: "dial", Network: "tcp", Target: web.Backends[0].Address, Keep: true})
	l.client.must(request{Op: "send", Network: "udp", Target: dns.Frontends[0], Keep: true})
	all, err := b.Connections()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b dataplane.Connection) int { return strings.Compare(a.Service, b.Service) })
	if len(all) != 2 {
		t.Fatalf("got %+v, want two connections", all)
	}
	for i, want := range []*dataplane.Service{dns, web} {
		c := all[i]
		if c.Service != want.Name || c.Frontend != want.Frontends[0] || c.Backend != want.Backends[0].Address ||
			c.Protocol != want.Protocol || c.Process != l.client.command.Process.Pid || c.Command == "" || c.Client.Port() == 0 {
			t.Errorf("got %+v, want one of %s", c, want.Name)
		}
	}
	if all[1].State != "established" {
		t.Errorf("the tcp connection is %q", all[1].State)
	}
}

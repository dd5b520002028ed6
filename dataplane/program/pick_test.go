package program

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

func TestP2CPrefersTheBackendWithFewerConnections(t *testing.T) {
	l := newLab(t)
	b := l.open()
	web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80", "10.80.0.13:80")
	web.Balance = api.P2C
	l.serve(web)
	set(t, b, table(only(web, api.Up, 0)))
	keep := request{Op: "dial", Network: "tcp", Target: web.Frontends[0], Keep: true}
	for range 30 {
		l.client.must(keep)
	}
	set(t, b, table(web))
	got := map[string]int{}
	for range 40 {
		got[l.client.must(keep)[0].server()]++
	}
	// The busy one wins only when both draws are its own slot: 1/9 of the time.
	if got["10.80.0.11:80"] > 14 || got["10.80.0.12:80"] < 8 || got["10.80.0.13:80"] < 8 {
		t.Errorf("got %v, want the backend with 30 connections spared", got)
	}
}

// A slow backend keeps its connections open for longer, and so gets fewer.
func TestP2CGivesASlowBackendLess(t *testing.T) {
	l := newLab(t)
	b := l.open()
	web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80", "10.80.0.13:80")
	web.Balance = api.P2C
	l.serve(web)
	set(t, b, table(web))
	got, open := map[string]int{}, []int{}
	for range 300 {
		o := l.client.must(request{Op: "dial", Network: "tcp", Target: web.Frontends[0], Keep: true})[0]
		got[o.server()]++
		if o.server() != "10.80.0.11:80" {
			l.client.must(request{Op: "close", Socket: o.Socket})
			continue
		}
		if open = append(open, o.Socket); len(open) > 10 {
			l.client.must(request{Op: "close", Socket: open[0]})
			open = open[1:]
		}
	}
	if fair := 100; got["10.80.0.11:80"] > fair/3+15 {
		t.Errorf("got %v: the backend that is ten times slower has more than a third of its share", got)
	}
}

func TestAffinityByNamespaceIgnoresWhatSocketsBind(t *testing.T) {
	l := newLab(t)
	b := l.open()
	web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80", "10.80.0.13:80", "10.80.0.14:80")
	web.Affinity, web.AffinityBy = time.Minute, api.ByNamespace
	l.serve(web)
	set(t, b, table(web))
	got := map[string]bool{}
	for _, bind := range []string{"10.80.0.99", "10.80.0.14", "10.80.0.13", "10.80.0.12", "10.80.0.11"} {
		for range 4 {
			got[l.client.must(request{Op: "dial", Network: "tcp", Target: web.Frontends[0], Bind: netip.MustParseAddr(bind)})[0].server()] = true
		}
	}
	if len(got) != 1 {
		t.Errorf("one namespace used %v", got)
	}
}

func TestMPTCPSocketsAreBalanced(t *testing.T) {
	l := newLab(t)
	b := l.open()
	web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
	six := service("six/tcp/6", api.TCP, "[fd77:6569:7200::10]:80", "[fd00::11]:80")
	l.serve(web, six)
	set(t, b, table(six, web))
	for _, target := range []netip.AddrPort{web.Frontends[0], six.Frontends[0]} {
		o := l.client.do(request{Op: "dial", Network: "tcp", Target: target, MPTCP: true})[0]
		if o.Errno == int(syscall.EPROTONOSUPPORT) {
			t.Skip("no MPTCP here")
		}
		if o.Err != "" || o.server() == "" {
			t.Errorf("%s: got %+v", target, o)
		}
	}
}

// A virtual address is nobody's own, so it cannot be a source.
func TestVIPsCannotBeBound(t *testing.T) {
	l := newLab(t)
	b := l.open()
	web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
	set(t, b, table(web))
	for _, network := range []string{"tcp", "udp"} {
		if o := l.client.do(request{Op: "bind", Network: network, Bind: netip.MustParseAddr("198.18.0.10")})[0]; o.Errno != int(syscall.EADDRNOTAVAIL) {
			t.Errorf("%s: got %+v, want EADDRNOTAVAIL", network, o)
		}
	}
}

package program

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane/internal/bulk"
)

// places counts the places of a map that belong to a socket.
func places(t *testing.T, m *ebpf.Map) (taken int) {
	t.Helper()
	var cursor ebpf.MapBatchCursor
	keys, values := make([]uint32, m.MaxEntries()), make([]bpf.BalancePeer, m.MaxEntries())
	n, _ := m.BatchLookup(&cursor, keys, values, nil)
	for _, p := range values[:n] {
		if p.Cookie != 0 {
			taken++
		}
	}
	return taken
}

func TestClosedSocketsLeaveNothingBehind(t *testing.T) {
	l := newLab(t)
	web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
	dns := service("dns/udp/4", api.UDP, "198.18.0.10:53", "10.80.0.11:53")
	l.serve(web, dns)
	b := l.open()
	set(t, b, table(dns, web))
	open := l.client.must(request{Op: "dial", Network: "tcp", Target: web.Frontends[0], Keep: true})[0]
	if n := places(t, b.maps[bpf.BalanceMapPeers]); n != 1 {
		t.Errorf("one open connection takes %d places", n)
	}
	l.dial("tcp", "198.18.0.10:80", 50)
	l.dial("udp", "198.18.0.10:53", 50)
	l.client.must(request{Op: "send", Network: "udp", Target: dns.Frontends[0], Count: 50})
	l.client.must(request{Op: "close", Socket: open.Socket})
	for _, name := range []string{bpf.BalanceMapPeers, bpf.BalanceMapCorrespondents} {
		if n := places(t, b.maps[name]); n != 0 {
			t.Errorf("%s: closed sockets take %d places", name, n)
		}
	}
}

// With every place taken by other sockets, nothing may look different.
func TestSocketsWithoutAPlaceAreRememberedToo(t *testing.T) {
	l := newLab(t)
	web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
	dns := service("dns/udp/4", api.UDP, "198.18.0.10:53", "10.80.0.11:53", "10.80.0.12:53")
	l.serve(web, dns)
	b := l.open()
	set(t, b, table(dns, web))
	for _, name := range []string{bpf.BalanceMapPeers, bpf.BalanceMapCorrespondents} {
		m := b.maps[name]
		keys, values := make([]uint32, m.MaxEntries()), make([]bpf.BalancePeer, m.MaxEntries())
		for i := range keys {
			keys[i], values[i].Cookie = uint32(i), 1<<63
		}
		if _, err := m.BatchUpdate(keys, values, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []request{
		{Op: "dial", Network: "tcp", Target: web.Frontends[0]},
		{Op: "dial", Network: "udp", Target: dns.Frontends[0]},
		{Op: "send", Network: "udp", Target: dns.Frontends[0]},
	} {
		var socket int
		for range 3 {
			o := l.client.must(request{Op: r.Op, Network: r.Network, Target: r.Target, Keep: true})[0]
			if o.Peer != r.Target.String() {
				t.Errorf("%s %s: the peer is %s, want %s", r.Op, r.Network, o.Peer, r.Target)
			}
			if socket = o.Socket; r.Network == "tcp" {
				l.client.must(request{Op: "close", Socket: socket})
				continue
			}
			again := l.client.must(request{Op: r.Op, Network: r.Network, Target: r.Target, Socket: socket})[0]
			if again.Peer != r.Target.String() || r.Op == "send" && again.server() != o.server() {
				t.Errorf("%s %s on the same socket: %+v, then %+v", r.Op, r.Network, o, again)
			}
		}
	}
	for _, name := range []string{bpf.BalanceMapDisplacedPeers, bpf.BalanceMapDisplacedCorrespondents} {
		left, err := bulk.Hash[uint64, bpf.BalancePeer](b.maps[name])
		if err != nil || len(left) != 0 {
			t.Errorf("%s: %d held after the sockets were closed, %v", name, len(left), err)
		}
	}
	var counted bpf.BalanceDisplaced
	if err := b.maps[bpf.BalanceMapDisplaced].Lookup(uint32(0), &counted); err != nil || counted != (bpf.BalanceDisplaced{}) {
		t.Errorf("%+v counted after the sockets were closed, %v", counted, err)
	}
	if n, err := b.reason(bpf.BalanceReasonREASON_UNREMEMBERED); n != 0 || err != nil {
		t.Errorf("%d connections were not remembered, %v", n, err)
	}
	// A plain connection still shows its own peer.
	if o := l.client.must(request{Op: "dial", Network: "tcp", Target: netip.MustParseAddrPort("10.80.0.11:80")})[0]; o.Peer != "10.80.0.11:80" {
		t.Errorf("a plain connection: %+v", o)
	}
}

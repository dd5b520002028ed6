package trace

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/sinktest"
	"github.com/weirproject/weir/dataplane/program"
)

func TestAFlowHasItsVIPAndBackend(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	cgroup, pins := newCgroup(t), filepath.Join(sinktest.BPFFS(t), "weir")
	b, err := program.New(program.Options{PinDir: pins, Cgroup: cgroup})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Close()
		if _, err := program.Cleanup(pins); err != nil {
			t.Error(err)
		}
	})
	l := echo(t, "127.0.0.1:8080")
	backend := netip.MustParseAddrPort(l.Addr().String())
	if _, err := b.Set(context.Background(), serve(backend)); err != nil {
		t.Fatal(err)
	}
	enter(t, cgroup)
	w := watch(t, Options{Cgroup: cgroup, PinDir: pins})
	dialAndClose(t, "198.18.0.10:80")
	vip := netip.MustParseAddrPort("198.18.0.10:80")
	f := w.flow("the connection", func(f *Flow) bool { return f.VIP == vip && !f.Ended.IsZero() })
	if f.Remote != backend || f.Opened.IsZero() {
		t.Errorf("got %+v", *f)
	}
	// What the virtual address does not serve is refused at the call.
	if c, err := net.Dial("tcp", "198.18.0.10:81"); err == nil {
		c.Close()
	}
	r := w.flow("the refusal", func(f *Flow) bool { return f.Remote.String() == "198.18.0.10:81" })
	if r.Fault != syscall.ECONNREFUSED || r.Unsent || r.Ended.IsZero() {
		t.Errorf("got %+v", *r)
	}
}

// serve is a table of one VIP with one backend.
func serve(backend netip.AddrPort) dataplane.Table {
	return dataplane.Table{
		Ranges: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")},
		Services: []*dataplane.Service{{
			Name: "web.shop/tcp/4", Protocol: api.TCP, Balance: api.Random, AffinityBy: api.ByAddress,
			Frontends: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.10:80")},
			Backends:  []dataplane.Backend{{Address: backend, Weight: 1, State: api.Up}}, Slots: []uint32{0},
		}},
	}
}

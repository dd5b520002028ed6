package deliver

import (
	"context"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/edge"
	"github.com/weirproject/weir/dataplane/internal/sinktest"
)

// TestTheEdgeProgramAndWeAgree has the real edge program make the tunnels.
func TestTheEdgeProgramAndWeAgree(t *testing.T) {
	r := newRigWithoutEdge(t)
	// A veth device takes redirected frames only while its peer polls.
	r.node.offload("n0", 1, setGRO)
	r.everythingInEveryMode()
}

// The edge node has the backends itself.
func TestTheEdgeProgramAndWeAgreeOnOneNode(t *testing.T) {
	r := newRigWithoutEdge(t)
	r.node = r.edge // from here on
	r.table = dataplane.DeliveryTable{
		Interfaces: []string{"e0"}, Edges: []netip.Addr{edge4, edge6},
		Services: []*dataplane.EdgeService{
			service("web/tcp/4", api.TCP, vip4, ap("10.80.0.31:8080"), edge4),
			service("web/tcp/6", api.TCP, vip6, ap("[fd00:80::31]:8080"), edge6),
			service("web/udp/4", api.UDP, vip4, ap("10.80.0.31:8080"), edge4),
			service("web/udp/6", api.UDP, vip6, ap("[fd00:80::31]:8080"), edge6),
		},
	}
	r.d = open(t, newOptions(t))
	r.set()
	r.serveTCP("10.80.0.31:8080", "[fd00:80::31]:8080")
	r.serveUDP("10.80.0.31:8080", "[fd00:80::31]:8080")
	r.everythingInEveryMode()
	if c := counters(t, r.d); c.Delivered == 0 || c.Answered == 0 {
		t.Errorf("got %+v, want packets delivered and answered", c)
	}
}

func (r *rig) everythingInEveryMode() {
	r.t.Helper()
	e, err := edge.New(edge.Options{PinDir: filepath.Join(sinktest.BPFFS(r.t), "edge")})
	if err != nil {
		r.t.Fatal(err)
	}
	defer e.Close()
	// The edge program asks the kernel for neighbours, which it must know.
	r.edge.must(func() error { return ping("10.80.0.11:9", "[fd00:80::11]:9") })
	for _, mode := range []dataplane.AttachMode{dataplane.AttachTCX, dataplane.AttachGeneric, dataplane.AttachNative} {
		table := dataplane.EdgeTable{
			Interfaces: map[string]dataplane.AttachMode{"e0": mode}, Source4: edge4, Source6: edge6, Services: r.table.Services,
		}
		r.edge.must(func() error {
			_, err := e.Set(context.Background(), table)
			return err
		})
		r.t.Logf("the edge program is attached as %s", mode)
		r.everything()
	}
}

func (r *rig) everything() {
	r.t.Helper()
	for _, vip := range []netip.AddrPort{vip4, vip6} {
		r.requests(vip, 50, 100, 100)
		r.requests(vip, 1, 1<<20, 1<<20)
		r.client.must(func() error { return exchange(vip, 50, 400) })
	}
	r.checkSums()
}

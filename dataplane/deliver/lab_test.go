package deliver

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/sinktest"
	"github.com/weirproject/weir/testenv"
)

var (
	edge4, node4 = netip.MustParseAddr("10.80.0.31"), netip.MustParseAddr("10.80.0.11")
	edge6, node6 = netip.MustParseAddr("fd00:80::31"), netip.MustParseAddr("fd00:80::11")
	vip4, vip6   = ap("198.18.0.10:80"), ap("[fd77:6569:7200::10]:80")
	back4, back6 = ap("10.80.0.11:8080"), ap("[fd00:80::11]:8080")
	cli4, cli6   = ap("203.0.113.9:40000"), ap("[2001:db8::9]:40000")
	tcp, udp     = uint8(unix.IPPROTO_TCP), uint8(unix.IPPROTO_UDP)
)

func service(name string, p api.Protocol, vip, backend netip.AddrPort, node netip.Addr) *dataplane.EdgeService {
	return &dataplane.EdgeService{
		Name: name, Protocol: p, Frontends: []netip.AddrPort{vip}, Deliver: api.DSR, Slots: []uint32{0},
		Backends: []dataplane.EdgeBackend{{Address: backend, Node: node, State: api.Up}},
	}
}

// table has tunnels of both families for services of both.
func table(interfaces ...string) dataplane.DeliveryTable {
	return dataplane.DeliveryTable{
		Interfaces: interfaces,
		Edges:      []netip.Addr{edge4, edge6},
		Services: []*dataplane.EdgeService{
			service("dns/udp/4", api.UDP, vip4, back4, node4),
			service("dns/udp/6", api.UDP, vip6, back6, node6),
			service("web/tcp/4", api.TCP, vip4, back4, node4),
			service("web/tcp/6", api.TCP, vip6, back6, node6),
		},
	}
}

func newOptions(t testing.TB) Options {
	t.Helper()
	testenv.NeedBPF(t)
	o := Options{PinDir: filepath.Join(sinktest.BPFFS(t), "weir", "deliver"), Flows: 4096, Targets: 1024}
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return o
}

func open(t testing.TB, o Options) *Deliverer {
	t.Helper()
	d, err := New(o)
	if err != nil {
		t.Fatalf("New: %+v", err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func set(t testing.TB, d *Deliverer, table dataplane.DeliveryTable) dataplane.Changes {
	t.Helper()
	c, err := d.Set(context.Background(), table)
	if err != nil {
		t.Fatalf("Set: %v", err)
	}
	return c
}

const (
	tcxNext = 0xffffffff
	tcxDrop = 2
)

// run runs a program on one frame and gives its word and the frame.
func run(t testing.TB, d *Deliverer, program string, in []byte) (uint32, []byte) {
	t.Helper()
	word, out, err := d.programs.Programs[program].Test(in)
	if err != nil {
		t.Fatalf("run %s: %v", program, err)
	}
	return word, out
}

func ingress(t testing.TB, d *Deliverer, in []byte) (uint32, []byte) {
	t.Helper()
	return run(t, d, bpf.DeliverProgWeirDeliver, in)
}

func egress(t testing.TB, d *Deliverer, in []byte) (uint32, []byte) {
	t.Helper()
	return run(t, d, bpf.DeliverProgWeirAnswer, in)
}

func counters(t testing.TB, d *Deliverer) Counters {
	t.Helper()
	c, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sharedDeliverer spares a test that looks at differences alone the loading.
func sharedDeliverer(t testing.TB) *Deliverer {
	t.Helper()
	testenv.NeedBPF(t)
	shared.once.Do(func() {
		dir, err := os.MkdirTemp("", "weir-deliver-")
		if err != nil {
			return
		}
		if shared.err = unix.Mount("bpf", dir, "bpf", 0, ""); shared.err != nil {
			return
		}
		shared.d, shared.err = New(Options{PinDir: filepath.Join(dir, "deliver"), Flows: 4096, Targets: 1024})
		if shared.err == nil {
			_, shared.err = shared.d.Set(context.Background(), table())
		}
		// The maps live as long as this process holds them; no pin is left.
		unix.Unmount(dir, unix.MNT_DETACH)
		os.Remove(dir)
	})
	if shared.err != nil {
		t.Fatalf("open the shared deliverer: %v", shared.err)
	}
	return shared.d
}

var shared struct {
	once sync.Once
	d    *Deliverer
	err  error
}

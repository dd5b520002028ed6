package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/testenv"
)

// newBPFFS mounts one that nobody else sees by name; a mount of bpf is an instance
// of its own.
func newBPFFS(t testing.TB) string {
	t.Helper()
	testenv.NeedBPF(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return filepath.Join(dir, "edge")
}

// hops lead everywhere by one hop, but to the addresses that it does not know.
type hops struct {
	hop     Hop
	unknown map[netip.Addr]bool
}

func (h hops) NextHop(to netip.Addr) (Hop, error) {
	if h.unknown[to] {
		return Hop{}, errors.New("not known")
	}
	return h.hop, nil
}

// loopback is the index of the interface on which test runs' packets arrive.
const loopback = 1

var testHop = Hop{Interface: loopback, Source: edgeMAC, Destination: hopMAC, MTU: 1500}

func testOptions(t testing.TB, dir string) Options {
	o := Options{PinDir: dir, Hops: hops{hop: testHop}, Sizes: Sizes{
		Services: 64, Frontends: 128, Backends: 256, Slots: 8192, Hops: 16, Flows: 1024, Fragments: 64, QUIC: 256, Allowed: 64,
	}}
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return o
}

func open(t testing.TB, o Options) *Edge {
	t.Helper()
	e, err := New(o)
	if err != nil {
		var verifier *ebpf.VerifierError
		if errors.As(err, &verifier) {
			t.Logf("%+v", verifier)
		}
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func newEdge(t testing.TB) *Edge {
	t.Helper()
	return open(t, testOptions(t, newBPFFS(t)))
}

func set(t testing.TB, e *Edge, table dataplane.EdgeTable) dataplane.Changes {
	t.Helper()
	c, err := e.Set(context.Background(), table)
	if err != nil {
		t.Fatalf("Set: %v", err)
	}
	return c
}

func table(services ...*dataplane.EdgeService) dataplane.EdgeTable {
	return dataplane.EdgeTable{
		Source4: netip.MustParseAddr("10.80.0.31"), Source6: netip.MustParseAddr("fd00::31"), Services: services,
	}
}

// service makes one with the backends up, each at a node of its own, a slot each.
func service(name string, protocol api.Protocol, frontend string, backends ...string) *dataplane.EdgeService {
	s := &dataplane.EdgeService{Name: name, Protocol: protocol, Frontends: []netip.AddrPort{addr(frontend)}, Deliver: api.DSR}
	for i, b := range backends {
		s.Backends = append(s.Backends, dataplane.EdgeBackend{Address: addr(b), Node: addr(b).Addr().Next(), State: api.Up})
		s.Slots = append(s.Slots, uint32(i))
	}
	return s
}

// Verdicts of the programs.
const (
	drop, pass, transmit, redirect = "drop", "pass", "tx", "redirect"
)

// hook is a program and what its return codes mean.
type hook struct {
	program  string
	verdicts map[uint32]string
	loop     string // the verdict of what leaves by the interface that it came by
}

var hooks = map[string]hook{
	"xdp": {bpf.EdgeProgWeirEdgeXdp, map[uint32]string{1: drop, 2: pass, 3: transmit, 4: redirect}, transmit},
	"tcx": {bpf.EdgeProgWeirEdgeTcx, map[uint32]string{2: drop, 0xffffffff: pass, 7: redirect}, redirect},
}

// run sends the frame through the program of the hook.
func (h hook) run(t testing.TB, e *Edge, frame []byte) (string, []byte) {
	t.Helper()
	// The kernel takes no shorter ones in test runs; devices pad.
	if len(frame) < 14 {
		t.Fatalf("a frame of %d bytes", len(frame))
	}
	out := make([]byte, len(frame)+256)
	o := ebpf.RunOptions{Data: frame, DataOut: out, Repeat: 1}
	code, err := e.programs.Programs[h.program].Run(&o)
	if err != nil {
		t.Fatalf("run %s: %v", h.program, err)
	}
	verdict, known := h.verdicts[code]
	if !known {
		t.Fatalf("%s returned %d", h.program, code)
	}
	return verdict, o.DataOut
}

func eachHook(t *testing.T, test func(t *testing.T, h hook)) {
	for name, h := range hooks {
		t.Run(name, func(t *testing.T) { test(t, h) })
	}
}

// reasons reads the counters of reasons.
func reasons(t testing.TB, e *Edge) map[string]uint64 {
	t.Helper()
	c, err := e.Counters()
	if err != nil {
		t.Fatalf("Counters: %v", err)
	}
	return c.Reasons
}

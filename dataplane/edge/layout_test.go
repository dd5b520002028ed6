package edge

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/weirproject/weir/bpf"
)

// The Go structs must lie in memory as the C structs do.
func TestGoStructsHaveTheLayoutOfTheCStructs(t *testing.T) {
	spec, err := bpf.LoadEdge()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"frontend_key": bpf.EdgeFrontendKey{}, "edge_frontend": bpf.EdgeEdgeFrontend{}, "edge_service": bpf.EdgeEdgeService{},
		"edge_slot": bpf.EdgeEdgeSlot{}, "edge_backend": bpf.EdgeEdgeBackend{}, "edge_hop": bpf.EdgeEdgeHop{},
		"edge_config": bpf.EdgeEdgeConfig{}, "edge_allow_key": bpf.EdgeEdgeAllowKey{}, "edge_syn": bpf.EdgeEdgeSyn{},
		"edge_service_count": bpf.EdgeEdgeServiceCount{}, "edge_count": bpf.EdgeEdgeCount{}, "service_name": bpf.EdgeServiceName{},
	} {
		var c *btf.Struct
		if err := spec.Types.TypeByName(name, &c); err != nil {
			t.Errorf("struct %s: %v", name, err)
			continue
		}
		g, end := reflect.TypeOf(value), uint32(0)
		for _, m := range c.Members {
			f, found := g.FieldByNameFunc(func(s string) bool { return strings.EqualFold(s, strings.ReplaceAll(m.Name, "_", "")) })
			if !found || f.Offset != uintptr(m.Offset.Bytes()) {
				t.Errorf("struct %s: field %s is at %d in C and %d in Go (found: %v)", name, m.Name, m.Offset.Bytes(), f.Offset, found)
			}
			size, err := btf.Sizeof(m.Type)
			if err != nil {
				t.Fatal(err)
			}
			if m.Offset.Bytes() != end {
				t.Errorf("struct %s: a hole before %s; padding is explicit", name, m.Name)
			}
			end = m.Offset.Bytes() + uint32(size)
		}
		if g.Size() != uintptr(c.Size) || end != c.Size {
			t.Errorf("struct %s: Go has %d bytes, C has %d, its fields %d", name, g.Size(), c.Size, end)
		}
	}
	for name, size := range map[string]uintptr{"service": reflect.TypeFor[bpf.EdgeEdgeService]().Size(), "backend": reflect.TypeFor[bpf.EdgeEdgeBackend]().Size()} {
		if size != 64 {
			t.Errorf("a %s has %d bytes, not one cache line", name, size)
		}
	}
}

func TestLoadsWithBoundedVerifierEffort(t *testing.T) { loadsBounded(t, newEdge(t)) }

func loadsBounded(t *testing.T, e *Edge) {
	t.Helper()
	if err := e.loadNAT(); err != nil {
		t.Fatal(err)
	}
	programs := maps.Clone(e.programs.Programs)
	maps.Copy(programs, e.nat.Programs)
	for name, p := range programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, _ := info.VerifiedInstructions()
		t.Logf("%s: %d instructions verified", name, n)
		// The kernel's limit is 1,000,000. Linux 6.1 takes twice as many as 6.18.
		if n > 450000 {
			t.Errorf("%s: the verifier looked at %d instructions", name, n)
		}
	}
}

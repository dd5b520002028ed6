package deliver

import (
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// The Go structs must lie in memory as the C structs do, and keys must have no
// holes: their bytes would be anything.
func TestGoStructsHaveTheLayoutOfTheCStructs(t *testing.T) {
	spec, err := bpf.LoadDeliver()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"config": bpf.DeliverConfig{}, "tunnel_end": bpf.DeliverTunnelEnd{}, "target": bpf.DeliverTarget{},
		"flow_key": bpf.DeliverFlowKey{}, "flow": bpf.DeliverFlow{}, "count": bpf.DeliverCount{},
		"fragment_key": bpf.DeliverFragmentKey{}, "fragment": bpf.DeliverFragment{},
	} {
		var c *btf.Struct
		if err := spec.Types.TypeByName(name, &c); err != nil {
			t.Errorf("struct %s: %v", name, err)
			continue
		}
		g := reflect.TypeOf(value)
		if g.Size() != uintptr(c.Size) {
			t.Errorf("struct %s: Go has %d bytes, C has %d", name, g.Size(), c.Size)
		}
		end := uint32(0)
		for _, m := range c.Members {
			f, found := g.FieldByNameFunc(func(s string) bool { return strings.EqualFold(s, strings.ReplaceAll(m.Name, "_", "")) })
			if !found || f.Offset != uintptr(m.Offset.Bytes()) {
				t.Errorf("struct %s: field %s is at %d in C and %d in Go (found: %v)", name, m.Name, m.Offset.Bytes(), f.Offset, found)
			}
			if m.Offset.Bytes() != end {
				t.Errorf("struct %s: a hole before %s; padding is explicit", name, m.Name)
			}
			size, err := btf.Sizeof(m.Type)
			if err != nil {
				t.Fatal(err)
			}
			end = m.Offset.Bytes() + uint32(size)
		}
		if end != c.Size {
			t.Errorf("struct %s: a hole at its end; padding is explicit", name)
		}
	}
}

func TestLayoutTagFollowsTheLayoutAlone(t *testing.T) {
	one, err := bpf.LoadDeliver()
	if err != nil {
		t.Fatal(err)
	}
	other := one.Copy()
	other.Maps[bpf.DeliverMapFlows].MaxEntries = 7
	if a, b := layoutTag(one), layoutTag(other); a != b {
		t.Errorf("a size changed the tag from %s to %s", a, b)
	}
	other.Maps[bpf.DeliverMapFlows].Value.(*btf.Struct).Members[0].Name = "renamed"
	if a, b := layoutTag(one), layoutTag(other); a == b {
		t.Errorf("a renamed field left the tag at %s", a)
	}
}

func TestLoadsWithSmallVerifierEffort(t *testing.T) {
	d := sharedDeliverer(t)
	for name, p := range d.programs.Programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, _ := info.VerifiedInstructions()
		t.Logf("%s: %d instructions verified", name, n)
		if n > 50000 {
			t.Errorf("%s: the verifier looked at %d instructions", name, n)
		}
	}
}

func TestEveryDropHasAName(t *testing.T) {
	for fate := bpf.DeliverFateFATE_NO_EDGE; fate < bpf.DeliverFateFATE_MAX; fate++ {
		if drops[fate] == "" {
			t.Errorf("fate %d has no name", fate)
		}
	}
}

func TestThePortIsThatOfTheTunnels(t *testing.T) {
	if dataplane.GUEPort != 6080 {
		t.Errorf("GUE_PORT in bpf/deliver_tunnel.h is 6080, dataplane.GUEPort is %d", dataplane.GUEPort)
	}
}

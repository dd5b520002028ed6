package program

import (
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/weirproject/weir/bpf"
)

// The Go structs must lie in memory as the C structs do.
func TestGoStructsHaveTheLayoutOfTheCStructs(t *testing.T) {
	spec, err := bpf.LoadBalance()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"address": bpf.BalanceAddress{}, "frontend_key": bpf.BalanceFrontendKey{}, "frontend": bpf.BalanceFrontend{},
		"service": bpf.BalanceService{}, "service_name": bpf.BalanceServiceName{}, "slot_chunk": bpf.BalanceSlotChunk{},
		"backend": bpf.BalanceBackend{}, "ranges": bpf.BalanceRanges{}, "service_count": bpf.BalanceServiceCount{},
		"reason_count": bpf.BalanceReasonCount{}, "peer": bpf.BalancePeer{},
		"datagram_key": bpf.BalanceDatagramKey{}, "datagram": bpf.BalanceDatagram{},
		"affinity_key": bpf.BalanceAffinityKey{}, "affinity": bpf.BalanceAffinity{},
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
		if name == "address" { // a union inside
			continue
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
	one, err := bpf.LoadBalance()
	if err != nil {
		t.Fatal(err)
	}
	other := one.Copy()
	Sizes{Services: 7, Slots: 100}.apply(other)
	if a, b := layoutTag(one), layoutTag(other); a != b {
		t.Errorf("sizes changed the tag from %s to %s", a, b)
	}
	other.Maps[bpf.BalanceMapBackends].Value.(*btf.Struct).Members[0].Name = "renamed"
	if a, b := layoutTag(one), layoutTag(other); a == b {
		t.Errorf("a renamed field left the tag at %s", a)
	}
}

func TestLoadsWithSmallVerifierEffort(t *testing.T) {
	l := newLab(t)
	b := l.open()
	for name, p := range b.programs.Programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		if n, ok := info.VerifiedInstructions(); ok && n > 20000 {
			t.Errorf("%s: the verifier looked at %d instructions", name, n)
		} else {
			t.Logf("%s: %d instructions verified", name, n)
		}
	}
}

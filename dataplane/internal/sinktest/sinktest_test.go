package sinktest

import (
	"reflect"
	"structs"
	"testing"

	"github.com/cilium/ebpf/btf"
)

func TestDifferencesOfLayoutAreFound(t *testing.T) {
	word := &btf.Int{Name: "u32", Size: 4}
	byte8 := &btf.Int{Name: "u8", Size: 1}
	c := &btf.Struct{Name: "key", Size: 8, Members: []btf.Member{{Name: "port_be", Type: word}, {Name: "kind", Type: byte8, Offset: 32}, {Name: "pad", Type: &btf.Array{Index: word, Type: byte8, Nelems: 3}, Offset: 40}}}
	holed := &btf.Struct{Name: "holed", Size: 8, Members: c.Members[:2]}
	union := &btf.Struct{Name: "address", Size: 4, Members: []btf.Member{{Type: word}}}
	for _, x := range []struct {
		name  string
		c     *btf.Struct
		value any
		right bool
	}{
		{"same", c, struct {
			_      structs.HostLayout
			PortBe uint32
			Kind   uint8
			Pad    [3]uint8
		}{}, true},
		{"a field less", c, struct{ PortBe, Pad uint32 }{}, false},
		{"another order", c, struct {
			Kind   uint8
			Pad    [3]uint8
			PortBe uint32
		}{}, false},
		{"another size", c, struct{ PortBe uint32 }{}, false},
		{"a hole", holed, struct {
			PortBe uint32
			Kind   uint8
		}{}, false},
		{"a union", union, struct{ Word [1]uint32 }{}, true},
	} {
		if faults := compare(reflect.TypeOf(x.value), x.c); (len(faults) == 0) != x.right {
			t.Errorf("%s: got the faults %q", x.name, faults)
		}
	}
}

package pin

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// newSpec has one map, whose value has every kind of type.
func newSpec() (*ebpf.CollectionSpec, *btf.Struct) {
	word := &btf.Int{Name: "u32", Size: 4}
	value := &btf.Struct{Name: "value", Size: 16, Members: []btf.Member{
		{Name: "count", Type: word},
		{Name: "either", Type: &btf.Union{Size: 4, Members: []btf.Member{{Name: "one", Type: word}, {Name: "two", Type: word}}}, Offset: 32},
		{Name: "both", Type: &btf.Array{Index: word, Type: word, Nelems: 2}, Offset: 64},
	}}
	m := &ebpf.MapSpec{
		Type: ebpf.Hash, KeySize: 4, ValueSize: 16, MaxEntries: 8,
		Key: word, Value: &btf.Typedef{Name: "value_t", Type: value},
	}
	plain := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	return &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{"values": m, "plain": plain}}, value
}

func TestLayoutTagFollowsTheLayoutAlone(t *testing.T) {
	spec, _ := newSpec()
	tag := LayoutTag(spec)
	if len(tag) != 8 {
		t.Errorf("got the tag %q, want 8 digits", tag)
	}
	spec.Maps["values"].MaxEntries = 7
	if got := LayoutTag(spec); got != tag {
		t.Errorf("a size changed the tag from %s to %s", tag, got)
	}
	for name, change := range map[string]func(s *ebpf.CollectionSpec, value *btf.Struct){
		"a renamed field":           func(_ *ebpf.CollectionSpec, v *btf.Struct) { v.Members[0].Name = "renamed" },
		"a moved field":             func(_ *ebpf.CollectionSpec, v *btf.Struct) { v.Members[0].Offset = 96 },
		"an array of another size":  func(_ *ebpf.CollectionSpec, v *btf.Struct) { v.Members[2].Type.(*btf.Array).Nelems = 1 },
		"a union with another name": func(_ *ebpf.CollectionSpec, v *btf.Struct) { v.Members[1].Type.(*btf.Union).Members[0].Name = "x" },
		"another size of a struct":  func(_ *ebpf.CollectionSpec, v *btf.Struct) { v.Size = 24 },
		"another kind of map":       func(s *ebpf.CollectionSpec, _ *btf.Struct) { s.Maps["plain"].Type = ebpf.PerCPUArray },
		"another flag":              func(s *ebpf.CollectionSpec, _ *btf.Struct) { s.Maps["values"].Flags = 1 },
		"another map":               func(s *ebpf.CollectionSpec, _ *btf.Struct) { s.Maps["more"] = s.Maps["plain"] },
	} {
		spec, value := newSpec()
		change(spec, value)
		if LayoutTag(spec) == tag {
			t.Errorf("%s left the tag as it was", name)
		}
	}
}

func TestLayoutsOfOthersAreRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"maps-1", "maps-2", "maps-2/inner", "others-3"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := RemoveLayouts(dir, "maps-", filepath.Join(dir, "maps-1"), slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		if got := names(t, dir); len(got) != 2 || got[0] != "maps-1" || got[1] != "others-3" {
			t.Errorf("got %v left, want ours and what is no layout", got)
		}
	}
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		all = append(all, f.Name())
	}
	return all
}

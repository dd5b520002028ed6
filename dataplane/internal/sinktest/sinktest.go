// Package sinktest is what the tests of the eBPF sinks share: a bpffs that nobody
// else sees, programs of somebody else, and checks of what the compiler of C and
// the verifier made.
package sinktest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// BPFFS mounts one for the test, and returns its folder; a mount of bpf is an
// instance of its own.
func BPFFS(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return dir
}

// ForeignProgram loads a program that always gives the verdict. It is none of
// ours.
func ForeignProgram(t testing.TB, kind ebpf.ProgramType, attach ebpf.AttachType, verdict int32) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: kind, AttachType: attach, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	if err != nil {
		t.Fatalf("load a foreign program: %v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// CheckLayout fails where a Go struct does not lie in memory as the C struct of
// the name does, or a C struct has holes: their bytes would be anything, in keys
// too. Of a struct that is all one union it compares the size alone.
func CheckLayout(t testing.TB, spec *ebpf.CollectionSpec, structs map[string]any) {
	t.Helper()
	for name, value := range structs {
		var c *btf.Struct
		if err := spec.Types.TypeByName(name, &c); err != nil {
			t.Errorf("struct %s: %v", name, err)
			continue
		}
		for _, fault := range compare(reflect.TypeOf(value), c) {
			t.Errorf("struct %s: %s", name, fault)
		}
	}
}

// compare tells what is wrong with the layout of two structs.
func compare(g reflect.Type, c *btf.Struct) (faults []string) {
	fault := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	if g.Size() != uintptr(c.Size) {
		fault("Go has %d bytes, C has %d", g.Size(), c.Size)
	}
	if len(c.Members) == 1 && c.Members[0].Name == "" {
		return faults
	}
	end := uint32(0)
	for _, m := range c.Members {
		at := m.Offset.Bytes()
		f, found := g.FieldByNameFunc(func(s string) bool { return strings.EqualFold(s, strings.ReplaceAll(m.Name, "_", "")) })
		if !found || f.Offset != uintptr(at) {
			fault("field %s is at %d in C and %d in Go (found: %v)", m.Name, at, f.Offset, found)
		}
		if at != end {
			fault("a hole before %s; padding is explicit", m.Name)
		}
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			fault("field %s: %v", m.Name, err)
		}
		end = at + uint32(size)
	}
	if end != c.Size {
		fault("a hole at its end; padding is explicit")
	}
	return faults
}

// CheckVerifierEffort fails where the verifier looked at more instructions of a
// program than the limit.
func CheckVerifierEffort(t testing.TB, programs map[string]*ebpf.Program, limit uint32) {
	t.Helper()
	for name, p := range programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, _ := info.VerifiedInstructions() // 0 before Linux 5.16
		t.Logf("%s: %d instructions verified", name, n)
		if n > limit {
			t.Errorf("%s: the verifier looked at %d instructions, want %d at most", name, n, limit)
		}
	}
}

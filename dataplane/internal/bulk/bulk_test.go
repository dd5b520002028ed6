package bulk

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/testenv"
)

func newMap(t *testing.T, spec ebpf.MapSpec) *ebpf.Map {
	t.Helper()
	testenv.NeedBPF(t)
	m, err := ebpf.NewMap(&spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

type cell struct{ A, B uint32 }

func TestCellsAreTheMap(t *testing.T) {
	const count = 1000 // not a whole number of pages
	array := newMap(t, ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: count, Flags: unix.BPF_F_MMAPABLE})
	var memory Memory
	cells, err := Cells[cell](&memory, array, "cells")
	if err != nil || len(cells) != count {
		t.Fatalf("got %d cells and %v, want %d", len(cells), err, count)
	}
	cells[count-1] = cell{7, 8}
	var got cell
	if err := array.Lookup(uint32(count-1), &got); err != nil || got != (cell{7, 8}) {
		t.Errorf("the last element: got %v and %v, want 7 and 8", got, err)
	}
	if err := array.Put(uint32(0), cell{1, 2}); err != nil || cells[0] != (cell{1, 2}) {
		t.Errorf("the first cell: got %v and %v, want 1 and 2", cells[0], err)
	}
	for range 2 {
		if err := memory.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

func TestCellsOfAnotherSizeAreRefused(t *testing.T) {
	array := newMap(t, ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 12, MaxEntries: 4, Flags: unix.BPF_F_MMAPABLE})
	var memory Memory
	if _, err := Cells[cell](&memory, array, "cells"); err == nil || !strings.Contains(err.Error(), "cells") {
		t.Errorf("cells of 8 bytes in elements of 12: got %v, want an error that names the map", err)
	}
	// The kernel leaves 4 bytes between the elements.
	if _, err := Cells[[3]uint32](&memory, array, "cells"); err == nil {
		t.Error("cells of 12 bytes were mapped")
	}
	plain := newMap(t, ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 4})
	if _, err := Cells[cell](&memory, plain, "cells"); err == nil {
		t.Error("an array that cannot be mapped was mapped")
	}
}

func TestHashIsReadWhole(t *testing.T) {
	for _, c := range []struct{ size, count uint32 }{{1, 0}, {1, 1}, {3, 3}, {5000, 0}, {5000, 4999}} {
		m := newMap(t, ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: c.size})
		want := map[uint32]cell{}
		for key := range c.count {
			want[key] = cell{key, ^key}
			if err := m.Put(key, want[key]); err != nil {
				t.Fatal(err)
			}
		}
		got, err := Hash[uint32, cell](m)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%d of %d elements: got %d and %v", c.count, c.size, len(got), err)
		}
	}
}

func TestReadingAHashTellsWhatFailed(t *testing.T) {
	m := newMap(t, ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 1000})
	for key := range uint32(1000) {
		if err := m.Put(key, cell{}); err != nil {
			t.Fatal(err)
		}
	}
	// Of 1,000 keys some share one of 1,024 buckets; this is why Hash tries again.
	if _, err := readHash[uint32, cell](m, 1); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a batch below the fullest bucket: got %v, want %v", err, unix.ENOSPC)
	}
	array := newMap(t, ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	if _, err := Hash[uint32, uint64](array); err == nil {
		t.Error("a value of another size was read")
	}
}

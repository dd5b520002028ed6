// Package bulk reads maps of eBPF as a whole: arrays through memory, which it
// shares with the kernel, and hashes in batches. It knows no map's meaning; the
// sinks below dataplane call it.
package bulk

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Memory is the arrays that are mapped into this process. The zero value has
// none.
type Memory struct{ mappings [][]byte }

// Cells maps an array of T (BPF_F_MMAPABLE) into m until m is closed. What is read
// and written there is what the programs see at once: a word that they read while
// it changes is to be stored atomically. name is the map's, for the error.
func Cells[T any](m *Memory, array *ebpf.Map, name string) ([]T, error) {
	var cell T
	// The kernel puts the elements of an array at multiples of 8 bytes.
	if uintptr(array.ValueSize()) != unsafe.Sizeof(cell) || unsafe.Sizeof(cell)%8 != 0 {
		return nil, fmt.Errorf("map %s into memory: a value has %d bytes, a cell %d", name, array.ValueSize(), unsafe.Sizeof(cell))
	}
	size, page := int(array.MaxEntries())*int(unsafe.Sizeof(cell)), os.Getpagesize()
	raw, err := unix.Mmap(array.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s into memory: %w", name, err)
	}
	m.mappings = append(m.mappings, raw)
	return unsafe.Slice((*T)(unsafe.Pointer(&raw[0])), array.MaxEntries()), nil
}

// Close takes the arrays out of memory. Their cells must not be touched any more.
func (m *Memory) Close() error {
	var faults []error
	for _, raw := range m.mappings {
		faults = append(faults, unix.Munmap(raw))
	}
	m.mappings = nil
	return errors.Join(faults...)
}

// Hash reads a whole hash map in few system calls. What is written meanwhile may
// be missed.
func Hash[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	// A batch must hold the fullest bucket, or the kernel says ENOSPC.
	for size := min(m.MaxEntries(), 1024); ; size = min(4*size, m.MaxEntries()) {
		all, err := readHash[K, V](m, size)
		if !errors.Is(err, unix.ENOSPC) || size == m.MaxEntries() {
			return all, err
		}
	}
}

func readHash[K comparable, V any](m *ebpf.Map, batch uint32) (map[K]V, error) {
	all, keys, values := map[K]V{}, make([]K, batch), make([]V, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			all[keys[i]] = values[i]
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

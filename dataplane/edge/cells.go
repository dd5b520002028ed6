package edge

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
)

// cells are the array maps, mapped into memory: what Set reads and writes there
// is what the programs see at once. A word that programs read while it changes is
// stored atomically.
type cells struct {
	config   []bpf.EdgeEdgeConfig
	services []bpf.EdgeEdgeService
	names    []bpf.EdgeServiceName
	slots    []bpf.EdgeEdgeSlot
	backends []bpf.EdgeEdgeBackend
	hops     []bpf.EdgeEdgeHop
	filter   []uint64

	mappings [][]byte
}

func (c *cells) open(maps map[string]*ebpf.Map) (err error) {
	if c.config, err = mapCells[bpf.EdgeEdgeConfig](c, maps, bpf.EdgeMapEdgeConfig); err != nil {
		return err
	}
	if c.services, err = mapCells[bpf.EdgeEdgeService](c, maps, bpf.EdgeMapEdgeServices); err != nil {
		return err
	}
	if c.names, err = mapCells[bpf.EdgeServiceName](c, maps, bpf.EdgeMapEdgeNames); err != nil {
		return err
	}
	if c.slots, err = mapCells[bpf.EdgeEdgeSlot](c, maps, bpf.EdgeMapEdgeSlots); err != nil {
		return err
	}
	if c.backends, err = mapCells[bpf.EdgeEdgeBackend](c, maps, bpf.EdgeMapEdgeBackends); err != nil {
		return err
	}
	if c.filter, err = mapCells[uint64](c, maps, bpf.EdgeMapEdgeFilter); err != nil {
		return err
	}
	c.hops, err = mapCells[bpf.EdgeEdgeHop](c, maps, bpf.EdgeMapEdgeHops)
	return err
}

func mapCells[T any](c *cells, maps map[string]*ebpf.Map, name string) ([]T, error) {
	m := maps[name]
	var cell T
	// The kernel puts the elements of an array at multiples of 8 bytes.
	if uintptr(m.ValueSize()) != unsafe.Sizeof(cell) || unsafe.Sizeof(cell)%8 != 0 {
		return nil, fmt.Errorf("map %s into memory: a value has %d bytes, want %d", name, m.ValueSize(), unsafe.Sizeof(cell))
	}
	size, page := int(m.MaxEntries())*int(unsafe.Sizeof(cell)), os.Getpagesize()
	raw, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s into memory: %w", name, err)
	}
	c.mappings = append(c.mappings, raw)
	return unsafe.Slice((*T)(unsafe.Pointer(&raw[0])), m.MaxEntries()), nil
}

func (c *cells) close() error {
	var faults []error
	for _, raw := range c.mappings {
		faults = append(faults, unix.Munmap(raw))
	}
	*c = cells{}
	return errors.Join(faults...)
}

func storeState(b *bpf.EdgeEdgeBackend, s bpf.EdgeBackendState) {
	atomic.StoreUint32((*uint32)(&b.State), uint32(s))
}

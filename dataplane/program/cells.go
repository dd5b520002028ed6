package program

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
// is what the programs see at once. A word that programs read while it changes
// is stored atomically.
type cells struct {
	ranges   []bpf.BalanceRanges
	services []bpf.BalanceService
	names    []bpf.BalanceServiceName
	slots    []uint32 // the chunks of 16 lie side by side
	backends []bpf.BalanceBackend

	mappings [][]byte
}

func (c *cells) open(maps map[string]*ebpf.Map) (err error) {
	if c.ranges, err = mapCells[bpf.BalanceRanges](c, maps, bpf.BalanceMapRanges); err != nil {
		return err
	}
	if c.services, err = mapCells[bpf.BalanceService](c, maps, bpf.BalanceMapServices); err != nil {
		return err
	}
	if c.names, err = mapCells[bpf.BalanceServiceName](c, maps, bpf.BalanceMapNames); err != nil {
		return err
	}
	if c.backends, err = mapCells[bpf.BalanceBackend](c, maps, bpf.BalanceMapBackends); err != nil {
		return err
	}
	chunks, err := mapCells[bpf.BalanceSlotChunk](c, maps, bpf.BalanceMapSlots)
	if err != nil {
		return err
	}
	c.slots = unsafe.Slice(&chunks[0].Backend[0], len(chunks)*len(chunks[0].Backend))
	return nil
}

func mapCells[T any](c *cells, maps map[string]*ebpf.Map, name string) ([]T, error) {
	m := maps[name]
	var cell T
	size := int(m.MaxEntries()) * int(unsafe.Sizeof(cell))
	if uintptr(m.ValueSize()) != unsafe.Sizeof(cell) {
		return nil, fmt.Errorf("map %s into memory: a value has %d bytes, want %d", name, m.ValueSize(), unsafe.Sizeof(cell))
	}
	page := os.Getpagesize()
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

func storeState(b *bpf.BalanceBackend, s bpf.BalanceBackendState) {
	atomic.StoreUint32((*uint32)(&b.State), uint32(s))
}

func storeBalance(s *bpf.BalanceService, way bpf.BalanceBalance) {
	atomic.StoreUint32((*uint32)(&s.Balance), uint32(way))
}

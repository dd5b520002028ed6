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
	"github.com/weirproject/weir/dataplane"
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

func (c *cells) openAll(maps map[string]*ebpf.Map) (err error) {
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

// serviceLimit is how many ids of services there are, 0 included. After a crash
// the maps may have different sizes.
func (c *cells) serviceLimit(maps map[string]*ebpf.Map) uint32 {
	return min(uint32(min(len(c.services), len(c.names))), maps[bpf.BalanceMapServiceCounts].MaxEntries())
}

// open is how many sockets the backends have.
func (c *cells) open(backends []held) (sum int32) {
	for _, h := range backends {
		sum += int32(c.counters(h.id).Open)
	}
	return sum
}

// connections are how many a backend got.
func connections(b *bpf.BalanceBackend) uint64 {
	return atomic.LoadUint64(&b.Opened) - uint64(atomic.LoadUint32(&b.Repeats))
}

// counters of one backend.
func (c *cells) counters(id uint32) dataplane.BackendCounters {
	cell := &c.backends[id]
	return dataplane.BackendCounters{
		Connections: connections(cell),
		Open:        uint64(max(int64(atomic.LoadUint64(&cell.Opened)-atomic.LoadUint64(&cell.Closed)), 0)),
		Failures:    atomic.LoadUint64(&cell.Failures),
		Reset:       atomic.LoadUint64(&cell.Reset),
	}
}

// clearCounters forgets what an id's earlier owner has counted.
func (c *cells) clearCounters(id uint32) {
	cell := &c.backends[id]
	atomic.StoreUint32(&cell.Repeats, 0)
	for _, n := range []*uint64{&cell.Opened, &cell.Closed, &cell.Failures, &cell.Reset} {
		atomic.StoreUint64(n, 0)
	}
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

package program

import (
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/bulk"
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

	memory bulk.Memory
}

func (c *cells) openAll(maps map[string]*ebpf.Map) (err error) {
	if c.ranges, err = bulk.Cells[bpf.BalanceRanges](&c.memory, maps[bpf.BalanceMapRanges], bpf.BalanceMapRanges); err != nil {
		return err
	}
	if c.services, err = bulk.Cells[bpf.BalanceService](&c.memory, maps[bpf.BalanceMapServices], bpf.BalanceMapServices); err != nil {
		return err
	}
	if c.names, err = bulk.Cells[bpf.BalanceServiceName](&c.memory, maps[bpf.BalanceMapNames], bpf.BalanceMapNames); err != nil {
		return err
	}
	if c.backends, err = bulk.Cells[bpf.BalanceBackend](&c.memory, maps[bpf.BalanceMapBackends], bpf.BalanceMapBackends); err != nil {
		return err
	}
	chunks, err := bulk.Cells[bpf.BalanceSlotChunk](&c.memory, maps[bpf.BalanceMapSlots], bpf.BalanceMapSlots)
	if err != nil {
		return err
	}
	c.slots = unsafe.Slice(&chunks[0].Backend[0], len(chunks)*len(chunks[0].Backend))
	return nil
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

// newOwner makes an id another backend's: sockets of the earlier one are not
// counted here any more, nor is what it has counted.
func (c *cells) newOwner(id uint32) {
	cell := &c.backends[id]
	cell.Generation++
	atomic.StoreUint32(&cell.Repeats, 0)
	for _, n := range []*uint64{&cell.Opened, &cell.Closed, &cell.Failures, &cell.Reset} {
		atomic.StoreUint64(n, 0)
	}
}

func (c *cells) close() error {
	err := c.memory.Close()
	*c = cells{}
	return err
}

func storeState(b *bpf.BalanceBackend, s bpf.BalanceBackendState) {
	atomic.StoreUint32((*uint32)(&b.State), uint32(s))
}

func storeBalance(s *bpf.BalanceService, way bpf.BalanceBalance) {
	atomic.StoreUint32((*uint32)(&s.Balance), uint32(way))
}

package program

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// idAllocator gives ids from 1 to max-1. An id that is given back stays in
// quarantine until no program can hold it any more.
type idAllocator struct {
	max, next  uint32
	free       []uint32
	quarantine []uint32
}

// newIDs makes an allocator that knows which ids are in use.
func newIDs(limit uint32, used map[uint32]bool) idAllocator {
	a := idAllocator{max: limit, next: 1}
	for id := range used {
		a.next = max(a.next, id+1)
	}
	for id := a.next - 1; id > 0; id-- {
		if !used[id] {
			a.free = append(a.free, id)
		}
	}
	return a
}

func (a *idAllocator) take() (uint32, bool) {
	if n := len(a.free); n > 0 {
		id := a.free[n-1]
		a.free = a.free[:n-1]
		return id, true
	}
	if a.next < a.max {
		a.next++
		return a.next - 1, true
	}
	return 0, false
}

func (a *idAllocator) retire(id uint32) { a.quarantine = append(a.quarantine, id) }

func (a *idAllocator) release() {
	a.free = append(a.free, a.quarantine...)
	a.quarantine = nil
}

// runAllocator gives runs of slots, the first gap that fits.
type runAllocator struct {
	size       uint32
	free       []run // sorted, apart from each other
	quarantine []run
}

// newRuns makes an allocator around the runs in use, which do not overlap.
func newRuns(size uint32, used []run) runAllocator {
	a := runAllocator{size: size}
	slices.SortFunc(used, func(x, y run) int { return cmp.Compare(x.first, y.first) })
	var at uint32
	for _, r := range append(used, run{first: size}) {
		if r.first > at {
			a.free = append(a.free, run{at, r.first - at})
		}
		at = r.first + r.count
	}
	return a
}

func (a *runAllocator) take(count uint32) (run, bool) {
	if count == 0 {
		return run{}, true
	}
	for i, gap := range a.free {
		if gap.count < count {
			continue
		}
		if gap.count == count {
			a.free = slices.Delete(a.free, i, i+1)
		} else {
			a.free[i] = run{gap.first + count, gap.count - count}
		}
		return run{gap.first, count}, true
	}
	return run{}, false
}

func (a *runAllocator) retire(r run) {
	if r.count > 0 {
		a.quarantine = append(a.quarantine, r)
	}
}

func (a *runAllocator) release() {
	all := append(a.free, a.quarantine...)
	slices.SortFunc(all, func(x, y run) int { return cmp.Compare(x.first, y.first) })
	a.free, a.quarantine = nil, nil
	for _, r := range all {
		if n := len(a.free); n > 0 && a.free[n-1].first+a.free[n-1].count == r.first {
			a.free[n-1].count += r.count
		} else {
			a.free = append(a.free, r)
		}
	}
}

// limit makes the table larger.
func (a *idAllocator) limit(n uint32) { a.max = max(a.max, n) }

// limit makes the table larger.
func (a *runAllocator) limit(n uint32) {
	if n <= a.size {
		return
	}
	if last := len(a.free) - 1; last >= 0 && a.free[last].first+a.free[last].count == a.size {
		a.free[last].count += n - a.size
	} else {
		a.free = append(a.free, run{a.size, n - a.size})
	}
	a.size = n
}

// waitForPrograms waits until every program that runs now has ended, some 20 ms.
func waitForPrograms() {
	// cgroup programs run in an RCU read-side section, and this command waits
	// for an RCU grace period (membarrier(2), Linux 4.3). Where it is filtered
	// or a CPU is nohz_full, time must do: a program runs for microseconds.
	const membarrierGlobal = 1
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		time.Sleep(time.Second)
	}
}

// grace frees what was in quarantine, when no program can hold it any more. It
// is called only when room is needed.
func (b *Balancer) grace() {
	waitForPrograms()
	b.ids.release()
	b.backends.release()
	b.slots.release()
}

// takeBackend and the two below it try again after a grace period, and then
// with larger maps.
func (b *Balancer) takeBackend(p *pass) (uint32, error) {
	id, ok := b.backends.take()
	if !ok && len(b.backends.quarantine) > 0 {
		b.grace()
		id, ok = b.backends.take()
	}
	if !ok {
		if err := b.grow(p, "backends", Sizes{Backends: b.backends.max + 1}); err != nil {
			return 0, err
		}
		id, _ = b.backends.take()
	}
	return id, nil
}

func (b *Balancer) takeService(p *pass) (uint32, error) {
	id, ok := b.ids.take()
	if !ok && len(b.ids.quarantine) > 0 {
		b.grace()
		id, ok = b.ids.take()
	}
	if !ok {
		if err := b.grow(p, "services", Sizes{Services: b.ids.max + 1}); err != nil {
			return 0, err
		}
		id, _ = b.ids.take()
	}
	return id, nil
}

func (b *Balancer) takeRun(p *pass, count uint32) (run, error) {
	r, ok := b.slots.take(count)
	if !ok && len(b.slots.quarantine) > 0 {
		b.grace()
		r, ok = b.slots.take(count)
	}
	if !ok {
		if err := b.grow(p, "slots", Sizes{Slots: b.slots.size + count}); err != nil {
			return run{}, fmt.Errorf("%d slots in a row are needed: %w", count, err)
		}
		r, _ = b.slots.take(count)
	}
	return r, nil
}

// Package room hands out places in array maps of the kernel: single ids, and
// runs of neighbouring slots. What is given back rests until no packet program
// can still hold it. It touches no map; the sinks below dataplane call it.
package room

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// IDs gives ids from 1 to a limit. Not safe for concurrent use.
type IDs struct {
	limit, next uint32
	free        []uint32
	resting     []uint32
}

// NewIDs makes an allocator of ids below limit that knows which are in use.
func NewIDs(limit uint32, used map[uint32]bool) *IDs {
	a := &IDs{limit: limit, next: 1}
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

// Take gives an id, after a grace period if only resting ones are left; false
// when all are in use.
func (a *IDs) Take() (uint32, bool) {
	if len(a.free) == 0 && a.next >= a.limit && len(a.resting) > 0 {
		Grace()
		a.free, a.resting = a.resting, nil
	}
	if n := len(a.free); n > 0 {
		id := a.free[n-1]
		a.free = a.free[:n-1]
		return id, true
	}
	if a.next >= a.limit {
		return 0, false
	}
	a.next++
	return a.next - 1, true
}

// Return gives back an id that no program has ever seen.
func (a *IDs) Return(id uint32) { a.free = append(a.free, id) }

// Retire gives back an id that programs may still hold.
func (a *IDs) Retire(id uint32) { a.resting = append(a.resting, id) }

// Run is where the slots of a service lie.
type Run struct{ First, Count uint32 }

// Word is the run in one word, as the programs read it.
func (r Run) Word() uint64 { return uint64(r.First)<<32 | uint64(r.Count) }

// RunOf reads the word.
func RunOf(word uint64) Run { return Run{uint32(word >> 32), uint32(word)} }

// Runs gives runs of slots, the first gap that fits. Not safe for concurrent
// use.
type Runs struct {
	free    []Run // sorted, apart from each other
	resting []Run
}

// NewRuns makes an allocator of size slots around the runs in use, which do not
// overlap.
func NewRuns(size uint32, used []Run) *Runs {
	a := &Runs{}
	used = slices.SortedFunc(slices.Values(used), func(x, y Run) int { return cmp.Compare(x.First, y.First) })
	var at uint32
	for _, r := range append(used, Run{First: size}) {
		if r.First > at {
			a.free = append(a.free, Run{at, r.First - at})
		}
		at = r.First + r.Count
	}
	return a
}

// Take gives a run, after a grace period if that is what it takes; false when
// there is no gap of the size.
func (a *Runs) Take(count uint32) (Run, bool) {
	if r, ok := a.take(count); ok || len(a.resting) == 0 {
		return r, ok
	}
	Grace()
	a.release()
	return a.take(count)
}

func (a *Runs) take(count uint32) (Run, bool) {
	if count == 0 {
		return Run{}, true
	}
	for i, gap := range a.free {
		if gap.Count < count {
			continue
		}
		if gap.Count == count {
			a.free = slices.Delete(a.free, i, i+1)
		} else {
			a.free[i] = Run{gap.First + count, gap.Count - count}
		}
		return Run{gap.First, count}, true
	}
	return Run{}, false
}

// Retire gives back a run that programs may still read.
func (a *Runs) Retire(r Run) {
	if r.Count > 0 {
		a.resting = append(a.resting, r)
	}
}

func (a *Runs) release() {
	all := append(a.free, a.resting...)
	slices.SortFunc(all, func(x, y Run) int { return cmp.Compare(x.First, y.First) })
	a.free, a.resting = nil, nil
	for _, r := range all {
		if n := len(a.free); n > 0 && a.free[n-1].First+a.free[n-1].Count == r.First {
			a.free[n-1].Count += r.Count
		} else {
			a.free = append(a.free, r)
		}
	}
}

// Grace waits until every program that runs now has ended, some 20 ms. Packet
// programs run with preemption or bottom halves off, which is an RCU read-side
// section for this command (membarrier(2), Linux 4.3). Where it is filtered or a
// CPU is nohz_full, time must do: a program runs for microseconds.
func Grace() {
	const membarrierGlobal = 1
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		time.Sleep(time.Second)
	}
}

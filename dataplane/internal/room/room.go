// Package room hands out places in array maps of the kernel: single ids, and
// runs of neighbouring slots. What is given back rests until no program can still
// hold it; that takes some 20 ms, so it is waited for only when room is needed. It
// touches no map; the sinks below dataplane call it.
package room

import (
	"time"

	"golang.org/x/sys/unix"
)

// IDs gives ids from 1 to below a limit: 0 is nobody's. Not safe for concurrent
// use.
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

// Limit is what every id is below.
func (a *IDs) Limit() uint32 { return a.limit }

// Grow makes room for ids below limit. It never makes less.
func (a *IDs) Grow(limit uint32) { a.limit = max(a.limit, limit) }

// Grace waits until every program that runs now has ended, some 20 ms. Cgroup
// programs run in an RCU read-side section, and packet programs with preemption or
// bottom halves off, which is one too for this command (membarrier(2), Linux 4.3).
// Where it is filtered or a CPU is nohz_full, time must do: a program runs for
// microseconds.
func Grace() {
	const membarrierGlobal = 1
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		time.Sleep(time.Second)
	}
}

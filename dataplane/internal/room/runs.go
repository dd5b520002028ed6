package room

import (
	"cmp"
	"slices"
)

// Run is where the slots of a service lie.
type Run struct{ First, Count uint32 }

// Word is the run in one word, as the programs read it.
func (r Run) Word() uint64 { return uint64(r.First)<<32 | uint64(r.Count) }

// RunOf reads the word.
func RunOf(word uint64) Run { return Run{uint32(word >> 32), uint32(word)} }

// Runs gives runs of slots, the first gap that fits. Not safe for concurrent
// use.
type Runs struct {
	size    uint32
	free    []Run // sorted, apart from each other
	resting []Run
}

// NewRuns makes an allocator of size slots around the runs in use, which do not
// overlap.
func NewRuns(size uint32, used []Run) *Runs {
	a := &Runs{size: size}
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
// there is no gap of the size. A run of nothing takes no room.
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

// Size is how many slots there are.
func (a *Runs) Size() uint32 { return a.size }

// Grow adds slots behind the others until there are size of them. It never takes
// any away.
func (a *Runs) Grow(size uint32) {
	if size <= a.size {
		return
	}
	if last := len(a.free) - 1; last >= 0 && a.free[last].First+a.free[last].Count == a.size {
		a.free[last].Count += size - a.size
	} else {
		a.free = append(a.free, Run{a.size, size - a.size})
	}
	a.size = size
}

// Claims finds out which runs that an earlier process has written can be
// believed. Not safe for concurrent use.
type Claims struct {
	taken []bool
	runs  []Run
}

// NewClaims begins with size slots that nobody has.
func NewClaims(size uint32) *Claims { return &Claims{taken: make([]bool, size)} }

// Claim marks the run's slots as in use. It refuses a run that no sane writer has
// made: of nothing, beyond the end, or over another.
func (c *Claims) Claim(r Run) bool {
	if r.Count == 0 || uint64(r.First)+uint64(r.Count) > uint64(len(c.taken)) {
		return false
	}
	span := c.taken[r.First : r.First+r.Count]
	if slices.Contains(span, true) {
		return false
	}
	for i := range span {
		span[i] = true
	}
	c.runs = append(c.runs, r)
	return true
}

// Runs makes an allocator around the runs that were claimed.
func (c *Claims) Runs() *Runs { return NewRuns(uint32(len(c.taken)), c.runs) }

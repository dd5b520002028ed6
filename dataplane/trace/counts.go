package trace

import (
	"fmt"

	"github.com/weirproject/weir/bpf"
)

// Counts are of all that has happened since Open.
type Counts struct {
	// Told are events that were handed over; Lost those for which the ring had no
	// room; Skipped flows that came too fast to be followed; Unplaced those that
	// were too many at once; Unlisted dropped packets that came too fast.
	Told, Lost, Skipped, Unplaced, Unlisted uint64
	// Drops by the kernel's reason, told or not.
	Drops map[string]uint64
}

// Counts reads them from the kernel.
func (t *Tracer) Counts() (Counts, error) {
	var all []bpf.TraceTraceCount
	if err := t.maps[bpf.TraceMapTraceCounts].Lookup(uint32(0), &all); err != nil {
		return Counts{}, fmt.Errorf("read the counters of events: %w", err)
	}
	c := Counts{Drops: map[string]uint64{}}
	for _, cpu := range all {
		c.Told += cpu.Told
		c.Lost += cpu.Lost
		c.Skipped += cpu.Skipped
		c.Unplaced += cpu.Unplaced
		c.Unlisted += cpu.Unlisted
	}
	for number := range uint32(dropReasons) {
		var each []uint64
		if err := t.maps[bpf.TraceMapDropCounts].Lookup(number, &each); err != nil {
			return Counts{}, fmt.Errorf("read the counters of drops: %w", err)
		}
		var sum uint64
		for _, n := range each {
			sum += n
		}
		if sum > 0 {
			c.Drops[t.reasons.name(number)] = sum
		}
	}
	return c, nil
}

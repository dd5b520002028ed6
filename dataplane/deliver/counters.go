package deliver

import (
	"errors"
	"fmt"

	"github.com/weirproject/weir/bpf"
)

// Counters of packets since the maps were made.
type Counters struct {
	Delivered uint64 // taken out of a tunnel and passed to a backend
	Answered  uint64 // sent to a client from a virtual address
	ErrorsIn  uint64 // ICMP errors about answers, passed to a backend
	ErrorsOut uint64 // ICMP errors about delivered packets, sent to a client
	Clamped   uint64 // SYN-ACKs whose MSS was lowered to what fits the tunnel
	Forgotten uint64 // flows whose client began to speak to the backend itself
	// Dropped packets by reason.
	Dropped map[string]uint64
}

// drops names the reasons of Counters.Dropped.
var drops = map[bpf.DeliverFate]string{
	bpf.DeliverFateFATE_NO_EDGE:       "not-from-an-edge",
	bpf.DeliverFateFATE_BAD_OUTER:     "outer-headers",
	bpf.DeliverFateFATE_FRAGMENTED:    "tunnel-fragmented",
	bpf.DeliverFateFATE_BAD_GUE:       "gue-header",
	bpf.DeliverFateFATE_BAD_INNER:     "client-packet",
	bpf.DeliverFateFATE_PROTOCOL:      "protocol",
	bpf.DeliverFateFATE_UNKNOWN:       "unknown-backend",
	bpf.DeliverFateFATE_LATE_FRAGMENT: "fragment-without-first",
	bpf.DeliverFateFATE_NO_MEMORY:     "no-memory-for-flow",
	bpf.DeliverFateFATE_KERNEL:        "kernel-refused",
	bpf.DeliverFateFATE_CONGESTED:     "congestion-on-the-way",
}

// Counters reads what the programs have counted. Dropped has every
// reason, also those of which there was none.
func (d *Deliverer) Counters() (Counters, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := Counters{Dropped: map[string]uint64{}}
	if d.closed {
		return c, errors.New("read counters: the deliverer is closed")
	}
	var all [bpf.DeliverFateFATE_MAX]uint64
	for fate := range all {
		var perCPU []bpf.DeliverCount
		if err := d.maps[bpf.DeliverMapCounts].Lookup(uint32(fate), &perCPU); err != nil {
			return c, fmt.Errorf("read counters: %w", err)
		}
		for _, n := range perCPU {
			all[fate] += n.Times
		}
	}
	c.Delivered = all[bpf.DeliverFateFATE_DELIVERED]
	c.Answered = all[bpf.DeliverFateFATE_ANSWERED]
	c.ErrorsIn = all[bpf.DeliverFateFATE_ERROR_DELIVERED]
	c.ErrorsOut = all[bpf.DeliverFateFATE_ERROR_ANSWERED]
	c.Clamped = all[bpf.DeliverFateFATE_CLAMPED]
	c.Forgotten = all[bpf.DeliverFateFATE_FORGOTTEN]
	for fate, reason := range drops {
		c.Dropped[reason] = all[fate]
	}
	return c, nil
}

package dnsproxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Slots of what is counted together: the RCODEs and types that are usual, and
// one for all others. So there is no end to names, but one to counters.
const (
	rcodeSlots = 8
	typeSlots  = 12
	zoneSlots  = 8 // names outside, and the first zones of the table
)

var rcodeNames = [rcodeSlots]string{"noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "badvers", "other"}

func rcodeSlot(rcode int) int {
	switch {
	case rcode <= dns.RcodeRefused:
		return rcode
	case rcode == dns.RcodeBadVers:
		return 6
	}
	return 7
}

var typeNames = [typeSlots]string{"other", "A", "AAAA", "SRV", "PTR", "CNAME", "TXT", "NS", "SOA", "MX", "HTTPS", "ANY"}

// typeSlotOf the types below 256.
var typeSlotOf = func() (slots [256]uint8) {
	for i, name := range typeNames[1:] {
		slots[dns.StringToType[name]] = uint8(i + 1)
	}
	return slots
}()

func typeSlot(qtype uint16) uint8 {
	if qtype > 255 {
		return 0
	}
	return typeSlotOf[qtype]
}

// latencyBounds are the upper ends of the histogram's buckets.
var latencyBounds = [...]time.Duration{
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
}

// histogram counts answers by the time that they took.
type histogram struct {
	buckets [len(latencyBounds) + 1]uint64
	sum     time.Duration
}

func (h *histogram) observe(took time.Duration, answers int) {
	i := 0
	for i < len(latencyBounds) && took > latencyBounds[i] {
		i++
	}
	h.buckets[i] += uint64(answers)
	h.sum += took * time.Duration(answers)
}

func (h *histogram) add(o *histogram) {
	for i := range h.buckets {
		h.buckets[i] += o.buckets[i]
	}
	h.sum += o.sum
}

// tally is plain numbers: adding to one costs no more than the addition.
type tally struct {
	queries [sourceCount][rcodeSlots]uint64
	zones   [zoneSlots][typeSlots][rcodeSlots]uint64
	// local are answers from what we know, waited those that waited for upstreams.
	local, waited histogram
}

func (t *tally) count(zone uint8, qtype uint16, s source, rcode int) {
	slot := rcodeSlot(rcode)
	t.queries[s][slot]++
	t.zones[min(zone, zoneSlots-1)][typeSlot(qtype)][slot]++
}

func (t *tally) add(o *tally) {
	for s := range t.queries {
		for r := range t.queries[s] {
			t.queries[s][r] += o.queries[s][r]
		}
	}
	for z := range t.zones {
		for y := range t.zones[z] {
			for r := range t.zones[z][y] {
				t.zones[z][y][r] += o.zones[z][y][r]
			}
		}
	}
	t.local.add(&o.local)
	t.waited.add(&o.waited)
}

// counters of one socket, or of all connections of an address. Each has its own,
// so that counting moves no cache line between CPUs; a scrape adds them up.
type counters struct {
	_     [64]byte
	proto string
	// mu guards tally. A UDP socket takes it once for a batch of packets.
	mu    sync.Mutex
	tally tally
	// late counts answers that waited: others than the socket's goroutine do.
	late struct {
		mu    sync.Mutex // guards tally
		tally tally
	}
	dropped atomic.Uint64 // packets that get no answer: responses and fragments of a header
	unsent  atomic.Uint64 // answers that the kernel did not take
	_       [64]byte
}

func (c *counters) addLate(zone uint8, qtype uint16, rcode int, took time.Duration) {
	c.late.mu.Lock()
	c.late.tally.count(zone, qtype, sourceUpstream, rcode)
	c.late.tally.waited.observe(took, 1)
	c.late.mu.Unlock()
}

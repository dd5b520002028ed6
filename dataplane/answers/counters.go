package answers

import (
	"errors"
	"fmt"

	"github.com/weirproject/weir/bpf"
)

// Counters of queries to the proxy since the maps were made.
type Counters struct {
	Answered uint64 // with addresses
	Denied   uint64 // answered: the name has no address of the type
	// Passed to the proxy's socket, by reason.
	Passed map[string]uint64
}

// reasons names those of Counters.Passed.
var reasons = map[bpf.DnsAnswerDnsFate]string{
	bpf.DnsAnswerDnsFateDNS_PASS_STALE:    "agent-silent",
	bpf.DnsAnswerDnsFateDNS_PASS_PACKET:   "packet",
	bpf.DnsAnswerDnsFateDNS_PASS_CHECKSUM: "checksum",
	bpf.DnsAnswerDnsFateDNS_PASS_MESSAGE:  "message",
	bpf.DnsAnswerDnsFateDNS_PASS_TYPE:     "type",
	bpf.DnsAnswerDnsFateDNS_PASS_EDNS:     "edns",
	bpf.DnsAnswerDnsFateDNS_PASS_NAME:     "name",
	bpf.DnsAnswerDnsFateDNS_PASS_SET:      "records",
	bpf.DnsAnswerDnsFateDNS_PASS_KERNEL:   "kernel",
	bpf.DnsAnswerDnsFateDNS_PASS_CLIENT:   "client",
}

// Counters reads what the program has counted. Passed has every reason, also
// those of which there was none.
func (a *Answerer) Counters() (Counters, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := Counters{Passed: map[string]uint64{}}
	if a.closed {
		return c, errors.New("read counters: the answerer is closed")
	}
	var all [bpf.DnsAnswerDnsFateDNS_FATE_MAX]uint64
	for fate := range all {
		var perCPU []bpf.DnsAnswerDnsCount
		if err := a.maps[bpf.DnsAnswerMapDnsCounts].Lookup(uint32(fate), &perCPU); err != nil {
			return c, fmt.Errorf("read counters: %w", err)
		}
		for _, n := range perCPU {
			all[fate] += n.Times
		}
	}
	c.Answered = all[bpf.DnsAnswerDnsFateDNS_ANSWERED]
	c.Denied = all[bpf.DnsAnswerDnsFateDNS_DENIED]
	for fate, reason := range reasons {
		c.Passed[reason] = all[fate]
	}
	return c, nil
}

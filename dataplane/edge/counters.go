package edge

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
)

// Counters of an Edge since its maps were made.
type Counters struct {
	Services map[string]ServiceCounters // by dataplane.EdgeService.Name
	// Reasons counts packets by what became of them besides plain delivery, such
	// as "unserved_port" or "syn_shed": enum edge_reason in bpf/edge_layout.h.
	Reasons map[string]uint64
	// Faults counts malformed packets by what is wrong with them, such as
	// "ip_checksum": enum packet_fault in bpf/packet.h.
	Faults map[string]uint64
	// NAT counts packets to and from backends behind NAT by what became of them,
	// such as "rewritten" or "exhausted": enum nat_result in bpf/nat_layout.h.
	NAT map[string]uint64
}

// ServiceCounters of one service since it was added.
type ServiceCounters struct {
	Packets uint64 // sent on to backends
	Bytes   uint64 // of these, as IP packets
	Flows   uint64 // TCP connections and, with QUIC, QUIC ones that began
	Refused uint64 // packets refused or dropped once the service was known
}

// Counters reads them.
func (e *Edge) Counters() (Counters, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := Counters{Services: map[string]ServiceCounters{}}
	if e.closed {
		return all, errors.New("read counters: the edge is closed")
	}
	for name, s := range e.entries {
		perCPU, err := counter[bpf.EdgeEdgeServiceCount](e.maps[bpf.EdgeMapEdgeServiceCounts], s.id)
		if err != nil {
			return all, fmt.Errorf("read counters of service %s: %w", name, err)
		}
		var sum ServiceCounters
		for _, n := range perCPU {
			sum.Packets += n.Packets
			sum.Bytes += n.Bytes
			sum.Flows += n.Flows
			sum.Refused += n.Refused
		}
		all.Services[name] = sum
	}
	var err error
	if all.Reasons, err = e.named(bpf.EdgeMapEdgeReasons, e.reasons); err != nil {
		return all, err
	}
	if all.Faults, err = e.named(bpf.EdgeMapEdgeFaults, e.faults); err != nil {
		return all, err
	}
	all.NAT, err = e.named(bpf.EdgeNatMapNatCounts, e.natResults)
	return all, err
}

// named reads the counters of an enum, those that are not zero.
func (e *Edge) named(name string, words []string) (map[string]uint64, error) {
	all := map[string]uint64{}
	for i, word := range words {
		perCPU, err := counter[bpf.EdgeEdgeCount](e.maps[name], uint32(i))
		if err != nil {
			return nil, fmt.Errorf("read counter %s: %w", word, err)
		}
		for _, n := range perCPU {
			if n.Times > 0 {
				all[word] += n.Times
			}
		}
	}
	return all, nil
}

func counter[T any](m *ebpf.Map, id uint32) (perCPU []T, err error) {
	err = m.Lookup(id, &perCPU)
	return perCPU, err
}

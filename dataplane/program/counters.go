package program

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// Counters implements dataplane.Balancer. A service or backend that was removed
// and comes back starts from zero.
func (b *Balancer) Counters() (dataplane.Counters, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := dataplane.Counters{Services: map[string]dataplane.ServiceCounters{}}
	if b.closed {
		return all, errors.New("read counters: the balancer is closed")
	}
	for name, e := range b.entries {
		perCPU, err := counter[bpf.BalanceServiceCount](b.maps[bpf.BalanceMapServiceCounts], e.id)
		if err != nil {
			return all, fmt.Errorf("read counters of service %s: %w", name, err)
		}
		s := dataplane.ServiceCounters{
			Connections: atomic.LoadUint64(&b.cells.services[e.id].Gone),
			Backends:    make(map[netip.AddrPort]dataplane.BackendCounters, len(e.backends)),
		}
		for _, n := range perCPU {
			s.Refused += n.Refused
			s.Limited += n.Limited
		}
		for _, h := range e.backends {
			n := b.cells.counters(h.id)
			s.Connections += n.Connections
			s.Backends[h.at] = n
		}
		all.Services[name] = s
	}
	var err error
	all.UnservedPorts, err = b.reason(bpf.BalanceReasonREASON_UNSERVED_PORT)
	return all, err
}

// reason tells how often the programs gave it.
func (b *Balancer) reason(why bpf.BalanceReason) (total uint64, err error) {
	perCPU, err := counter[bpf.BalanceReasonCount](b.maps[bpf.BalanceMapReasons], uint32(why))
	for _, n := range perCPU {
		total += n.Times
	}
	return total, err
}

func counter[T any](m *ebpf.Map, id uint32) (perCPU []T, err error) {
	err = m.Lookup(id, &perCPU)
	return perCPU, err
}

package program

import (
	"errors"
	"fmt"
	"net/netip"

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
		s := dataplane.ServiceCounters{Backends: map[netip.AddrPort]uint64{}}
		perCPU, err := counter[bpf.BalanceServiceCount](b.maps[bpf.BalanceMapServiceCounts], e.id)
		if err != nil {
			return all, fmt.Errorf("read counters of service %s: %w", name, err)
		}
		for _, n := range perCPU {
			s.Connections += n.Connections
			s.Refused += n.Refused
		}
		for at, id := range e.ids {
			perCPU, err := counter[bpf.BalanceBackendCount](b.maps[bpf.BalanceMapBackendCounts], id)
			if err != nil {
				return all, fmt.Errorf("read counters of service %s: %w", name, err)
			}
			address := netip.AddrPortFrom(decodeAddress(at.addr), swapPort(at.portBe))
			for _, n := range perCPU {
				s.Backends[address] += n.Connections
			}
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

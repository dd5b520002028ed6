package program

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// wanted is a service in the terms of the maps.
type wanted struct {
	*dataplane.Service
	record    bpf.BalanceService // without the run and the counters
	frontends []bpf.BalanceFrontendKey
}

// encode checks the service and turns it into the terms of the maps.
func encode(s *dataplane.Service) (*wanted, error) {
	w := &wanted{Service: s}
	protocol, known := protocols[s.Protocol]
	if !known {
		return nil, fmt.Errorf("the protocol %q is not tcp or udp", s.Protocol)
	}
	if w.record.Balance, known = balances[s.Balance]; !known {
		return nil, fmt.Errorf("the balance %q is not random, maglev or p2c", s.Balance)
	}
	if limit := len(bpf.BalanceServiceName{}.Text) - 1; s.Name == "" || len(s.Name) > limit {
		return nil, fmt.Errorf("the name has %d bytes, not 1 to %d", len(s.Name), limit)
	}
	if s.Affinity < 0 {
		return nil, fmt.Errorf("the affinity %s is negative", s.Affinity)
	}
	if s.MaxConnections > math.MaxInt32 {
		return nil, fmt.Errorf("the limit of %d connections is above %d", s.MaxConnections, math.MaxInt32)
	}
	w.record.AffinityNs = uint64(s.Affinity.Nanoseconds())
	w.record.MaxOpen = int32(s.MaxConnections)
	if s.AffinityBy == api.ByNamespace {
		w.record.Flags |= bpf.BalanceServiceFlagSERVICE_BY_NAMESPACE
	}
	if s.Watch {
		w.record.Flags |= bpf.BalanceServiceFlagSERVICE_WATCH
	}
	bits := 0
	for _, f := range s.Frontends {
		if err := sameFamily(&bits, f.Addr()); err != nil {
			return nil, err
		}
		w.frontends = append(w.frontends, encodeFrontend(f, protocol))
	}
	return w, w.checkBackends(bits)
}

// sameFamily fails when an address is of another family than those before it.
func sameFamily(bits *int, a netip.Addr) error {
	n := a.Unmap().BitLen()
	if *bits != 0 && n != *bits || n == 0 {
		return fmt.Errorf("%s is of another address family than the rest", a)
	}
	*bits = n
	return nil
}

func (w *wanted) checkBackends(bits int) error {
	for i, b := range w.Backends {
		if _, known := states[b.State]; !known {
			return fmt.Errorf("the state %q of backend %s is unknown", b.State, b.Address)
		}
		if err := sameFamily(&bits, b.Address.Addr()); err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		switch before := w.Backends[i-1].Address; before.Compare(b.Address) {
		case 0:
			return fmt.Errorf("backend %s is given twice", b.Address)
		case 1:
			return fmt.Errorf("the backends are not sorted: %s comes before %s", before, b.Address)
		}
	}
	for _, i := range w.Slots {
		if int(i) >= len(w.Backends) {
			return fmt.Errorf("a slot holds backend %d of %d", i, len(w.Backends))
		}
	}
	return nil
}

package program

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/bulk"
	"github.com/weirproject/weir/dataplane/internal/inet"
	"github.com/weirproject/weir/dataplane/internal/room"
)

// Held reads back what the kernel serves, sorted by name, in the terms of a
// Table. Weights are not in the kernel, and a service without frontends has no
// protocol there.
func (b *Balancer) Held() ([]*dataplane.Service, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errors.New("read services back: the balancer is closed")
	}
	frontends, err := bulk.Hash[bpf.BalanceFrontendKey, bpf.BalanceFrontend](b.maps[bpf.BalanceMapFrontends])
	if err != nil {
		return nil, fmt.Errorf("read frontends back: %w", err)
	}
	byID := map[uint32]*dataplane.Service{}
	for _, e := range b.entries {
		cell := &b.cells.services[e.id]
		s := &dataplane.Service{
			Name:     decodeName(&b.cells.names[e.id]),
			Balance:  keyOf(balances, cell.Balance),
			Affinity: time.Duration(cell.AffinityNs), MaxConnections: uint32(cell.MaxOpen),
			Watch: cell.Flags&bpf.BalanceServiceFlagSERVICE_WATCH != 0,
		}
		if cell.Flags&bpf.BalanceServiceFlagSERVICE_BY_NAMESPACE != 0 {
			s.AffinityBy = api.ByNamespace
		}
		b.heldBackends(s, e, room.RunOf(cell.Run))
		byID[e.id] = s
	}
	for key, f := range frontends {
		if s := byID[f.Service]; s != nil {
			s.Frontends = append(s.Frontends, decodeFrontend(key))
			s.Protocol = keyOf(protocols, key.Protocol)
		}
	}
	var all []*dataplane.Service
	for _, s := range byID {
		slices.SortFunc(s.Frontends, netip.AddrPort.Compare)
		all = append(all, s)
	}
	slices.SortFunc(all, func(x, y *dataplane.Service) int { return cmp.Compare(x.Name, y.Name) })
	return all, nil
}

func (b *Balancer) heldBackends(s *dataplane.Service, e *entry, r room.Run) {
	ids := map[netip.AddrPort]uint32{}
	for _, h := range e.backends {
		cell := &b.cells.backends[h.id]
		address := netip.AddrPortFrom(decodeAddress(cell.Addr), inet.Port(cell.PortBe))
		ids[address] = h.id
		s.Backends = append(s.Backends, dataplane.Backend{Address: address, State: keyOf[api.BackendState](states, cell.State)})
	}
	slices.SortFunc(s.Backends, func(x, y dataplane.Backend) int { return x.Address.Compare(y.Address) })
	index := map[uint32]uint32{}
	for i, backend := range s.Backends {
		index[ids[backend.Address]] = uint32(i)
	}
	if uint64(r.First)+uint64(r.Count) > uint64(len(b.cells.slots)) {
		return
	}
	for _, id := range b.cells.slots[r.First : r.First+r.Count] {
		if i, known := index[id]; known {
			s.Slots = append(s.Slots, i)
		}
	}
}

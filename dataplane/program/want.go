package program

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// wanted is a table in the terms of the maps.
type wanted struct {
	ranges    bpf.BalanceRanges
	prefixes  []netip.Prefix
	services  []*wantedService
	names     map[string]bool // of services
	frontends map[bpf.BalanceFrontendKey]string
	left      map[string]error // services left out
}

type wantedService struct {
	name      string
	balance   bpf.BalanceBalance
	affinity  uint64
	frontends []bpf.BalanceFrontendKey
	// backends in the order of the table; the field Service is not set.
	backends []bpf.BalanceBackend
	slots    []uint32 // indexes into backends
}

// leave takes a service out again, and its frontends with it.
func (w *wanted) leave(name string, why error) {
	w.left[name] = why
	delete(w.names, name)
	w.services = slices.DeleteFunc(slices.Clone(w.services), func(s *wantedService) bool { return s.name == name })
	for key, owner := range w.frontends {
		if owner == name {
			delete(w.frontends, key)
		}
	}
}

// addresses are those of the frontends outside of the ranges.
func (w *wanted) addresses() map[bpf.BalanceAddress]bool {
	all := map[bpf.BalanceAddress]bool{}
	for key := range w.frontends {
		a := decodeAddress(key.Addr)
		if !slices.ContainsFunc(w.prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			all[key.Addr] = true
		}
	}
	return all
}

// compile checks the table and turns it into the terms of the maps. Services
// that the programs could not serve are left out.
func compile(t dataplane.Table, maxFrontends uint32) (*wanted, error) {
	w := &wanted{names: map[string]bool{}, frontends: map[bpf.BalanceFrontendKey]string{}, left: map[string]error{}}
	if len(t.Ranges) > len(w.ranges.Entry) {
		return nil, fmt.Errorf("set virtual ips: %d ranges are given, at most %d fit", len(t.Ranges), len(w.ranges.Entry))
	}
	for i, p := range t.Ranges {
		if !p.IsValid() {
			return nil, fmt.Errorf("set virtual ips: range %d is no prefix", i)
		}
		w.prefixes = append(w.prefixes, p)
		w.ranges.Entry[i].Net, w.ranges.Entry[i].Mask = encodePrefix(p)
	}
	w.ranges.Count = uint32(len(t.Ranges))
	for i := range t.Services {
		s := &t.Services[i]
		if w.names[s.Name] {
			w.left[s.Name] = fmt.Errorf("the name is given twice")
			continue
		}
		ws, err := w.service(s)
		if err == nil && len(w.frontends)+len(ws.frontends) > int(maxFrontends) {
			err = fmt.Errorf("the table of frontends is full: it holds %d", maxFrontends)
		}
		if err != nil {
			w.left[s.Name] = err
			continue
		}
		w.names[s.Name] = true
		w.services = append(w.services, ws)
		for _, key := range ws.frontends {
			w.frontends[key] = s.Name
		}
	}
	return w, nil
}

func (w *wanted) service(s *dataplane.Service) (*wantedService, error) {
	ws := &wantedService{name: s.Name, slots: s.Slots}
	protocol, known := protocols[s.Protocol]
	if !known {
		return nil, fmt.Errorf("the protocol %q is not tcp or udp", s.Protocol)
	}
	if ws.balance, known = balances[s.Balance]; !known {
		return nil, fmt.Errorf("the balance %q is not random or maglev", s.Balance)
	}
	if limit := len(bpf.BalanceServiceName{}.Text) - 1; s.Name == "" || len(s.Name) > limit {
		return nil, fmt.Errorf("the name has %d bytes, not 1 to %d", len(s.Name), limit)
	}
	if s.Affinity < 0 {
		return nil, fmt.Errorf("the affinity %s is negative", s.Affinity)
	}
	ws.affinity = uint64(s.Affinity.Nanoseconds())
	family := 0
	sameFamily := func(a netip.Addr) error {
		bits := a.Unmap().BitLen()
		if family != 0 && bits != family || bits == 0 {
			return fmt.Errorf("%s is of another address family than the rest", a)
		}
		family = bits
		return nil
	}
	for _, f := range s.Frontends {
		key := encodeFrontend(f, protocol)
		if err := sameFamily(f.Addr()); err != nil {
			return nil, err
		}
		if owner, taken := w.frontends[key]; taken {
			return nil, fmt.Errorf("frontend %s is %s's", f, owner)
		}
		ws.frontends = append(ws.frontends, key)
	}
	return ws, ws.addBackends(s, sameFamily)
}

func (ws *wantedService) addBackends(s *dataplane.Service, sameFamily func(netip.Addr) error) error {
	seen := map[netip.AddrPort]bool{}
	for _, b := range s.Backends {
		state, known := states[b.State]
		if !known {
			return fmt.Errorf("the state %q of backend %s is unknown", b.State, b.Address)
		}
		if err := sameFamily(b.Address.Addr()); err != nil {
			return err
		}
		if seen[b.Address] {
			return fmt.Errorf("backend %s is given twice", b.Address)
		}
		seen[b.Address] = true
		ws.backends = append(ws.backends, bpf.BalanceBackend{
			Addr: encodeAddress(b.Address.Addr()), PortBe: swapPort(b.Address.Port()), State: state,
		})
	}
	for _, i := range s.Slots {
		if int(i) >= len(ws.backends) {
			return fmt.Errorf("a slot holds backend %d of %d", i, len(ws.backends))
		}
	}
	return nil
}

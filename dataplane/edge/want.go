package edge

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// wanted is a table in the terms of the maps.
type wanted struct {
	source4, source6 netip.Addr
	services         []*wantedService
	names            map[string]bool // of services
	frontends        map[bpf.EdgeFrontendKey]string
	nodes            map[netip.Addr]uint32 // where tunnels end: the hop's id
	left             map[string]error      // services left out
	nat              bool                  // some service is delivered by NAT
	// What allow lists hold: as read back, and as wanted.
	heldAllowed, allowed map[bpf.EdgeEdgeAllowKey]bool
}

type wantedService struct {
	name  string
	cell  bpf.EdgeEdgeService
	allow []netip.Prefix
	// backends in the order of the table; Birth, Service and Hop are not set.
	backends []bpf.EdgeEdgeBackend
	slots    []uint32 // indexes into backends
	previous []uint32 // as slots, or nil
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

// addresses are those of the frontends.
func (w *wanted) addresses() map[bpf.EdgeAddress]bool {
	all := map[bpf.EdgeAddress]bool{}
	for key := range w.frontends {
		all[key.Addr] = true
	}
	return all
}

// compile checks the table and turns it into the terms of the maps. Services that
// the programs could not serve are left out.
func (e *Edge) compile(t dataplane.EdgeTable) *wanted {
	w := &wanted{
		source4: t.Source4, source6: t.Source6, names: map[string]bool{},
		frontends: map[bpf.EdgeFrontendKey]string{}, nodes: map[netip.Addr]uint32{}, left: map[string]error{},
		heldAllowed: map[bpf.EdgeEdgeAllowKey]bool{}, allowed: map[bpf.EdgeEdgeAllowKey]bool{},
	}
	limit := int(e.maps[bpf.EdgeMapEdgeFrontends].MaxEntries())
	for _, s := range t.Services {
		if w.names[s.Name] || w.left[s.Name] != nil {
			w.leave(s.Name, fmt.Errorf("the name is given twice"))
			continue
		}
		ws, keys, err := w.service(s, e.options.Settle)
		if err == nil && ws.cell.Deliver == deliverNAT {
			err = e.loadNAT()
		}
		if err == nil && len(w.frontends)+len(keys) > limit {
			err = fmt.Errorf("the table of frontends is full: it holds %d", limit)
		}
		if err != nil {
			w.left[s.Name] = err
			continue
		}
		w.names[s.Name] = true
		w.services = append(w.services, ws)
		w.nat = w.nat || ws.cell.Deliver == deliverNAT
		for _, key := range keys {
			w.frontends[key] = s.Name
		}
		for i := range ws.backends {
			w.nodes[decodeAddress(ws.backends[i].Node)] = 0
		}
	}
	return w
}

func (w *wanted) service(s *dataplane.EdgeService, settle time.Duration) (*wantedService, []bpf.EdgeFrontendKey, error) {
	ws := &wantedService{name: s.Name, slots: s.Slots, previous: s.Previous}
	protocol, known := protocols[s.Protocol]
	if !known {
		return nil, nil, fmt.Errorf("the protocol %q is not tcp or udp", s.Protocol)
	}
	if ws.cell.Deliver, known = deliveries[s.Deliver]; !known {
		return nil, nil, fmt.Errorf("delivery by %q is not known here", s.Deliver)
	}
	if limit := len(bpf.EdgeServiceName{}.Text) - 1; s.Name == "" || len(s.Name) > limit {
		return nil, nil, fmt.Errorf("the name has %d bytes, not 1 to %d", len(s.Name), limit)
	}
	var keys []bpf.EdgeFrontendKey
	family := 0
	for _, f := range s.Frontends {
		key := encodeFrontend(f, protocol)
		if err := sameFamily(&family, f.Addr()); err != nil {
			return nil, nil, err
		}
		if owner, taken := w.frontends[key]; taken || slices.Contains(keys, key) {
			return nil, nil, fmt.Errorf("frontend %s is %s's", f, owner)
		}
		keys = append(keys, key)
	}
	ws.cell.SettleNs = uint64(settle)
	if s.SYNRate > 0 && s.Protocol == api.TCP {
		ws.cell.SynNs = uint64(time.Second) / uint64(s.SYNRate)
		// A tenth of a second's worth may come at once, and always a few.
		ws.cell.SynBurstNs = max(uint64(100*time.Millisecond), 8*ws.cell.SynNs)
	}
	if s.QUIC && s.Protocol == api.UDP {
		ws.cell.Flags |= flagQUIC
	}
	if len(s.Allow) > 0 {
		ws.cell.Flags |= flagAllow
	}
	for _, p := range s.Allow {
		// A list may name both families; this service has one.
		if p.IsValid() && p.Addr().Unmap().BitLen() == family {
			ws.allow = append(ws.allow, p)
		}
	}
	if err := w.addBackends(ws, s, family); err != nil {
		return nil, nil, err
	}
	return ws, keys, checkSlots(s)
}

func sameFamily(family *int, a netip.Addr) error {
	bits := a.Unmap().BitLen()
	if *family != 0 && bits != *family || bits == 0 {
		return fmt.Errorf("%s is of another address family than the rest", a)
	}
	*family = bits
	return nil
}

func (w *wanted) addBackends(ws *wantedService, s *dataplane.EdgeService, family int) error {
	seen := map[netip.AddrPort]bool{}
	for _, b := range s.Backends {
		state, known := states[b.State]
		if !known {
			return fmt.Errorf("the state %q of backend %s is unknown", b.State, b.Address)
		}
		if err := sameFamily(&family, b.Address.Addr()); err != nil {
			return err
		}
		if seen[b.Address] {
			return fmt.Errorf("backend %s is given twice", b.Address)
		}
		seen[b.Address] = true
		node := b.Node.Unmap()
		if !node.IsValid() || ws.cell.Deliver == deliverNAT {
			node = b.Address.Addr().Unmap()
		}
		cell := bpf.EdgeEdgeBackend{
			Addr: encodeAddress(b.Address.Addr()), Node: encodeAddress(node), PortBe: swap16(b.Address.Port()), State: state,
		}
		source := w.source4
		if node.Is6() {
			cell.Flags |= flagOuter6
			source = w.source6
		}
		if !source.IsValid() {
			return fmt.Errorf("backend %s is at %s, and this node has no address of that family", b.Address, node)
		}
		if node == source.Unmap() {
			if ws.cell.Deliver == deliverNAT {
				return fmt.Errorf("backend %s is at this node's own address, where NAT would send from too", b.Address)
			}
			cell.Flags |= flagLocal
		}
		ws.backends = append(ws.backends, cell)
	}
	return nil
}

func checkSlots(s *dataplane.EdgeService) error {
	if s.Previous != nil && len(s.Previous) != len(s.Slots) {
		return fmt.Errorf("there are %d slots and %d previous ones", len(s.Slots), len(s.Previous))
	}
	for _, list := range [][]uint32{s.Slots, s.Previous} {
		for _, i := range list {
			if int(i) >= len(s.Backends) {
				return fmt.Errorf("a slot holds backend %d of %d", i, len(s.Backends))
			}
		}
	}
	return nil
}

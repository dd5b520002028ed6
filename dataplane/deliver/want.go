package deliver

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/inet"
)

// wanted is a table in the terms of the maps.
type wanted struct {
	config  bpf.DeliverConfig
	ends    map[bpf.DeliverAddress]bpf.DeliverTunnelEnd
	targets map[bpf.DeliverTarget]uint32
	left    map[string]error // services left out
	owners  map[frontend]string
}

type frontend struct {
	address  netip.AddrPort
	protocol api.Protocol
}

// limits of the maps, in elements.
type limits struct{ targets, ends uint32 }

// compile checks the table and turns it into the terms of the maps. Services
// that the programs could not serve are left out.
func compile(t dataplane.DeliveryTable, most limits) (*wanted, error) {
	w := &wanted{
		ends: map[bpf.DeliverAddress]bpf.DeliverTunnelEnd{}, targets: map[bpf.DeliverTarget]uint32{},
		left: map[string]error{}, owners: map[frontend]string{},
	}
	for i, a := range t.Edges {
		if !isHost(a) {
			return nil, fmt.Errorf("edge %d: %q is not the address of a host", i, a)
		}
		w.addEnd(a, bpf.DeliverRoleROLE_EDGE)
	}
	names := map[string]bool{}
	for _, s := range t.Services {
		if s.Deliver != api.DSR && s.Deliver != "" {
			continue
		}
		if names[s.Name] {
			w.left[s.Name] = fmt.Errorf("the name is given twice")
			continue
		}
		names[s.Name] = true
		targets, err := w.service(s)
		if err == nil && uint64(len(w.targets)+len(targets)) > uint64(most.targets) {
			err = fmt.Errorf("the table of targets is full: it holds %d", most.targets)
		}
		if err != nil {
			w.left[s.Name] = err
			continue
		}
		w.take(s, targets)
	}
	if uint64(len(w.ends)) > uint64(most.ends) {
		return nil, fmt.Errorf("%d ends of tunnels are given, at most %d fit", len(w.ends), most.ends)
	}
	return w, nil
}

// take adds the service, all of which is known to be right.
func (w *wanted) take(s *dataplane.EdgeService, targets []bpf.DeliverTarget) {
	for _, target := range targets {
		w.targets[target] = 1
	}
	for _, f := range s.Frontends {
		w.owners[frontend{f, s.Protocol}] = s.Name
	}
	for _, b := range s.Backends {
		w.addEnd(b.Node, bpf.DeliverRoleROLE_NODE)
	}
}

func (w *wanted) addEnd(a netip.Addr, role bpf.DeliverRole) {
	key := encodeAddress(a)
	w.ends[key] = bpf.DeliverTunnelEnd{Roles: w.ends[key].Roles | role}
}

func (w *wanted) service(s *dataplane.EdgeService) ([]bpf.DeliverTarget, error) {
	protocol, known := protocols[s.Protocol]
	if !known {
		return nil, fmt.Errorf("the protocol %q is not tcp or udp", s.Protocol)
	}
	var targets []bpf.DeliverTarget
	for _, f := range s.Frontends {
		if owner, taken := w.owners[frontend{f, s.Protocol}]; taken {
			return nil, fmt.Errorf("frontend %s is %s's", f, owner)
		}
		if !isEndpoint(f) {
			return nil, fmt.Errorf("frontend %q is no address and port", f)
		}
		for _, b := range s.Backends {
			switch {
			case !isEndpoint(b.Address):
				return nil, fmt.Errorf("backend %q is no address and port", b.Address)
			case b.Address.Addr().Unmap().Is4() != f.Addr().Unmap().Is4():
				return nil, fmt.Errorf("backend %s is of another address family than frontend %s", b.Address, f)
			case !isHost(b.Node):
				return nil, fmt.Errorf("the node of backend %s has no address", b.Address)
			}
			targets = append(targets, bpf.DeliverTarget{
				Vip: encodeAddress(f.Addr()), VipPortBe: inet.Port(f.Port()), Protocol: protocol,
				Backend: encodeAddress(b.Address.Addr()), BackendPortBe: inet.Port(b.Address.Port()),
			})
		}
	}
	return targets, nil
}

func isHost(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a.Zone() == ""
}

func isEndpoint(a netip.AddrPort) bool { return isHost(a.Addr()) && a.Port() != 0 }

// protocols by their numbers on the wire.
var protocols = map[api.Protocol]uint8{api.TCP: unix.IPPROTO_TCP, api.UDP: unix.IPPROTO_UDP}

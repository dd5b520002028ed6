package ipvs

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/ipvs/guard"
)

// virtual identifies a service in the kernel.
type virtual = guard.Frontend

// service is what the kernel holds of one.
type service struct {
	scheduler string
	flags     uint32 // of svcFlags
	timeout   uint32 // seconds that a client stays with its destination; 0 without svcPersistent
	// destinations by address; the value is the weight. Weight 0 gets no new
	// connections.
	destinations map[netip.AddrPort]uint32
}

// Flags of a service (IP_VS_SVC_F_*) that are ours to set.
const (
	svcPersistent = 0x01
	svcFallback   = 0x08 // of mh and sh: another destination while the hash's is not available
	// svcMark tells that a service is ours: the kernel keeps bits that it does not
	// know, and ipvsadm does not show them.
	svcMark  = dataplane.BalancerFlags
	svcMarks = 0xff000000
	svcFlags = svcMarks | 0x3d // all but "hashed", which the kernel keeps to itself
)

// schedulers by way of balancing, the best first: a kernel may lack some.
func schedulers(s *dataplane.Service) []string {
	switch s.Balance {
	case api.Maglev:
		return []string{"mh", "sh", "wrr"} // mh: Linux 4.18
	case api.P2C, api.LeastConn:
		return []string{"wlc", "wrr"}
	default:
		if equal(weights(s)) {
			return []string{"rr", "wrr"}
		}
		return []string{"wrr"}
	}
}

// weights of the backends, as the slots share out new connections: nearness and
// slow starts are in them. A hashing scheduler moves clients with every change
// of a weight, and its slots are many, so there the slots say who takes part
// and the weights are the backends' own.
func weights(s *dataplane.Service) []uint32 {
	all := make([]uint32, len(s.Backends))
	for _, i := range s.Slots {
		if int(i) >= len(all) {
			continue
		}
		if s.Balance == api.Maglev {
			all[i] = uint32(max(s.Backends[i].Weight, 1))
		} else {
			all[i]++
		}
	}
	return all
}

// equal tells whether all that get new connections get the same share.
func equal(weights []uint32) bool {
	first := uint32(0)
	for _, w := range weights {
		if w == 0 {
			continue
		}
		if first == 0 {
			first = w
		}
		if w != first {
			return false
		}
	}
	return true
}

// wanted is a table in the kernel's terms.
type wanted struct {
	services map[virtual]*service
	owner    map[virtual]*dataplane.Service
	left     map[string]error // services that are left out, by name
}

// leave leaves a service out.
func (w *wanted) leave(name string, why error) {
	if w.left[name] == nil {
		w.left[name] = why
	}
	for v, s := range w.owner {
		if s.Name == name {
			delete(w.services, v)
			delete(w.owner, v)
		}
	}
}

// compile translates the table. Schedulers in missing are not used.
func compile(t dataplane.Table, missing map[string]bool) *wanted {
	w := &wanted{services: map[virtual]*service{}, owner: map[virtual]*dataplane.Service{}, left: map[string]error{}}
	for _, s := range t.Services {
		kernel, err := compileService(s, missing)
		if err != nil {
			w.left[s.Name] = err
			continue
		}
		for _, at := range s.Frontends {
			v := virtual{UDP: s.Protocol == api.UDP, At: at}
			if other := w.owner[v]; other != nil {
				w.leave(s.Name, fmt.Errorf("%s is served by %s", at, other.Name))
				break
			}
			w.services[v], w.owner[v] = kernel, s
		}
	}
	return w
}

func compileService(s *dataplane.Service, missing map[string]bool) (*service, error) {
	k := &service{flags: svcMark, destinations: map[netip.AddrPort]uint32{}}
	for _, name := range schedulers(s) {
		if !missing[name] {
			k.scheduler = name
			break
		}
	}
	switch k.scheduler {
	case "":
		return nil, fmt.Errorf("the kernel has none of the schedulers %v (modules ip_vs_*)", schedulers(s))
	case "mh", "sh":
		k.flags |= svcFallback
	}
	if s.Affinity > 0 {
		k.flags |= svcPersistent
		k.timeout = uint32(max((s.Affinity+time.Second-1)/time.Second, 1))
	}
	v6 := false
	for i, at := range s.Frontends {
		if err := usable(at); err != nil {
			return nil, err
		}
		if v6 = at.Addr().Is6(); v6 != s.Frontends[0].Addr().Is6() {
			return nil, fmt.Errorf("%s and %s differ in their address family", s.Frontends[0], s.Frontends[i])
		}
	}
	shares := weights(s)
	for i, b := range s.Backends {
		if b.Address.Addr().Is6() != v6 {
			return nil, fmt.Errorf("backend %s differs from the virtual address in its address family", b.Address)
		}
		switch b.State {
		case api.Up:
			k.destinations[b.Address] = shares[i]
		case api.Draining:
			k.destinations[b.Address] = 0
		}
	}
	return k, nil
}

// usable refuses what the kernel would take for something else: port 0 means
// all ports to IPVS.
func usable(at netip.AddrPort) error {
	a := at.Addr()
	switch {
	case !at.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Is4In6() || a.Zone() != "":
		return fmt.Errorf("%s cannot be a virtual address", at)
	case at.Port() == 0:
		return errors.New("port 0 cannot be served")
	}
	return nil
}

// rules is what the packet filter has to know.
func (w *wanted) rules(networks []netip.Prefix) guard.Rules {
	r := guard.Rules{Networks: networks, Frontends: make(map[virtual]guard.Verdict, len(w.services))}
	for v, s := range w.services {
		r.Frontends[v] = verdict(s)
	}
	return r
}

// programmed are the services that IPVS gets. An empty one is not among them:
// IPVS would answer for it, in a way that the node's own clients see late.
func (w *wanted) programmed() map[virtual]*service {
	all := map[virtual]*service{}
	for v, s := range w.services {
		if len(s.destinations) > 0 {
			all[v] = s
		}
	}
	return all
}

func verdict(s *service) guard.Verdict {
	v := guard.Empty
	for _, weight := range s.destinations {
		if weight > 0 {
			return guard.Open
		}
		v = guard.Draining
	}
	return v
}

// networks are the virtual ones, sorted: the ranges, and the addresses of the
// services that are in none of them.
func (w *wanted) networks(ranges []netip.Prefix) []netip.Prefix {
	all := map[netip.Prefix]bool{}
	for _, r := range ranges {
		all[r.Masked()] = true
	}
	for v := range w.services {
		if a := v.At.Addr(); !within(ranges, a) {
			all[netip.PrefixFrom(a, a.BitLen())] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
}

func within(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}

// protocolOf is the number of the service's protocol.
func protocolOf(v virtual) uint16 {
	if v.UDP {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

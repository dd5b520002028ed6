package zones

import (
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// serviceMember is a service's part in the groups: its backends, those of them
// on this node, and its virtual addresses.
type serviceMember struct {
	key                   string
	backends, local, vips *member
}

func (b *plan) node(n *api.Node) *member {
	m := &member{groups: b.fleet(b.nodes)}
	base := len(m.groups)
	for _, a := range n.Addresses {
		if a.IsValid() {
			m.addrs = append(m.addrs, plain(a))
		}
	}
	for _, z := range b.index.zonesOf(*n) {
		m.groups = append(m.groups, b.words[z])
	}
	if len(m.groups) > base {
		m.groups = append(m.groups, b.zoned)
	}
	return m
}

// fleet is the groups, and that of everything inside where anybody asks for it.
func (b *plan) fleet(groups ...*group) []*group {
	if len(b.policy.Egress) > 0 {
		groups = append(groups, b.inside)
	}
	return groups
}

func (b *plan) service(s api.Service, state State) serviceMember {
	m := serviceMember{key: s.Key(), backends: &member{groups: b.fleet()}, local: &member{groups: []*group{b.local}}, vips: &member{groups: b.fleet()}}
	inZone := false
	for _, z := range b.index.moving {
		if selectsService(b.policy.Zones[z], s) {
			m.backends.groups = append(m.backends.groups, b.words[z])
			inZone = true
		}
	}
	if inZone {
		m.backends.groups = append(m.backends.groups, b.zoned)
	}
	if g := b.words[m.key]; g != nil {
		if kind, _ := wordOf(b.policy, m.key); kind == wordService {
			m.backends.groups = append(m.backends.groups, g)
			m.vips.groups = append(m.vips.groups, g)
		}
	}
	m.backends.addrs = make([]netip.Addr, 0, len(s.Backends))
	for _, backend := range s.Backends {
		if !backend.Address.IsValid() {
			continue
		}
		a := plain(backend.Address.Addr())
		m.backends.addrs = append(m.backends.addrs, a)
		if backend.Node == b.name && b.name != "" {
			m.local.addrs = append(m.local.addrs, a)
		}
	}
	for _, vip := range s.VIPs {
		for _, a := range state.addressesOf(s, vip) {
			if a.IsValid() {
				m.vips.addrs = append(m.vips.addrs, plain(a))
			}
		}
	}
	return m
}

func (b *plan) app(a *App) [2]*member {
	all, local := &member{groups: b.fleet()}, &member{groups: []*group{b.local}}
	base := len(all.groups)
	for _, z := range b.index.moving {
		if s := b.policy.Zones[z].Apps; s != nil && s.Matches(a.ID, a.Labels) {
			all.groups = append(all.groups, b.words[z])
		}
	}
	if len(all.groups) > base {
		all.groups = append(all.groups, b.zoned)
	}
	for _, i := range a.Instances {
		if !i.Address.IsValid() {
			continue
		}
		all.addrs = append(all.addrs, plain(i.Address))
		if i.Node == b.name && b.name != "" {
			local.addrs = append(local.addrs, plain(i.Address))
		}
	}
	return [2]*member{all, local}
}

// followEndpoints makes the endpoint sets that may have changed.
func (b *plan) followEndpoints(state State) {
	b.own = dataplane.EndpointSet{Name: ownSet}
	for _, a := range state.Own {
		a = netip.AddrPortFrom(plain(a.Addr()), a.Port())
		b.own.Endpoints = append(b.own.Endpoints, dataplane.Endpoint{Address: a, Protocol: api.TCP}, dataplane.Endpoint{Address: a, Protocol: api.UDP})
	}
	b.own = settled(b.own)
	if !slices.ContainsFunc(slices.Collect(maps.Values(b.services)), func(e *endpoints) bool { return e.stale }) {
		return
	}
	made := map[*endpoints][]dataplane.Endpoint{}
	for i := range state.Services {
		e := b.services[b.serviceParts[i].key]
		if e == nil || !e.stale {
			continue
		}
		s := state.Services[i]
		for _, backend := range s.Backends {
			if backend.Address.IsValid() {
				a := netip.AddrPortFrom(plain(backend.Address.Addr()), backend.Address.Port())
				made[e] = append(made[e], dataplane.Endpoint{Address: a, Protocol: s.EffectiveProtocol()})
			}
		}
		for _, vip := range s.VIPs {
			for _, a := range state.addressesOf(s, vip) {
				if a.IsValid() {
					made[e] = append(made[e], dataplane.Endpoint{Address: netip.AddrPortFrom(plain(a), vip.Port), Protocol: s.EffectiveProtocol()})
				}
			}
		}
	}
	for _, e := range b.services {
		if e.stale {
			e.set.Endpoints, e.stale = made[e], false
			e.set = settled(e.set)
		}
	}
}

// settled sorts the set's elements and gives it its version.
func settled(s dataplane.EndpointSet) dataplane.EndpointSet {
	slices.SortFunc(s.Endpoints, func(a, b dataplane.Endpoint) int {
		if c := a.Address.Compare(b.Address); c != 0 {
			return c
		}
		return strings.Compare(string(a.Protocol), string(b.Protocol))
	})
	s.Endpoints = slices.Compact(s.Endpoints)
	s.Version = 1
	for _, e := range s.Endpoints {
		s.Version += maphash.Comparable(seed, e)
	}
	s.Version = max(s.Version, 1)
	return s
}

package agent

import (
	"net/netip"
	"slices"

	"github.com/weirproject/weir/agent/health"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/vip"
)

// healthTargets are the backends that this node checks: of a standalone agent,
// all.
func (a *Agent) healthTargets(s *api.Snapshot) []health.Target {
	ways := a.tunnels(s)
	var targets []health.Target
	for i := range s.Services {
		service := &s.Services[i]
		if service.Health == nil {
			continue
		}
		for _, b := range service.Backends {
			t := health.Target{
				Service: service.Key(), Protocol: service.EffectiveProtocol(),
				Backend: b.Address, Check: service.Health.WithDefaults(),
			}
			if way, found := ways[wayKey{t.Service, t.Protocol, b.Address}]; found {
				t.Tunnel = &way
			}
			targets = append(targets, t)
		}
	}
	return targets
}

type wayKey struct {
	service  string
	protocol api.Protocol
	backend  netip.AddrPort
}

// tunnels are the ways of the checks that edge nodes send as they send clients'
// packets. A backend on this very node is checked directly: what a node sends to
// itself leaves by no interface.
func (a *Agent) tunnels(s *api.Snapshot) map[wayKey]health.Tunnel {
	edge := a.edgeOptions(s)
	if edge == nil {
		return nil
	}
	narrow := *s
	narrow.Services = slices.DeleteFunc(slices.Clone(s.Services), func(service api.Service) bool {
		return service.Health == nil || service.Health.TCP == nil || !service.Health.TCP.Tunnel
	})
	if len(narrow.Services) == 0 {
		return nil
	}
	source := func(of netip.Addr) netip.Addr {
		if of.Is4() {
			return edge.Source4
		}
		return edge.Source6
	}
	ways := map[wayKey]health.Tunnel{}
	byName := map[string]*api.Service{}
	for i := range narrow.Services {
		service := &narrow.Services[i]
		byName[service.Key()+"/"+string(service.EffectiveProtocol())] = service
	}
	table, _ := vip.CompileEdge(&narrow, vip.Options{Ranges: a.config.ranges(), Edge: edge})
	for _, t := range table.Services {
		service := byName[t.Name[:len(t.Name)-len("/4")]]
		if t.Deliver != api.DSR || len(t.Frontends) == 0 {
			continue
		}
		for _, b := range t.Backends {
			if slices.Contains(s.Node.Addresses, b.Node) {
				continue
			}
			ways[wayKey{service.Key(), service.EffectiveProtocol(), b.Address}] = health.Tunnel{
				VIP: t.Frontends[0], Node: b.Node, Source: source(t.Frontends[0].Addr()), Outer: source(b.Node),
			}
		}
	}
	return ways
}

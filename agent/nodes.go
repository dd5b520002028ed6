package agent

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/vip"
)

// nodeStates is what the health of nodes means for the backends on them: those
// of a suspect node get no new connections, those of a dead one are out. A
// service that would be left with none keeps all: it is likelier that this
// node sees badly than that nobody serves.
type nodeStates struct {
	mu       sync.Mutex // guards what follows
	verdicts map[backendKey]nodeVerdict

	// What follows is set's alone: what the verdicts were made of.
	unwell map[string]api.NodeHealth
	nodes  []api.Node
	judged []judgedService
}

// judgedService is a service at its place in the snapshot, with the backends
// that verdicts are about.
type judgedService struct {
	name, namespace string
	protocol        api.Protocol
	backends        []api.Backend
	keys            []backendKey
}

// backendKey names a backend among all.
type backendKey struct {
	service  string
	protocol api.Protocol
	address  netip.AddrPort
}

type nodeVerdict struct {
	state  api.BackendState
	reason string
}

// state of the backend by its node; up when nothing is wrong with that.
func (n *nodeStates) state(service string, protocol api.Protocol, backend netip.AddrPort) (api.BackendState, string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.verdicts) == 0 {
		return api.Up, ""
	}
	if v, found := n.verdicts[backendKey{service, protocol, backend}]; found {
		return v.state, v.reason
	}
	return api.Up, ""
}

// set takes over which nodes are not alive, and returns the services of which
// backends' states have changed. touched are those of which states may have
// changed otherwise, and upButFor tells whether a backend would get connections
// were it not for its node. While the same nodes are not alive, it costs what
// changes.
func (n *nodeStates) set(s *api.Snapshot, unwell map[string]api.NodeHealth, touched map[vip.ServiceRef]bool, upButFor func(*api.Service, api.Backend) bool) (changed []vip.ServiceRef) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(unwell) == 0 && len(n.verdicts) == 0 {
		n.unwell, n.judged = nil, nil
		return nil
	}
	if n.verdicts == nil {
		n.verdicts = map[backendKey]nodeVerdict{}
	}
	all := !maps.Equal(unwell, n.unwell) || !sameMemory(n.nodes, s.Nodes) || n.rearranged(s)
	owners := ownersOf(s.Nodes, unwell)
	before := n.judged
	if all {
		n.judged = make([]judgedService, len(s.Services))
	}
	var gone []backendKey
	for i := range s.Services {
		service := &s.Services[i]
		ref := vip.ServiceRef{Service: "", Protocol: service.EffectiveProtocol()}
		if !all && sameMemory(n.judged[i].backends, service.Backends) {
			if len(touched) == 0 {
				continue
			}
			if ref.Service = service.Key(); !touched[ref] {
				continue
			}
		}
		ref.Service = service.Key()
		now := judgeBackends(service, unwell, owners, upButFor)
		was := n.judged[i].keys
		if all {
			was = nil
		}
		if n.replace(was, now) {
			changed = append(changed, ref)
		}
		n.judged[i] = judgedService{service.Name, service.Namespace, service.Protocol, service.Backends, slices.Collect(maps.Keys(now))}
	}
	if all {
		gone = n.gone(before)
	}
	n.unwell, n.nodes = unwell, s.Nodes
	return append(changed, n.drop(gone)...)
}

// rearranged tells whether the services are others than those that were judged,
// or stand elsewhere.
func (n *nodeStates) rearranged(s *api.Snapshot) bool {
	if len(n.judged) != len(s.Services) {
		return true
	}
	for i := range s.Services {
		a, b := &n.judged[i], &s.Services[i]
		if !sameMemory(a.backends, b.Backends) && (a.name != b.Name || a.namespace != b.Namespace || a.protocol != b.Protocol) {
			return true
		}
	}
	return false
}

// replace puts the verdicts on one service's backends in the place of the old,
// and tells whether that changes anything.
func (n *nodeStates) replace(was []backendKey, now map[backendKey]nodeVerdict) (changed bool) {
	for _, k := range was {
		if _, still := now[k]; !still {
			delete(n.verdicts, k)
			changed = true
		}
	}
	for k, v := range now {
		if n.verdicts[k] != v {
			n.verdicts[k] = v
			changed = true
		}
	}
	return changed
}

// gone are the backends judged before and not now.
func (n *nodeStates) gone(before []judgedService) (gone []backendKey) {
	now := map[backendKey]bool{}
	for i := range n.judged {
		for _, k := range n.judged[i].keys {
			now[k] = true
		}
	}
	for i := range before {
		for _, k := range before[i].keys {
			if !now[k] {
				gone = append(gone, k)
			}
		}
	}
	return gone
}

// drop takes verdicts back, and returns the services that they were about.
func (n *nodeStates) drop(gone []backendKey) (changed []vip.ServiceRef) {
	seen := map[vip.ServiceRef]bool{}
	for _, k := range gone {
		delete(n.verdicts, k)
		if ref := (vip.ServiceRef{Service: k.service, Protocol: k.protocol}); !seen[ref] {
			seen[ref] = true
			changed = append(changed, ref)
		}
	}
	return changed
}

// sameMemory tells whether two lists are the same one.
func sameMemory[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// ownersOf are the unwell nodes by their addresses.
func ownersOf(nodes []api.Node, unwell map[string]api.NodeHealth) map[netip.Addr]string {
	owners := map[netip.Addr]string{}
	for i := range nodes {
		if _, bad := unwell[nodes[i].Name]; bad {
			for _, a := range nodes[i].Addresses {
				owners[a.Unmap()] = nodes[i].Name
			}
		}
	}
	return owners
}

// judgeBackends judges the backends of a service that are on unwell nodes.
func judgeBackends(service *api.Service, unwell map[string]api.NodeHealth, owners map[netip.Addr]string, upButFor func(*api.Service, api.Backend) bool) map[backendKey]nodeVerdict {
	var verdicts map[backendKey]nodeVerdict
	left := false
	for i := range service.Backends {
		b := &service.Backends[i]
		node := b.Node
		if node == "" {
			node = owners[b.Address.Addr().Unmap()]
		}
		health, bad := unwell[node]
		if !bad {
			continue
		}
		if verdicts == nil {
			verdicts = map[backendKey]nodeVerdict{}
		}
		verdict := nodeVerdict{api.Draining, "its node " + node + " is suspect: not heard of for a moment"}
		if health == api.NodeDead {
			verdict = nodeVerdict{api.Down, "its node " + node + " is dead"}
		}
		verdicts[backendKey{service.Key(), service.EffectiveProtocol(), b.Address}] = verdict
	}
	for i := range service.Backends {
		if left || verdicts == nil {
			break
		}
		b := service.Backends[i]
		_, bad := verdicts[backendKey{service.Key(), service.EffectiveProtocol(), b.Address}]
		left = !bad && upButFor(service, b)
	}
	if !left { // never empty
		return nil
	}
	return verdicts
}

// unwell are the nodes that are not alive: by the word of the nodes among
// themselves, and by the controllers' of those that nobody here has heard of.
func (a *Agent) unwell(s *api.Snapshot) map[string]api.NodeHealth {
	var known map[string]api.NodeHealth
	if a.peers != nil {
		known = a.peers.All()
	}
	var bad map[string]api.NodeHealth
	for i := range s.Nodes {
		n := &s.Nodes[i]
		health := n.Health
		if h, ok := known[n.Name]; ok {
			health = h
		}
		if n.Name == a.config.Node.Name || health == "" || health == api.NodeAlive {
			continue
		}
		if bad == nil {
			bad = map[string]api.NodeHealth{}
		}
		bad[n.Name] = health
	}
	return bad
}

// followNodes brings the backends' states in line with their nodes' health.
func (a *Agent) followNodes(s *api.Snapshot) {
	changed := a.backends.nodes.set(s, a.unwell(s), a.backends.peek(), func(service *api.Service, b api.Backend) bool {
		key, protocol := service.Key(), service.EffectiveProtocol()
		if b.State == api.Down || b.State == api.Draining || b.EffectiveWeight() == 0 || a.backends.drained(key, protocol, b.Address) {
			return false
		}
		state, _ := a.backends.ownState(key, protocol, b.Address)
		return state == api.Up
	})
	for _, ref := range changed {
		a.backends.touch(ref.Service, ref.Protocol)
	}
}

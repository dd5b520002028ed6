package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/weirproject/weir/agent/drain"
	"github.com/weirproject/weir/agent/health"
	"github.com/weirproject/weir/agent/outlier"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/vip"
)

// backends joins what is observed about backends: by checks, by real
// connections, by the clock that ends drains, and what people have drained by
// hand on this node.
type backends struct {
	health  *health.Checker
	outlier *outlier.Detector
	drains  *drain.Tracker
	nodes   nodeStates

	mu      sync.Mutex              // guards what follows
	byHand  map[handDrain]bool      // drained by weir vip drain
	touched map[vip.ServiceRef]bool // whose states may have changed
}

// handDrain is one backend that people have drained on this node.
type handDrain struct {
	Service  string         `json:"service"`
	Protocol api.Protocol   `json:"protocol"`
	Backend  netip.AddrPort `json:"backend"`
}

// state is the worst of what is observed, and why.
func (b *backends) state(service string, protocol api.Protocol, backend netip.AddrPort) (api.BackendState, string) {
	state, reason := b.unejected(service, protocol, backend)
	if state != api.Up {
		return state, reason
	}
	return b.outlier.State(service, protocol, backend)
}

// upButFor tells whether the backend would get connections were it not ejected.
func (b *backends) upButFor(s *api.Service, backend api.Backend) bool {
	state, _ := b.unejected(s.Key(), s.EffectiveProtocol(), backend.Address)
	return state == api.Up && (backend.State == "" || backend.State == api.Up) && !b.drained(s.Key(), s.EffectiveProtocol(), backend.Address)
}

// unejected leaves out what real connections tell.
func (b *backends) unejected(service string, protocol api.Protocol, backend netip.AddrPort) (api.BackendState, string) {
	state, reason := b.ownState(service, protocol, backend)
	if byNode, why := b.nodes.state(service, protocol, backend); byNode == api.Down || state == api.Up {
		return byNode, why
	}
	return state, reason
}

// ownState leaves out what is known of the backend's node, too.
func (b *backends) ownState(service string, protocol api.Protocol, backend netip.AddrPort) (api.BackendState, string) {
	state, reason := b.health.State(service, protocol, backend)
	if state == api.Down {
		return state, reason
	}
	if over, why := b.drains.State(service, protocol, backend); over != api.Up {
		return over, why
	}
	return state, reason
}

// drained tells whether people have drained the backend on this node.
func (b *backends) drained(service string, protocol api.Protocol, backend netip.AddrPort) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.byHand[handDrain{service, protocol, backend}]
}

// upSince is when the last thing that kept a backend from new connections ended.
func (b *backends) upSince(service string, protocol api.Protocol, backend netip.AddrPort) time.Time {
	since := b.health.Since(service, protocol, backend)
	if back := b.outlier.Since(service, protocol, backend); back.After(since) {
		since = back
	}
	return since
}

// touch says that states of the service may have changed.
func (b *backends) touch(service string, protocol api.Protocol) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.touched[vip.ServiceRef{Service: service, Protocol: protocol}] = true
}

// peek is what was touched since the last take.
func (b *backends) peek() map[vip.ServiceRef]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.touched)
}

// take returns what was touched since the last time.
func (b *backends) take() []vip.ServiceRef {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []vip.ServiceRef
	for ref := range b.touched {
		all = append(all, ref)
	}
	clear(b.touched)
	return all
}

// drainByHand starts or ends a drain and tells whether that changed anything.
func (b *backends) drainByHand(d api.Drain) (changed bool) {
	key := handDrain{d.Service, d.Protocol, d.Backend}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byHand[key] == !d.Undo {
		return false
	}
	if d.Undo {
		delete(b.byHand, key)
	} else {
		b.byHand[key] = true
	}
	b.touched[vip.ServiceRef{Service: d.Service, Protocol: d.Protocol}] = true
	return true
}

// handDrains lists them, sorted.
func (b *backends) handDrains() []handDrain {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]handDrain, 0, len(b.byHand))
	for d := range b.byHand {
		all = append(all, d)
	}
	slices.SortFunc(all, func(x, y handDrain) int {
		return slices.Compare([]string{x.Service, string(x.Protocol), x.Backend.String()}, []string{y.Service, string(y.Protocol), y.Backend.String()})
	})
	return all
}

// setDrains tells the tracker which backends drain, of the services whose
// drains end, and returns when the next one does.
func (b *backends) setDrains(now time.Time, s *api.Snapshot) (changed bool, next time.Time) {
	var draining []drain.Backend
	for i := range s.Services {
		service := &s.Services[i]
		if service.Drain <= 0 {
			continue
		}
		for _, backend := range service.Backends {
			state, _ := b.health.State(service.Key(), service.EffectiveProtocol(), backend.Address)
			if backend.State == api.Draining || state == api.Draining || b.drained(service.Key(), service.EffectiveProtocol(), backend.Address) {
				draining = append(draining, drain.Backend{
					Service: service.Key(), Protocol: service.EffectiveProtocol(), Address: backend.Address, Timeout: service.Drain.Std(),
				})
			}
		}
	}
	if changed = b.drains.Set(now, draining); changed {
		for _, d := range draining {
			b.touch(d.Service, d.Protocol)
		}
	}
	return changed, b.drains.Next()
}

// check tells what is wrong with a drain.
func (b *backends) check(s *api.Snapshot, d api.Drain) error {
	for i := range s.Services {
		service := &s.Services[i]
		if service.Key() != d.Service || service.EffectiveProtocol() != d.Protocol {
			continue
		}
		for _, backend := range service.Backends {
			if backend.Address == d.Backend {
				return nil
			}
		}
		return fmt.Errorf("%s %s has no backend %s; weir vip show %s lists them", d.Protocol, d.Service, d.Backend, d.Service)
	}
	return fmt.Errorf("there is no %s service %s", d.Protocol, d.Service)
}

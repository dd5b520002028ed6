package agent

import (
	"context"
	"time"

	"github.com/weirproject/weir/agent/outlier"
	"github.com/weirproject/weir/api"
)

// observeInterval is how often the counters of watched services are looked at.
const observeInterval = 500 * time.Millisecond

// watchConnections tells the outlier detector what the kernel has counted.
func (a *Agent) watchConnections(ctx context.Context) error {
	ticker := time.NewTicker(observeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		s := a.snapshot.Load()
		if s == nil || a.vips.balancer == nil {
			continue
		}
		if watched := a.watched(s); len(watched) > 0 {
			a.observe(watched)
		}
	}
}

// watched are the services with outlier detection; others are forgotten.
func (a *Agent) watched(s *api.Snapshot) (watched []*api.Service) {
	var keys []outlier.Service
	for i := range s.Services {
		if service := &s.Services[i]; service.Outlier != nil {
			watched = append(watched, service)
			keys = append(keys, outlier.Service{Key: service.Key(), Protocol: service.EffectiveProtocol()})
		}
	}
	a.backends.outlier.Set(keys)
	return watched
}

func (a *Agent) observe(watched []*api.Service) {
	counters, err := a.vips.balancer.Counters()
	if err != nil {
		a.log.Warn("connections not watched", "error", err)
		return
	}
	now, changed := time.Now(), false
	for _, service := range watched {
		key := outlier.Service{Key: service.Key(), Protocol: service.EffectiveProtocol()}
		seen := make([]outlier.Counter, 0, len(service.Backends))
		for _, b := range service.Backends {
			family := "/4"
			if b.Address.Addr().Unmap().Is6() {
				family = "/6"
			}
			n := counters.Services[key.Key+"/"+string(key.Protocol)+family].Backends[b.Address]
			seen = append(seen, outlier.Counter{
				Backend: b.Address, Connections: n.Connections, Failures: n.Failures, Up: a.backends.upButFor(service, b),
			})
		}
		if a.backends.outlier.Observe(now, key, *service.Outlier, seen) {
			a.backends.touch(key.Key, key.Protocol)
			changed = true
		}
	}
	if changed {
		a.pokeStates()
	}
}

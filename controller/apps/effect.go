package apps

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/store"
	"github.com/weirproject/weir/vip"
	"github.com/weirproject/weir/wanted"
)

// serviceChange is what is new of the services, and what is gone.
type serviceChange struct {
	changed map[string]*api.Service // by key
	gone    []string
	// clashing: names, addresses or families are others.
	clashing bool
}

// differ compares what services shall be with those in effect; nil: it is so.
func (l *Loop) differ(want []*api.Service) *serviceChange {
	c := &serviceChange{changed: map[string]*api.Service{}}
	seen := map[string]bool{}
	for _, s := range want {
		key := api.ServiceKey(s)
		seen[key] = true
		old := l.services[key]
		if old != nil && same(old, s) {
			continue
		}
		if why, ok := l.refused[key]; ok && why == fingerprint(s) {
			continue // no node could apply it, and it is as it was
		}
		c.changed[key] = s
		c.clashing = c.clashing || old == nil || old.VIPs[0] != s.VIPs[0] || families(old) != families(s)
	}
	for key := range l.services {
		if !seen[key] {
			c.gone, c.clashing = append(c.gone, key), true
		}
	}
	if len(c.changed)+len(c.gone) == 0 {
		return nil
	}
	return c
}

// fingerprint of what clashes may be about.
func fingerprint(s *api.Service) string { return fmt.Sprint(s.VIPs, s.Protocol, families(s)) }

// families of a service's backends; a VIP has an address of each.
func families(s *api.Service) (has [2]bool) {
	for _, b := range s.Backends {
		if b.Address.Addr().Unmap().Is4() {
			has[0] = true
		} else {
			has[1] = true
		}
	}
	return has
}

// commitServices writes the services, with the addresses of their names. What
// no node could apply, beside what people have declared, is left out and said.
func (l *Loop) commitServices(ctx context.Context, c *serviceChange) error {
	var ops []store.Op
	var err error
	gate := uint64(0)
	if c.clashing {
		state := l.o.Hub.State()
		gate = state.Gate
		if ops, err = l.judge(state, c); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.changed)) {
		text, err := json.Marshal(c.changed[key])
		if err != nil {
			return err
		}
		ops = append(ops, store.Op{Key: hub.EffectKey("service", key), Value: text})
	}
	for _, key := range c.gone {
		ops = append(ops, store.Op{Key: hub.EffectKey("service", key), Delete: true})
	}
	revision := uint64(0)
	for len(ops) > 0 {
		n := min(len(ops), opsOfCommit)
		part, conditions := slices.Clone(ops[:n]), []store.Condition{l.fence}
		if c.clashing {
			part = append(part, store.Op{Key: hub.GateKey, Value: []byte("apps")})
			conditions = append(conditions, store.Condition{Key: hub.GateKey, Version: gate})
		}
		if revision, err = l.o.Store.Commit(ctx, conditions, part); err != nil {
			return fmt.Errorf("write the services of apps: %w", err)
		}
		gate, ops = revision, ops[n:]
	}
	maps.Copy(l.services, c.changed)
	for _, key := range c.gone {
		delete(l.services, key)
	}
	if c.clashing && revision > 0 {
		return l.o.Hub.Wait(ctx, revision)
	}
	return nil
}

// judge leaves out what no node could apply, and returns the allotments of
// named VIPs.
func (l *Loop) judge(state *hub.State, c *serviceChange) ([]store.Op, error) {
	for {
		next, err := state.With(c.snapshot(l.o.Hub))
		if err != nil {
			return nil, fmt.Errorf("write the services of apps: %w", err)
		}
		was := next.VIPs
		if next.VIPs, err = vip.Allot(was, next.Services, l.o.Range, l.o.Range6); err != nil {
			return nil, fmt.Errorf("allot the addresses of named VIPs: %w", err)
		}
		options := l.o.Names
		options.Previous = l.names
		names, faults := wanted.Check(next, wanted.Options{Names: options, Now: l.o.Now()})
		left := false
		for _, f := range faults {
			for key, s := range c.changed {
				if f.Kind == "service" && (f.Key == s.Key() || f.Key == key) {
					l.log.Warn("a VIP of an app is refused", "service", key, "error", f.Err)
					l.refused[key] = fingerprint(s)
					delete(c.changed, key)
					left = true
				}
			}
		}
		if !left {
			if len(faults) > 0 {
				l.log.Warn("the services of apps are written beside what is not right", "error", faults[0])
			}
			l.names = names
			return allotments(was, next.VIPs)
		}
	}
}

// snapshot is the change as nodes see it: what people declare counts more.
func (c *serviceChange) snapshot(h *hub.Hub) *api.SnapshotChange {
	s := &api.SnapshotChange{}
	declared := func(key string) bool {
		_, err := h.Get("service", key)
		return err == nil
	}
	for _, key := range slices.Sorted(maps.Keys(c.changed)) {
		if !declared(key) {
			s.Services = append(s.Services, *c.changed[key])
		}
	}
	for _, key := range c.gone {
		if !declared(key) {
			s.Gone.Services = append(s.Gone.Services, key)
		}
	}
	return s
}

func allotments(was, now map[string]api.VIPAddresses) ([]store.Op, error) {
	var ops []store.Op
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if addresses := now[name]; was[name] != addresses {
			text, err := json.Marshal(addresses)
			if err != nil {
				return nil, err
			}
			ops = append(ops, store.Op{Key: hub.VIPKey(name), Value: text})
		}
	}
	for name := range was {
		if _, ok := now[name]; !ok {
			ops = append(ops, store.Op{Key: hub.VIPKey(name), Delete: true})
		}
	}
	return ops, nil
}

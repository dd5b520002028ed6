package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
)

// reachEvery is how often a node looks, while a policy waits to be confirmed,
// whether it still hears of the others.
const reachEvery = 500 * time.Millisecond

// heard are the others that this node hears of now, by kind. A kind of which
// some were heard when a policy was applied, and none later, is lost.
func (a *Agent) heard() map[string][]string {
	all := map[string][]string{}
	if nodes := a.answeringNodes(); len(nodes) > 0 {
		all["peer"] = nodes
	}
	s := a.snapshot.Load()
	if s == nil || a.peers == nil {
		return all
	}
	for _, n := range s.Nodes {
		if health, known := a.peers.Health(n.Name); n.Name == s.Node.Name || !known || health != api.NodeAlive {
			continue
		}
		kind := "peer"
		if n.EffectiveRole() == api.RoleController {
			kind = "controller"
		}
		if !slices.Contains(all[kind], n.Name) {
			all[kind] = append(all[kind], n.Name)
		}
	}
	return all
}

// answeringNodes are the other nodes with a backend that this node checks and
// that is up.
func (a *Agent) answeringNodes() (nodes []string) {
	s := a.snapshot.Load()
	if s == nil || a.backends == nil {
		return nil
	}
	for i := range s.Services {
		service := &s.Services[i]
		if service.Health == nil {
			continue
		}
		for _, b := range service.Backends {
			if b.Node == "" || b.Node == s.Node.Name || slices.Contains(nodes, b.Node) {
				continue
			}
			if state, _ := a.backends.health.State(service.Key(), service.EffectiveProtocol(), b.Address); state == api.Up {
				nodes = append(nodes, b.Node)
			}
		}
	}
	slices.Sort(nodes)
	return nodes
}

// lost says which kind of others is not heard of any more; empty: none.
func lost(before, now map[string][]string) string {
	for _, kind := range []string{"controller", "peer"} {
		if names := before[kind]; len(names) > 0 && len(now[kind]) == 0 {
			return fmt.Sprintf("no %s is heard of any more (%s before)", kind, strings.Join(names, ", "))
		}
	}
	return ""
}

// run ends changes that nobody confirms, and those that cut this node off from
// the others, until ctx ends.
func (p *policies) run(ctx context.Context) {
	ticker := time.NewTicker(repairInterval)
	defer ticker.Stop()
	for {
		p.mu.Lock()
		pending := p.pending
		p.mu.Unlock()
		var soon <-chan time.Time
		if pending != nil {
			left := time.Until(pending.Deadline)
			why := lost(pending.Heard, p.agent.heard())
			if left <= 0 {
				why = "nobody confirmed it before its deadline"
			}
			if why != "" {
				p.agent.rollBack(why)
				p.agent.readState()
				continue
			}
			soon = time.After(min(left, reachEvery))
		}
		select {
		case <-ctx.Done():
			p.agent.zones.learner.keep()
			return
		case <-p.wake:
		case <-soon:
		case <-ticker.C:
			p.agent.zones.learner.keep()
		}
	}
}

package agent

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/vip"
)

func backendsOn(nodes ...string) (all []api.Backend) {
	for i, node := range nodes {
		all = append(all, api.Backend{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80), Node: node})
	}
	return all
}

func TestBackendsFollowTheirNodesButNoServiceIsEmptied(t *testing.T) {
	up := func(*api.Service, api.Backend) bool { return true }
	down := func(*api.Service, api.Backend) bool { return false }
	for name, c := range map[string]struct {
		backends []api.Backend
		unwell   map[string]api.NodeHealth
		others   func(*api.Service, api.Backend) bool
		want     []api.BackendState
	}{
		"one dead, one suspect":          {backendsOn("a1", "a2", "a3"), map[string]api.NodeHealth{"a2": api.NodeDead, "a3": api.NodeSuspect}, up, []api.BackendState{api.Up, api.Down, api.Draining}},
		"all dead: all are kept":         {backendsOn("a1", "a2"), map[string]api.NodeHealth{"a1": api.NodeDead, "a2": api.NodeDead}, up, []api.BackendState{api.Up, api.Up}},
		"the last one does not serve":    {backendsOn("a1", "a2"), map[string]api.NodeHealth{"a1": api.NodeDead}, down, []api.BackendState{api.Up, api.Up}},
		"a node known by its address":    {backendsOn("", ""), map[string]api.NodeHealth{"n": api.NodeDead}, up, []api.BackendState{api.Up, api.Down}},
		"a node that runs none of them":  {backendsOn("a1"), map[string]api.NodeHealth{"a9": api.NodeDead}, up, []api.BackendState{api.Up}},
		"everybody is well":              {backendsOn("a1"), nil, up, []api.BackendState{api.Up}},
		"a suspect one alone is no loss": {backendsOn("a1"), map[string]api.NodeHealth{"a1": api.NodeSuspect}, up, []api.BackendState{api.Up}},
	} {
		s := &api.Snapshot{
			Services: []api.Service{{Name: "web", Backends: c.backends}},
			Nodes:    []api.Node{{Name: "n", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}},
		}
		var n nodeStates
		changed := n.set(s, c.unwell, nil, c.others)
		differs := false
		for i, b := range c.backends {
			got, reason := n.state("web.default", api.TCP, b.Address)
			if got != c.want[i] || (got == api.Up) != (reason == "") {
				t.Errorf("%s: backend %d is %s (%s), want %s", name, i, got, reason, c.want[i])
			}
			differs = differs || got != api.Up
		}
		if (len(changed) == 1) != differs {
			t.Errorf("%s: told of %v", name, changed)
		}
		if again := n.set(s, c.unwell, nil, c.others); len(again) != 0 {
			t.Errorf("%s: told of %v though nothing had changed", name, again)
		}
		if back := n.set(s, nil, nil, up); (len(back) == 1) != differs {
			t.Errorf("%s: told of %v when all were well again", name, back)
		}
	}
}

func TestVerdictsOnBackendsAreWhatTheyWouldBeAfresh(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	nodes := []string{"a1", "a2", "a3"}
	s := &api.Snapshot{Nodes: []api.Node{{Name: "a1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}}
	unwell := map[string]api.NodeHealth{}
	down := map[string]bool{} // services of which backends are not up
	up := func(service *api.Service, _ api.Backend) bool { return !down[service.Name] }
	var n nodeStates
	for step := range 2000 {
		touched := map[vip.ServiceRef]bool{}
		next := *s
		next.Services = slices.Clone(s.Services)
		switch random.IntN(5) {
		case 0:
			name := fmt.Sprintf("s%d", random.IntN(6))
			at, found := slices.BinarySearchFunc(next.Services, name, func(s api.Service, name string) int { return strings.Compare(s.Name, name) })
			if found {
				next.Services = slices.Delete(next.Services, at, at+1)
			} else {
				next.Services = slices.Insert(next.Services, at, api.Service{Name: name, Backends: backendsOn("a1", "a2", "")})
			}
		case 1:
			if len(next.Services) > 0 {
				next.Services[random.IntN(len(next.Services))].Backends = backendsOn(nodes[random.IntN(3)], nodes[random.IntN(3)])
			}
		case 2:
			unwell = maps.Clone(unwell)
			unwell[nodes[random.IntN(3)]] = []api.NodeHealth{api.NodeSuspect, api.NodeDead}[random.IntN(2)]
		case 3:
			unwell = maps.Clone(unwell)
			delete(unwell, nodes[random.IntN(3)])
		case 4:
			if len(next.Services) > 0 {
				one := &next.Services[random.IntN(len(next.Services))]
				down[one.Name] = !down[one.Name]
				touched[vip.ServiceRef{Service: one.Key(), Protocol: api.TCP}] = true
			}
		}
		s = &next
		before := maps.Clone(n.verdicts)
		changed := n.set(s, unwell, touched, up)
		var fresh nodeStates
		fresh.set(s, unwell, nil, up)
		if !maps.Equal(n.verdicts, fresh.verdicts) {
			t.Fatalf("step %d: got %v, want %v", step, n.verdicts, fresh.verdicts)
		}
		told := map[string]bool{}
		for _, ref := range changed {
			told[ref.Service] = true
		}
		for k := range before {
			if n.verdicts[k] != before[k] && !told[k.service] {
				t.Fatalf("step %d: %v changed and was not told", step, k)
			}
		}
		for k := range n.verdicts {
			if n.verdicts[k] != before[k] && !told[k.service] {
				t.Fatalf("step %d: %v changed and was not told", step, k)
			}
		}
	}
}
